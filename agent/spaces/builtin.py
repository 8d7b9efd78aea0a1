"""The built-in search space: its numbers, where each one acts, and the points tried first.

The point with all numbers at their neutral values is `kaiming_normal`, the baseline. Each number stands for one known
idea, and the generated code (`rendering` writes it) contains only the ideas that are used. Fixup, zero-γ, orthogonal,
Dirac and GradInit-like initialisations are points of this space (`first_points`), so a search can start from them and
mix them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from benchmark.networks import Role

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

_COMMON: frozenset[Role] = frozenset({"layer", "conv", "identity", "norm", "head"})
_RESIDUAL: frozenset[Role] = frozenset({"branch", "gain"})

# The roles of layers in each network. A number that acts on no visible network must not be searched. A test changes
# each number on each network to check this table. An architecture that is not listed counts as having all roles.
ROLES: Mapping[str, frozenset[Role]] = {
    "resnet20": _COMMON | _RESIDUAL | {"skip_conv"},
    "resnet56": _COMMON | _RESIDUAL | {"skip_conv"},
    "vgg8bn": _COMMON | {"hidden"},
    "vgg16bn": _COMMON | {"hidden"},
    "mobilenetv2": _COMMON | _RESIDUAL | {"depthwise"},
}


@dataclass(frozen=True)
class Parameters:
    """One point of the space. The defaults are neutral and give kaiming_normal. Gains multiply weights.

    Raises ValueError for a number that is not finite or not meaningful (a negative gain, a share outside 0..1).
    """

    structure: Literal["normal", "orthogonal", "dirac_mix"] = "normal"
    """The distribution of convolutions; `orthogonal` applies to Linear layers too."""
    identity_share: float = 0.5
    """Share of a kernel's squared norm that passes channels through unchanged (dirac_mix only)."""
    filter_norm: bool = False
    """True: all filters of a layer get the same norm."""
    g_conv: float = 1.0
    """Gain of all convolutions over kaiming_normal's √2."""
    depth_slope: float = 0.0
    """s: convolution l of L is multiplied by exp(s·(l/L − ½))."""
    g_depthwise: float | None = None
    """Gain of depthwise convolutions over their true fan, one kernel; None: treated like the others, as torch does."""
    shortcut_gain: float = 1.0
    """Gain of convolutions on skips."""
    branch_last_alpha: float = 0.0
    """α: the last convolution of a residual branch is multiplied by L^-α, L being the number of branches."""
    gamma_last: float = 1.0
    """Weight of the last norm of a residual branch; 0: every block starts as its skip."""
    gamma_rise: float = 0.0
    """r: the last norm of branch i of L, counted from 0, gets r·√((i + 1) / L) on top of gamma_last."""
    bn_beta: float = 0.0
    """Bias of every norm that is not the last of a branch."""
    g_hidden: float = 1.0
    """Gain of Linear layers before the head."""
    head_scale: float = 1.0
    """Gain of the last Linear layer; 0: the first prediction is uniform."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float | int) and not math.isfinite(value):
                raise ValueError(f"{field.name} must be finite, not {value}")
        for name in ("g_conv", "g_depthwise", "shortcut_gain", "g_hidden"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise ValueError(f"{name} must be positive, not {value}: the layer would be dead")
        if not 0 <= self.identity_share <= 1:
            raise ValueError(f"identity_share must lie in 0..1, not {self.identity_share}")

    def as_dict(self) -> dict[str, Any]:
        """The arguments of `study.enqueue_trial` that `decode` makes this point of, clipped to the ranges.

        A special value, such as γ = 0, appears as a number below its range: see `Knob`.
        """
        choices = {name: getattr(self, name) for name in _CHOICES}
        return choices | {knob.name: knob.sampled(getattr(self, knob.name)) for knob in KNOBS}


@dataclass(frozen=True)
class Knob:
    """How one number is searched: its range, its scale (`log` or linear), and the role that it acts on.

    With `special_share` p > 0 the sampler's range is extended below `low` so that a random number falls there with
    probability p. There the value is `special`. Optuna has no such distribution, and samplers without conditional
    dimensions need this one dimension only.
    A value within `snap` of the neutral one becomes neutral. This keeps the code short and the proposals distinct.
    """

    name: str
    low: float
    high: float
    role: Role
    log: bool = False
    special: float | None = 0.0
    special_share: float = 0.0
    snap: float = 0.0

    @property
    def sampled_low(self) -> float:
        """The lower end of the range that a sampler sees."""
        odds = self.special_share / (1 - self.special_share)
        if self.log:
            return float(self.low * (self.low / self.high) ** odds)
        return self.low - (self.high - self.low) * odds

    def value(self, sampled: float) -> float | None:
        """The number in the code for the sampler's number, with three significant digits."""
        if self.special_share and sampled < self.low:
            return self.special
        neutral: float | None = getattr(Parameters(), self.name)
        if neutral is not None:
            distance = abs(math.log(sampled / neutral)) if self.log else abs(sampled - neutral)
            if distance < self.snap:
                return neutral
        return float(f"{sampled:.3g}")

    def sampled(self, value: float | None) -> float:
        """The sampler's number for `value`, clipped to the range."""
        if self.special_share and value == self.special:
            return math.sqrt(self.sampled_low * self.low) if self.log else (self.sampled_low + self.low) / 2
        assert value is not None  # only special values are None
        return min(max(value, self.low), self.high)


# Minor ideas are left out of half of all random proposals, to keep the code short.
KNOBS: tuple[Knob, ...] = (
    Knob("g_conv", 0.35, 2.83, "conv", log=True, snap=0.05),
    Knob("branch_last_alpha", 0.0, 1.0, "branch", snap=0.05),
    Knob("gamma_last", 0.05, 1.0, "gain", special=0.0, special_share=0.25, snap=0.03),
    Knob("head_scale", 0.02, 1.5, "head", log=True, special=0.0, special_share=0.15, snap=0.05),
    Knob("g_hidden", 0.5, 2.0, "hidden", log=True, special=1.0, special_share=0.5, snap=0.05),
    Knob("g_depthwise", 0.05, 2.0, "depthwise", log=True, special=None, special_share=0.5),
    Knob("depth_slope", -1.0, 1.0, "conv", special_share=0.5, snap=0.05),
    Knob("shortcut_gain", 0.5, 2.0, "skip_conv", log=True, special=1.0, special_share=0.5, snap=0.05),
    Knob("bn_beta", -0.2, 0.3, "norm", special_share=0.5, snap=0.02),
    Knob("identity_share", 0.05, 0.95, "identity"),
    Knob("gamma_rise", 0.0, 0.5, "gain", special_share=0.5, snap=0.02),  # the newest last: others keep their place
)
_CHOICES: dict[str, tuple[str | bool, ...]] = {
    "structure": ("normal", "orthogonal", "dirac_mix"),
    "filter_norm": (False, True),
}
_CHOICE_ROLES: dict[str | bool, Role] = {"orthogonal": "layer", "dirac_mix": "identity", True: "conv"}
_EVERYTHING: frozenset[Role] = frozenset(knob.role for knob in KNOBS) | frozenset(_CHOICE_ROLES.values())

_FIXUP = Parameters(branch_last_alpha=0.5, gamma_last=0.0)
_GRADINIT = Parameters(g_conv=1.5, gamma_last=0.3)

_SMALL_BRANCHES: tuple[Parameters, ...] = (
    _FIXUP,
    _GRADINIT,
    dataclasses.replace(_FIXUP, structure="orthogonal"),
    Parameters(gamma_last=0.0),
    dataclasses.replace(_FIXUP, structure="dirac_mix"),
)


Roles = Mapping[str, frozenset[Role]]
"""Roles by architecture."""


def first_points(architectures: Iterable[str] | None = None, known: Roles = ROLES) -> tuple[Parameters, ...]:
    """The first points of a search on these (visible) networks, best guess first; None: on any network.

    A search with three tests tries only these, so their order matters; docs/search-space.md has the measurements.
    kaiming_normal is the baseline and is not tested again. In a network without branches the branch numbers do nothing,
    and the head's scale matters. In a residual network a small head is harmful. If all networks are residual, the head
    is not changed. Otherwise the first points have small branches and a small head, and the third has no small head, to
    show whether it was needed. The rest are other known ideas with small branches.
    """
    residual = architectures is not None and all(_RESIDUAL & frozenset(known.get(arch, ())) for arch in architectures)
    if residual:
        return _SMALL_BRANCHES
    first, second, *rest = (dataclasses.replace(point, head_scale=0.1) for point in _SMALL_BRANCHES)
    return (first, second, _FIXUP, Parameters(head_scale=0.1), *rest)


def distributions(architectures: Iterable[str] | None = None, known: Roles = ROLES) -> dict[str, BaseDistribution]:
    """Optuna distributions of all numbers that act on at least one of the (visible) `architectures`; None: of all.

    A number that acts on no visible network stays neutral. A search cannot learn it, and a random value could harm the
    hidden task. An architecture without an entry in `known` counts as having all roles.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    every = _roles(architectures, known)
    space: dict[str, BaseDistribution] = {
        name: CategoricalDistribution(choices) for name, choices in _choices(every).items()
    }
    for knob in _active(every):
        space[knob.name] = FloatDistribution(knob.sampled_low, knob.high, log=knob.log)
    return space


def decode(sampled: Mapping[str, Any]) -> Parameters:
    """The point for the parameters of a trial (`trial.params`); numbers that are absent stay neutral."""
    knobs = {knob.name: knob for knob in KNOBS}
    values: dict[str, Any] = {
        name: knobs[name].value(value) if name in knobs else value for name, value in sampled.items()
    }
    if values.get("structure") != "dirac_mix":
        values.pop("identity_share", None)  # it acts on nothing, and equal strategies must compare equal
    return Parameters(**values)


def acting(parameters: Parameters, architectures: Iterable[str], known: Roles = ROLES) -> Parameters:
    """The point without what acts on none of the (visible) `architectures`: those numbers and choices are neutral."""
    every, neutral = _roles(architectures, known), Parameters()
    choices = _choices(every)
    kept = {knob.name for knob in _active(every)}
    kept |= {name for name, values in choices.items() if getattr(parameters, name) in values}
    idle = {field.name: getattr(neutral, field.name) for field in dataclasses.fields(neutral) if field.name not in kept}
    return dataclasses.replace(parameters, **idle)


def without_effect(architectures: Iterable[str], known: Roles = ROLES) -> tuple[str, ...]:
    """The names of the numbers and choices that act on none of the (visible) `architectures`."""
    searched = distributions(architectures, known)
    return tuple(name for name in (*_CHOICES, *(knob.name for knob in KNOBS)) if name not in searched)


def _roles(architectures: Iterable[str] | None, known: Roles) -> frozenset[Role]:
    if architectures is None:
        return _EVERYTHING
    return frozenset().union(*(known.get(arch, _EVERYTHING) for arch in architectures))


def _choices(every: frozenset[Role]) -> dict[str, tuple[str | bool, ...]]:
    """The choices that act, by name; without names for which only the neutral choice is left."""
    found = {
        name: tuple(one for one in values if one not in _CHOICE_ROLES or _CHOICE_ROLES[one] in every)
        for name, values in _CHOICES.items()
    }
    return {name: values for name, values in found.items() if len(values) > 1}


def _active(every: frozenset[Role]) -> list[Knob]:
    return [knob for knob in KNOBS if knob.role in every]


def is_foreign(architectures: Iterable[str] | None) -> bool:
    """Whether any of these networks is not one of this project's."""
    return architectures is not None and not ROLES.keys() >= set(architectures)
