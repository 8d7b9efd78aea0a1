"""A region text from an `init_cfg`, so that a configuration found elsewhere can be tested like any other strategy."""

from __future__ import annotations

import ast
import functools
import inspect
import re
import textwrap
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from benchmark.initializers.config import InitCfg, Step, plan
from benchmark.initializers.errors import InitConfigError
from benchmark.initializers.registry import LayerRule, MatchingRule, names_of
from benchmark.models import ARCHITECTURES, build_model

_LINE = 120

_HELPER = '''\
def select(root, *names):
    """The modules of these classes inside `root` (all without names), children before their parents."""
    found = []
    root.apply(found.append)
    return [module for module in found if not names or module.__class__.__name__ in names]
'''

_REST = """\
    # What the config says nothing about gets torch's own defaults.
    for module in model.modules():
        if module not in done and hasattr(module, "reset_parameters"):
            module.reset_parameters()
"""


def region_from_init_cfg(init_cfg: InitCfg) -> str:
    """A self-contained region text that initialises a network as `initialize(network, init_cfg)` does.

    What the config sets is bit-equal for the same seed. Modules that it does not mention, which `initialize` leaves
    alone, get torch's `reset_parameters` afterwards, so that every parameter is set. `layer` is resolved to the classes
    of torch.nn and of this project's networks; any other name is taken as that of a class. An override fails on a
    network without that submodule.
    Raises InitConfigError for a config that is wrong or loads a checkpoint (a region can read no files).
    """
    steps = plan(init_cfg, [])
    functions: dict[str, Callable[..., Any]] = {}
    lines: list[str] = []
    for step in steps:
        if not isinstance(step.rule, MatchingRule):
            raise InitConfigError(
                f"{step.rule.describe()}: a region text can load no checkpoint, for it reads no files"
            )
        lines += [f"    # {step.rule.describe()}", *(f"    {line}" for line in _step_lines(step))]
        functions.update({function.__name__: function for function in _with_helpers(type(step.rule).function)})
    called = ", then ".join(dict.fromkeys(type(step.rule).__name__ for step in steps)) or "nothing"
    sources = [re.sub(r" +# type: ignore.*", "", inspect.getsource(function)) for function in functions.values()]
    body = ['    """Made from an init_cfg: ' + called + '."""', "    done = set()", *lines]
    strategy = "def initialize_weights(model, config):\n" + "\n".join(body) + "\n" + _REST
    return "\n\n".join([*sources, _HELPER, strategy])


def _step_lines(step: Step) -> Iterator[str]:
    rule = step.rule
    assert isinstance(rule, MatchingRule)
    root = f'model.get_submodule("{step.target}")' if step.target else "model"
    names = [] if step.whole else _class_names(rule)
    if not step.whole and not rule.layers:
        yield "# (no layer: only its overrides)"
        return
    if not step.whole and not names:
        yield "# (no class can be called so)"
        return
    selected = f"select({', '.join([root, *(repr(name).replace(chr(39), chr(34)) for name in names)])})"
    if not isinstance(rule, LayerRule):
        yield f"{rule.function.__name__}({selected})"
        return
    arguments = ", ".join(f"{name}={_literal(value)}" for name, value in rule.arguments().items())
    if len(selected) <= _LINE - 24:
        yield f"for module in {selected}:"
    else:
        inside = textwrap.wrap(selected.partition("(")[2][:-1], _LINE - 8)
        yield from ("for module in select(", *(f"    {line}" for line in inside), "):")
    call = f"    {rule.function.__name__}(module, {arguments})"
    if len(call) <= _LINE - 4:
        yield call
    else:
        yield from (f"    {rule.function.__name__}(", f"        module, {arguments}", "    )")
    yield "    done.add(module)"


def _class_names(rule: MatchingRule) -> list[str]:
    """The classes that `layer` matches: of torch.nn and of our networks; a name that neither has stands for itself."""
    found = {known.__name__: names_of(known) & {*rule.layers} for known in _known_classes()}
    own = {name for name in {*rule.layers}.difference(*found.values()) if name.isidentifier()}
    return sorted({name for name, matched in found.items() if matched} | own)


@functools.cache
def _known_classes() -> frozenset[type]:
    """The classes of torch.nn, and of all modules in our networks. To build those takes a quarter of a second."""
    with torch.device("meta"):
        ours = {type(module) for arch in ARCHITECTURES for module in build_model(arch, 2).modules()}
    # A MultiheadAttention has one of these, and a lazy layer becomes one of its class when it gets its sizes.
    hidden = {nn.modules.linear.NonDynamicallyQuantizableLinear}
    public = {known for known in vars(nn).values() if isinstance(known, type) and issubclass(known, nn.Module)}
    return frozenset(ours | hidden | {known for known in public if not known.__name__.startswith("Lazy")})


def _literal(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _with_helpers(function: Callable[..., Any]) -> list[Callable[..., Any]]:
    """The function after every function of this package that it calls, directly or not."""
    assert isinstance(function, types.FunctionType)
    found: list[Callable[..., Any]] = []
    # Names alone: an attribute such as nn.init.orthogonal_ may be called like one of our own functions.
    names = [node.id for node in ast.walk(ast.parse(inspect.getsource(function))) if isinstance(node, ast.Name)]
    for name in dict.fromkeys(names):
        value = function.__globals__.get(name)
        if isinstance(value, types.FunctionType) and value.__module__.startswith("benchmark.initializers"):
            found += [helper for helper in _with_helpers(value) if helper not in found]
    return [*found, function]
