"""A region text from an `init_cfg`, so that a configuration found elsewhere can be tested like any other strategy."""

from __future__ import annotations

import ast
import functools
import inspect
import re
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch

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
    that occur in this project's networks. An override fails on a network without that submodule.
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
        yield "# (nothing in this project's networks is called so)"
        return
    selected = f"select({', '.join([root, *(repr(name).replace(chr(39), chr(34)) for name in names)])})"
    if not isinstance(rule, LayerRule):
        yield f"{rule.function.__name__}({selected})"
        return
    arguments = ", ".join(f"{name}={_literal(value)}" for name, value in rule.arguments().items())
    yield f"for module in {selected}:"
    call = f"    {rule.function.__name__}(module, {arguments})"
    if len(call) <= _LINE - 4:
        yield call
    else:
        yield from (f"    {rule.function.__name__}(", f"        module, {arguments}", "    )")
    yield "    done.add(module)"


def _class_names(rule: MatchingRule) -> list[str]:
    """The classes that the rule's `layer` matches in this project's networks, by name."""
    return sorted(known.__name__ for known in _our_classes() if not names_of(known).isdisjoint(rule.layers))


@functools.cache
def _our_classes() -> frozenset[type]:
    """The classes of all modules in this project's networks. To build those takes a quarter of a second."""
    with torch.device("meta"):
        return frozenset(type(module) for arch in ARCHITECTURES for module in build_model(arch, 2).modules())


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
