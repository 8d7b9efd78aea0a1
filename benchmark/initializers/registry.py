"""The registry of initialisers, and what all rules share: arguments with types and checks, and the classes they act on.

A rule is a frozen dataclass; its fields are the keys that the entry of an `init_cfg` may have.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar, Union

import torch
from torch import nn

from benchmark.initializers import modules
from benchmark.initializers.errors import InitArgumentError, InitConfigError

_LARGEST = torch.finfo(torch.float32).max


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What all rules share: checked arguments and a sentence for the log."""

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            _check(field.name, getattr(self, field.name), hints[field.name])

    def describe(self) -> str:
        """The sentence that the log gives for the parameters that this rule set."""
        return type(self).__name__


@dataclass(frozen=True, kw_only=True)
class MatchingRule(Rule):
    """A rule for the modules of certain classes."""

    layer: str | list[str] | None = None
    """Class names; a module matches by the name of its class or of a direct base class of it."""

    function: ClassVar[Callable[..., Any]]
    """What it does, as a plain function, from `modules`."""
    min_dims: ClassVar[int] = 0
    """Dimensions that a weight must have for the formula to make sense: two where it needs a fan or a matrix."""

    @property
    def layers(self) -> tuple[str, ...]:
        """The names in `layer`, as a tuple."""
        if self.layer is None:
            return ()
        return (self.layer,) if isinstance(self.layer, str) else tuple(self.layer)

    def matches(self, module: nn.Module) -> bool:
        """Whether `layer` names the module's class or a direct base class of it."""
        return not names_of(type(module)).isdisjoint(self.layers)

    def check(self, targets: list[nn.Module]) -> list[str]:
        """Warnings about the modules that `apply` would get, before anything is touched. Raises InitConfigError."""
        return []

    def apply(self, targets: list[nn.Module]) -> list[torch.Tensor]:
        """Initialise the modules in this order; returns the tensors that were set."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class LayerRule(MatchingRule):
    """A rule that sets the weight of each matching module by a formula and its bias to a constant."""

    bias: float = 0
    bias_prob: float | None = None
    """The probability that the bias stands for, through a sigmoid; it wins over `bias`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bias_prob is not None and not 0 < self.bias_prob < 1:
            raise InitConfigError(f"bias_prob must lie between 0 and 1, not {self.bias_prob}")

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of `function` in the order of the log: the formula's own, then the bias."""
        common = {field.name for field in dataclasses.fields(LayerRule)}
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name not in common}
        return {**own, "bias": self.bias if self.bias_prob is None else modules.bias_init_with_prob(self.bias_prob)}

    def describe(self) -> str:
        """As MMEngine logs it: `XavierInit: gain=1, distribution=normal, bias=0`."""
        return f"{type(self).__name__}: " + ", ".join(f"{name}={value}" for name, value in self.arguments().items())

    def apply(self, targets: list[nn.Module]) -> list[torch.Tensor]:
        """Initialise each module; returns the weights and biases that were set."""
        touched: list[torch.Tensor] = []
        for module in targets:
            type(self).function(module, **self.arguments())
            touched += [
                tensor for name in ("weight", "bias") if isinstance(tensor := getattr(module, name, None), torch.Tensor)
            ]
        return touched


INITIALIZERS: dict[str, type[Rule]] = {}
"""The rules by the name that `type` gives in a config."""

_R = TypeVar("_R", bound=type[Rule])


def register(name: str) -> Callable[[_R], _R]:
    """Class decorator: makes a rule available as `dict(type=name, …)`. Raises ValueError for a name that is taken."""

    def add(rule: _R) -> _R:
        if name in INITIALIZERS:
            raise ValueError(f"an initialiser called {name!r} is registered already")
        INITIALIZERS[name] = rule
        return rule

    return add


def names_of(module_class: type) -> set[str]:
    """The names of a class and of its direct base classes; MMEngine looks no further up."""
    return {module_class.__name__, *(base.__name__ for base in module_class.__bases__)}


def _check(name: str, value: object, hint: Any) -> None:
    """Raise InitArgumentError unless the value has the annotated type.

    A whole number is a float; a bool is not, nor is NaN or what float32 cannot hold.
    """
    options = (
        typing.get_args(hint) if isinstance(hint, types.UnionType) or typing.get_origin(hint) is Union else (hint,)
    )
    if not any(_is_a(value, option) for option in options):
        wanted = " or ".join(_spell(option) for option in options)
        raise InitArgumentError(f"{name} must be {wanted}, not {value!r} ({type(value).__name__})")


def _is_a(value: object, kind: Any) -> bool:
    if typing.get_origin(kind) is Literal:
        return value in typing.get_args(kind)
    if typing.get_origin(kind) is list:
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST
    return isinstance(value, kind)


def _spell(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return " or ".join(repr(choice) for choice in typing.get_args(kind))
    if typing.get_origin(kind) is list:
        return "a list of strings"
    return {float: "a finite number", str: "a string", bool: "True or False", type(None): "None"}.get(kind, str(kind))
