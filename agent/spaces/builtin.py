"""The built-in search space, and the region code of each of its points.

The point with all numbers at their neutral values is `kaiming_normal`, the baseline. Each number stands for one known
idea, and the generated code contains only the ideas that are used. Fixup, zero-γ, orthogonal, Dirac and GradInit-like
initialisations are points of this space (`first_points`), so a search can start from them and mix them.
"""

from __future__ import annotations

import dataclasses
import math
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from agent.spaces.literals import readable
from prompts import environment

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from torch import nn

Role = Literal["conv", "branch", "skip_conv", "depthwise", "hidden", "head"]

# The roles of layers in each network. A number that acts on no visible network must not be searched. A test changes
# each number on each network to check this table. An architecture that is not listed counts as having all roles.
ROLES: Mapping[str, frozenset[Role]] = {
    "resnet20": frozenset({"conv", "branch", "skip_conv", "head"}),
    "resnet56": frozenset({"conv", "branch", "skip_conv", "head"}),
    "vgg8bn": frozenset({"conv", "hidden", "head"}),
    "vgg16bn": frozenset({"conv", "hidden", "head"}),
    "mobilenetv2": frozenset({"conv", "branch", "depthwise", "head"}),
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
        """The arguments of `study.enqueue_trial` for which `suggest` proposes this point, clipped to the ranges.

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
    Knob("gamma_last", 0.05, 1.0, "branch", special=0.0, special_share=0.25, snap=0.03),
    Knob("head_scale", 0.02, 1.5, "head", log=True, special=0.0, special_share=0.15, snap=0.05),
    Knob("g_hidden", 0.5, 2.0, "hidden", log=True, special=1.0, special_share=0.5, snap=0.05),
    Knob("g_depthwise", 0.05, 2.0, "depthwise", log=True, special=None, special_share=0.5),
    Knob("depth_slope", -1.0, 1.0, "conv", special_share=0.5, snap=0.05),
    Knob("shortcut_gain", 0.5, 2.0, "skip_conv", log=True, special=1.0, special_share=0.5, snap=0.05),
    Knob("bn_beta", -0.2, 0.3, "conv", special_share=0.5, snap=0.02),
    Knob("identity_share", 0.05, 0.95, "conv"),
    Knob("gamma_rise", 0.0, 0.5, "branch", special_share=0.5, snap=0.02),  # the newest last: others keep their place
)
_EVERYTHING: frozenset[Role] = frozenset(knob.role for knob in KNOBS)
_CHOICES: dict[str, tuple[str | bool, ...]] = {
    "structure": ("normal", "orthogonal", "dirac_mix"),
    "filter_norm": (False, True),
}

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
    residual = architectures is not None and all("branch" in known.get(arch, ()) for arch in architectures)
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

    space: dict[str, BaseDistribution] = {name: CategoricalDistribution(choices) for name, choices in _CHOICES.items()}
    for knob in _active(architectures, known):
        space[knob.name] = FloatDistribution(knob.sampled_low, knob.high, log=knob.log)
    return space


def suggest(trial: optuna.Trial, architectures: Iterable[str] | None = None, known: Roles = ROLES) -> Parameters:
    """The point that a trial proposes, over the same space as `distributions`."""
    sampled: dict[str, Any] = {name: trial.suggest_categorical(name, choices) for name, choices in _CHOICES.items()}
    for knob in _active(architectures, known):
        sampled[knob.name] = trial.suggest_float(knob.name, knob.sampled_low, knob.high, log=knob.log)
    return decode(sampled)


def decode(sampled: Mapping[str, Any]) -> Parameters:
    """The point for the parameters of a trial (`trial.params`); numbers that are absent stay neutral."""
    knobs = {knob.name: knob for knob in KNOBS}
    values: dict[str, Any] = {
        name: knobs[name].value(value) if name in knobs else value for name, value in sampled.items()
    }
    if values.get("structure") != "dirac_mix":
        values.pop("identity_share", None)  # it acts on nothing, and equal strategies must compare equal
    return Parameters(**values)


def _active(architectures: Iterable[str] | None, known: Roles) -> list[Knob]:
    every = (
        _EVERYTHING if architectures is None else {r for arch in architectures for r in known.get(arch, _EVERYTHING)}
    )
    return [knob for knob in KNOBS if knob.role in every]


def is_foreign(architectures: Iterable[str] | None) -> bool:
    """Whether any of these networks is not one of this project's."""
    return architectures is not None and not ROLES.keys() >= set(architectures)


def render(parameters: Parameters, architectures: Iterable[str] | None = None) -> str:
    """The point as region code: Python that ends in a newline and contains only the ideas that the point uses.

    Its numbers have names and `# scale:` comments, so `agent.spaces.literals` or a language model can vary them.
    For `architectures` with a network that is not this project's, the code reads all roles from the module graph, and
    every number is relative to the weights that the network's constructors drew. The neutral point changes nothing.
    """
    if is_foreign(architectures):
        return _render_foreign(parameters)
    description = describe(parameters)
    changes_gamma = parameters.gamma_last != 1 or parameters.gamma_rise != 0
    changes_branch_end = parameters.branch_last_alpha != 0 or changes_gamma or parameters.bn_beta != 0
    neutral = dataclasses.replace(
        Parameters(), structure=parameters.structure, identity_share=parameters.identity_share
    )
    factors = ["conv_gain"] * (parameters.g_conv != 1)
    factors += ["math.exp(depth_slope * (index / len(convs) - 0.5))"] * (parameters.depth_slope != 0)
    return (
        environment()
        .get_template("strategy.py.j2")
        .render(
            p=parameters,
            numbers=_numbers(parameters),
            summary=textwrap.wrap(description[0].upper() + description[1:] + ".", 112),
            details=_details(parameters),
            conv_factor=" * ".join(factors),
            changes_gamma=changes_gamma,
            changes_branch_end=changes_branch_end,
            uses_branches=changes_branch_end or parameters.shortcut_gain != 1,
            rescales=parameters != neutral,
        )
    )


def _render_foreign(parameters: Parameters) -> str:
    import inspect
    import re

    from benchmark import roles

    neutral = Parameters()
    changes_gamma = parameters.gamma_last != 1 or parameters.gamma_rise != 0
    by_role = ("shortcut_gain", "branch_last_alpha", "gamma_last", "gamma_rise", "bn_beta", "g_hidden", "head_scale")
    uses_roles = any(getattr(parameters, name) != getattr(neutral, name) for name in by_role)
    if parameters == neutral:
        return _FOREIGN_NEUTRAL
    functions = (roles.is_norm, roles.is_layer, roles.network_roles) if uses_roles else (roles.is_layer,)
    source = "\n\n".join(inspect.getsource(function) for function in functions)
    description = describe(parameters, base="as built")
    factors = ["conv_gain"] * (parameters.g_conv != 1)
    factors += ["math.exp(depth_slope * (index / len(convs) - 0.5))"] * (parameters.depth_slope != 0)
    return (
        environment()
        .get_template("strategy_any.j2")
        .render(
            p=parameters,
            source=re.sub(r"  # (type: ignore|noqa: BLE001)[^\n]*", "", source),
            numbers=_numbers(parameters),
            summary=textwrap.wrap(description[0].upper() + description[1:] + ".", 112),
            details=[_FOREIGN_BASE, *_details(parameters)[1:]],
            conv_factor=" * ".join(factors),
            changes_gamma=changes_gamma,
            uses_roles=uses_roles,
        )
    )


_FOREIGN_BASE = "Base: the weights that the network's own constructors drew. Every number is relative to them."
_FOREIGN_NEUTRAL = '''def initialize_weights(model, config):
    """As built: the weights that the network's own constructors drew."""
'''


def roles_of(model: nn.Module) -> frozenset[Role]:
    """The roles that a network has, for networks that are not in `ROLES`."""
    from torch import nn

    from benchmark.roles import is_layer, network_roles

    layers = [module for module in model.modules() if is_layer(module)]
    convs = [layer for layer in layers if isinstance(layer, nn.modules.conv._ConvNd)]
    found = network_roles(model)
    has: dict[Role, bool] = {
        "conv": bool(convs),
        "branch": bool(found["branches"]),
        "skip_conv": bool(found["skips"]),
        "depthwise": any(conv.groups == conv.in_channels > 1 for conv in convs),
        "hidden": any(isinstance(layer, nn.Linear) and layer is not found["head"] for layer in layers),
        "head": found["head"] is not None and bool(found["head"].weight.any()),
    }
    return frozenset(role for role, present in has.items() if present)


def describe(parameters: Parameters, *, base: str = "kaiming normal") -> str:
    """Describe the point in one line, such as "kaiming normal, branch ends × L^-0.5, last γ 0, head × 0.1".

    `base` is what the normal structure is called.
    """
    parts = {
        "filter_norm": "filters of equal norm",
        "g_conv": "convolutions × {}",
        "depth_slope": "× exp({}·(l/L − ½)) along depth",
        "g_depthwise": "depthwise gain {}",
        "shortcut_gain": "convolutions on skips × {}",
        "branch_last_alpha": "branch ends × L^-{}",
        "gamma_last": "last γ {}",
        "gamma_rise": "last γ rising by {}·√((i + 1)/L)",
        "bn_beta": "norm biases {}",
        "g_hidden": "hidden Linear × {}",
        "head_scale": "head × {}",
    }
    starts = {"normal": base, "orthogonal": "orthogonal"}
    start = starts.get(parameters.structure, f"{base} mixed with {parameters.identity_share:.3g} identity")
    neutral = Parameters()
    changed = [name for name in parts if getattr(parameters, name) != getattr(neutral, name)]
    return ", ".join([start, *(parts[name].format(f"{getattr(parameters, name):.3g}") for name in changed)])


# Name in the code, and the range that `agent.spaces.literals` reads back. A log range cannot contain zero.
_NAMES = {
    "g_conv": ("conv_gain", "0.35..2.83 log"),
    "depth_slope": ("depth_slope", "-1..1 linear"),
    "g_depthwise": ("depthwise_gain", "0.05..2 log"),
    "shortcut_gain": ("skip_gain", "0.5..2 log"),
    "branch_last_alpha": ("branch_exponent", "0..1 linear"),
    "gamma_last": ("last_gamma", "0..1 linear"),
    "gamma_rise": ("gamma_rise", "0..0.5 linear"),
    "bn_beta": ("norm_beta", "-0.2..0.3 linear"),
    "g_hidden": ("hidden_gain", "0.5..2 log"),
    "head_scale": ("head_scale", "0.02..1.5 log"),
}

_SOURCES = {
    "orthogonal": "Orthogonal filters: Saxe et al. 2013, gain √2 for ReLU.",
    "dirac_mix": "The identity share: after Zagoruyko & Komodakis 2017, DiracNets, section 3.",
    "branch_last_alpha": "L^-α at the end of each of L branches: after Zhang et al. 2019, Fixup, section 3.",
    "gamma_last": "A small last γ starts blocks near their skip: Goyal et al. 2017, section 5.1.",
    "head_scale": "A small head makes the first predictions nearly uniform: Zhang et al. 2019, Fixup, rule 1.",
}


def _numbers(parameters: Parameters) -> list[str]:
    """The assignments at the top of the function."""
    lines = []
    if parameters.structure == "dirac_mix":
        lines.append(f"identity_share = {readable(parameters.identity_share)}  # scale: 0.05..0.95 linear")
    neutral = Parameters()
    for name, (variable, scale) in _NAMES.items():
        value = getattr(parameters, name)
        if value != getattr(neutral, name):
            law = "0..1.5 linear" if name == "head_scale" and value == 0 else scale
            lines.append(f"{variable} = {readable(value)}  # scale: {law}")
    return lines


def _details(parameters: Parameters) -> list[str]:
    """Lines of the docstring: the base, and the source of each idea that is used."""
    neutral = Parameters()
    lines = ["Base: He et al. 2015 (fan_out for convolutions, fan_in for Linear layers); norms (1, 0), biases 0."]
    for name, source in _SOURCES.items():
        if parameters.structure == name or (
            hasattr(neutral, name) and getattr(parameters, name) != getattr(neutral, name)
        ):
            lines.append(source)
    return lines
