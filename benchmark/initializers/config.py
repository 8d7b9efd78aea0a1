"""`initialize`: a module's weights from a configuration, with the rules and the order of MMEngine 0.10.7.

Order: the entries of `init_cfg` one after the other, each followed by its overrides; then the `init_weights` of the
module's children that have one of their own; then checkpoints. An entry visits the modules as `Module.apply` does,
children before parents. Before anything is touched the config is checked, checkpoints are read and compared with the
module, and the children's `init_weights` must be callable without arguments. What still fails later, such as a child's
own `init_weights`, leaves the module as it was (`all_or_nothing`).
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils import parametrize

from benchmark.initializers.all_or_nothing import all_or_nothing
from benchmark.initializers.errors import (
    InitArgumentError,
    InitConfigError,
    UninitializableModuleError,
    UnknownInitializerError,
    UnknownSubmoduleError,
)
from benchmark.initializers.log import InitLog, Recorder
from benchmark.initializers.modules import tensor_of
from benchmark.initializers.pretrained import fitting_state
from benchmark.initializers.registry import INITIALIZERS, LayerRule, MatchingRule, Rule, names_of
from benchmark.initializers.rules import FixupInit, PretrainedInit
from benchmark.suggestions import did_you_mean

InitCfg = Mapping[str, Any] | Sequence[Mapping[str, Any]]
"""One entry or a list of entries: {"type": …, "layer": …, arguments, "override": …}."""


@dataclass(frozen=True)
class Step:
    """A rule and where it applies: below the submodule `target` ("" is the module itself).

    `whole` means every module there, whatever its class: that is what an override does.
    """

    rule: Rule
    target: str = ""
    whole: bool = False


def initialize(module: nn.Module, init_cfg: InitCfg) -> InitLog:
    """Initialise `module` in place as `init_cfg` says, and log which rule set which parameter.

    An entry is a dict with `type` (a name in `INITIALIZERS`, or a rule class), the type's arguments, `layer` (a class
    name or a list of them, matching a module's class or a direct base class of it) and `override` (a dict or a list of
    them, each with `name`, a submodule, and either its own `type` and arguments or nothing else, which means the
    entry's). Overrides set every module inside the named one. Without `layer` and `override` nothing is touched.
    For the same seed and config the tensors equal MMEngine's bit for bit. Where that is not the aim: checkpoints in
    overrides also come last, a checkpoint must fit, names of submodules may have dots.
    A child that has run its own `init_weights` before and says so (`is_init`) does not run it again, as in MMEngine; a
    warning says where the config has overwritten what it did.
    Raises InitConfigError (unknown type, argument, submodule, …), UninitializableModuleError, CheckpointError, all of
    them before anything is touched, and whatever a child's `init_weights` or a hook raises. Then, and after an
    interruption, the module is put back as it was: see `all_or_nothing`.
    """
    warnings: list[str] = []
    steps = plan(init_cfg, warnings)
    if not steps:
        warnings.append("init_cfg is empty: no rule touches anything")
    _check_materialised(module)
    matched = [_matched(module, step, warnings) for step in steps]
    loads = [(module.get_submodule(step.target), step.rule) for step in steps if isinstance(step.rule, PretrainedInit)]
    states = [fitting_state(part, rule.checkpoint, rule.prefix, rule.map_location) for part, rule in loads]
    _check_children(module)
    warnings += _module_warnings(module)
    with all_or_nothing(module):
        recorder = Recorder(module)
        for step, modules in zip(steps, matched, strict=True):
            if isinstance(step.rule, MatchingRule):
                recorder.named(step.rule.apply(modules), step.rule.describe())
        for name, child in module.named_children():
            own = getattr(child, "init_weights", None)
            if not callable(own):
                continue
            if not getattr(child, "is_init", False):
                recorder.changed(name, own, f"Initialized by user-defined `init_weights` in {type(child).__name__}")
            elif recorder.has_set(f"{name}."):
                warnings.append(
                    f"the init_weights of {name} has run before (is_init) and does not run again: the config has "
                    f"overwritten weights of it. Set {name}.is_init = False to have it run"
                )
        for (part, rule), (state, unused) in zip(loads, states, strict=True):
            part.load_state_dict(state, strict=False)
            recorder.named(list(part.parameters()), rule.describe())
            if unused:
                shown = ", ".join(unused[:8]) + (" …" if len(unused) > 8 else "")
                warnings.append(f"{rule.describe()}: {len(unused)} keys have no place in the module: {shown}")
        untouched = f"The value is the same before and after calling `init_weights` of {type(module).__name__}"
        return recorder.finish(warnings, untouched)


def plan(init_cfg: InitCfg, warnings: list[str]) -> list[Step]:
    """The steps that a config stands for, in order. Raises InitConfigError; appends to `warnings`."""
    if isinstance(init_cfg, Mapping):
        entries: Sequence[Any] = [init_cfg] if init_cfg else []
    elif isinstance(init_cfg, list | tuple):
        entries = init_cfg
    else:
        raise InitArgumentError(f"init_cfg must be a dict or a list of dicts, not {_kind(init_cfg)}")
    steps: list[Step] = []
    for number, entry in enumerate(entries):
        where = "init_cfg" if isinstance(init_cfg, Mapping) else f"init_cfg[{number}]"
        if not isinstance(entry, Mapping):
            raise InitArgumentError(f"{where} must be a dict, not {_kind(entry)}")
        own = {key: value for key, value in entry.items() if key != "override"}
        rule = _build(own, where)
        overrides = _overrides(entry.get("override"), own, where, warnings)
        if isinstance(rule, MatchingRule) and not rule.layers and not overrides:
            warnings.append(f"{where}: {type(rule).__name__} has neither `layer` nor `override`: it touches nothing")
        steps += [Step(rule), *overrides]
    return steps


def post_order(module: nn.Module) -> list[nn.Module]:
    """All modules in the order of `Module.apply`: children before parents; a shared one each time it is met."""
    found: list[nn.Module] = []
    module.apply(found.append)
    return found


def _overrides(override: object, entry: dict[str, Any], where: str, warnings: list[str]) -> list[Step]:
    if override is None:
        return []
    if not isinstance(override, Mapping | list | tuple):
        raise InitArgumentError(f"{where}: override must be a dict or a list of dicts, not {_kind(override)}")
    steps = []
    for number, item in enumerate([override] if isinstance(override, Mapping) else override):
        place = f"{where}.override" if isinstance(override, Mapping) else f"{where}.override[{number}]"
        if not isinstance(item, Mapping):
            raise InitArgumentError(f"{place} must be a dict, not {_kind(item)}")
        arguments = {key: value for key, value in item.items() if key != "name"}
        name = item.get("name")
        if not isinstance(name, str) or not name:
            raise InitConfigError(f"{place} needs the key 'name', the submodule that it is for; it has {dict(item)}")
        if not arguments:
            arguments = {key: value for key, value in entry.items() if key != "layer"}
        elif "type" not in arguments:
            raise InitConfigError(
                f"{place} needs the key 'type' beside its arguments ({', '.join(arguments)}), or no arguments at all "
                "to use those of the entry"
            )
        rule = _build(arguments, place)
        if isinstance(rule, FixupInit):
            raise InitConfigError(
                f"{place}: Fixup counts the blocks of a network; give it an entry of its own with `layer`"
            )
        if isinstance(rule, MatchingRule) and rule.layers:
            warnings.append(f"{place}: `layer` has no effect in an override, which sets all of {name!r}")
        steps.append(Step(rule, name, whole=True))
    return steps


def _build(entry: dict[str, Any], where: str) -> Rule:
    """The rule of one entry; every error names the entry."""
    arguments = dict(entry)
    if "type" not in arguments:
        raise UnknownInitializerError(f"{where} needs the key 'type'; known: {', '.join(INITIALIZERS)}")
    kind = arguments.pop("type")
    if isinstance(kind, str):
        if kind not in INITIALIZERS and "." in kind:
            kind = kind.rpartition(".")[2]  # a registry's scope, as in 'mmengine.Kaiming'
        if kind not in INITIALIZERS:
            hint = did_you_mean(kind, INITIALIZERS)
            raise UnknownInitializerError(
                f"{where}: unknown initialiser {kind!r}; {hint}Known: {', '.join(INITIALIZERS)}"
            )
        kind = INITIALIZERS[kind]
    if not (isinstance(kind, type) and issubclass(kind, Rule)):
        raise InitArgumentError(f"{where}: type must be the name of an initialiser or its class, not {_kind(kind)}")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for name in arguments:
        if name not in fields:
            hint = did_you_mean(str(name), fields)
            raise InitArgumentError(
                f"{where}: {kind.__name__} has no argument {name!r}; {hint}It takes: {', '.join(fields)}"
            )
    for name, field in fields.items():
        if field.default is dataclasses.MISSING and name not in arguments:
            raise InitArgumentError(f"{where}: {kind.__name__} needs the argument {name!r}")
    try:
        return kind(**arguments)
    except InitConfigError as error:
        raise type(error)(f"{where}: {kind.__name__}: {error}") from error


def _matched(module: nn.Module, step: Step, warnings: list[str]) -> list[nn.Module]:
    """The modules that a step sets, in order. Raises InitConfigError where its formula does not suit one of them."""
    target = _submodule(module, step.target)
    rule = step.rule
    if not isinstance(rule, MatchingRule):
        return []
    below = post_order(target)
    if not step.whole:
        for name in rule.layers:
            if not any(name in names_of(type(each)) for each in below):
                warnings.append(
                    f"{type(rule).__name__}: layer {name!r} matches no module, so nothing is touched for it"
                )
        below = [each for each in below if rule.matches(each)]
    for each in below:
        _check_stored(each, rule)
        weight = tensor_of(each, "weight")
        if weight is not None and weight.dim() < rule.min_dims:
            raise InitConfigError(
                f"{type(rule).__name__} cannot set the weight of a {type(each).__name__}, of shape "
                f"{tuple(weight.shape)}: its formula needs {rule.min_dims} dimensions or more"
            )
    warnings += rule.check(below)
    if isinstance(rule, LayerRule) and not step.whole:
        warnings += _without_effect(below, rule)
    return below


def _without_effect(matched: list[nn.Module], rule: LayerRule) -> list[str]:
    """A warning for each class, such as MultiheadAttention or LSTM, whose own parameters have other names."""
    others = {
        type(each).__name__: [name for name, value in each._parameters.items() if value is not None]
        for each in matched
        if tensor_of(each, "weight") is None and tensor_of(each, "bias") is None
    }
    return [
        f"{type(rule).__name__} sets `weight` and `bias`; the parameters of a {name} have other names and are left "
        f"alone: {', '.join(found[:4])}{' …' if len(found) > 4 else ''}"
        for name, found in sorted(others.items())
        if found
    ]


def _check_stored(module: nn.Module, rule: MatchingRule) -> None:
    """Raise InitConfigError where weight or bias is computed from other parameters, so that writing has no effect."""
    parts = [module] if isinstance(rule, LayerRule) else [*module.modules()]
    for part in parts:
        for name in ("weight", "bias"):
            hooked = not isinstance(getattr(part, name, None), nn.Parameter) and any(
                f"{name}_{end}" in part._parameters for end in ("g", "orig")
            )
            if parametrize.is_parametrized(part, name) or hooked:
                raise InitConfigError(
                    f"{type(rule).__name__} cannot set the {name} of a {type(part).__name__}: it is computed from "
                    "other parameters (weight_norm, spectral_norm or the like). Initialise first, then apply that"
                )


def _check_children(module: nn.Module) -> None:
    """Raise InitConfigError where a child's own `init_weights` could not be called."""
    for name, child in module.named_children():
        own = getattr(child, "init_weights", None)
        if not callable(own) or getattr(child, "is_init", False):
            continue
        try:
            signature = inspect.signature(own)
        except ValueError:  # a function in C that does not say what it takes
            continue
        try:
            signature.bind()
        except TypeError as error:
            raise InitConfigError(
                f"the init_weights of {name} ({type(child).__name__}) is called without arguments, and takes "
                f"{signature}: {error}. Give them default values, or set {name}.is_init = True and call it yourself"
            ) from error


def _submodule(module: nn.Module, name: str) -> nn.Module:
    try:
        return module.get_submodule(name)
    except AttributeError as error:
        hint = did_you_mean(name, [known for known, _ in module.named_modules() if known])
        children = ", ".join(child for child, _ in module.named_children())
        raise UnknownSubmoduleError(
            f"override: {type(module).__name__} has no submodule {name!r}; {hint}Its children: {children}"
        ) from error


def _check_materialised(module: nn.Module) -> None:
    empty = [
        name for name, value in module.named_parameters() if value.is_meta or isinstance(value, UninitializedParameter)
    ]
    if empty:
        shown = ", ".join(empty[:8]) + (" …" if len(empty) > 8 else "")
        raise UninitializableModuleError(
            f"these parameters have no storage to fill: {shown}. Call module.to_empty(device=…) for a module on the "
            "meta device, run one batch through a lazy one"
        )


def _module_warnings(module: nn.Module) -> list[str]:
    """What a person should know about the module: tied or empty parameters, `init_weights` that nobody calls."""
    warnings = []
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
        if parameter.numel() == 0:
            warnings.append(f"{name} has no elements: there is nothing to set")
    warnings += [
        f"{' and '.join(tied)} are one tensor: the last rule that sets any of them counts"
        for tied in names.values()
        if len(tied) > 1
    ]
    warnings += [
        f"the init_weights of {name} is not called: only the module's own children are asked, as in MMEngine"
        for name in _unasked(module)
    ]
    return warnings


def _unasked(module: nn.Module, prefix: str = "") -> Iterator[str]:
    """Names of modules whose `init_weights` nobody calls, because what holds them has none itself."""
    for name, child in module.named_children():
        if not hasattr(child, "init_weights"):
            yield from _unasked(child, f"{prefix}{name}.")
        elif prefix:
            yield prefix + name


def _kind(value: object) -> str:
    return f"{value!r:.80} ({type(value).__name__})"
