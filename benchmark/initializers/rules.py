"""What an entry of an `init_cfg` can be: each rule with its arguments and their defaults.

Names and defaults of the first eight are those of MMEngine 0.10.7, and so is the sentence with which a rule appears in
the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from benchmark.initializers import modules
from benchmark.initializers.branches import residual_branches
from benchmark.initializers.errors import InitConfigError
from benchmark.initializers.registry import LayerRule, MatchingRule, Rule, register

Distribution = Literal["normal", "uniform"]
FanMode = Literal["fan_in", "fan_out"]


@register("Constant")
@dataclass(frozen=True, kw_only=True)
class ConstantInit(LayerRule):
    """Weight = val, bias = bias."""

    val: float
    function = modules.constant_init


@register("Xavier")
@dataclass(frozen=True, kw_only=True)
class XavierInit(LayerRule):
    """Glorot & Bengio 2010: variance gain² · 2 / (fan_in + fan_out)."""

    gain: float = 1
    distribution: Distribution = "normal"
    function = modules.xavier_init
    min_dims = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gain < 0:
            raise InitConfigError(f"gain must not be negative, it is {self.gain}")


@register("Normal")
@dataclass(frozen=True, kw_only=True)
class NormalInit(LayerRule):
    """N(mean, std²)."""

    mean: float = 0
    std: float = 1
    function = modules.normal_init

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.std < 0:
            raise InitConfigError(f"std must not be negative, it is {self.std}")


@register("TruncNormal")
@dataclass(frozen=True, kw_only=True)
class TruncNormalInit(LayerRule):
    """N(mean, std²) restricted to [a, b], both absolute."""

    a: float = -2
    b: float = 2
    mean: float = 0
    std: float = 1
    function = modules.trunc_normal_init

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.std <= 0:
            raise InitConfigError(f"std must be positive, it is {self.std}")
        _check_bounds(self.a, self.b)


@register("Uniform")
@dataclass(frozen=True, kw_only=True)
class UniformInit(LayerRule):
    """U(a, b)."""

    a: float = 0
    b: float = 1
    function = modules.uniform_init

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_bounds(self.a, self.b)


@register("Kaiming")
@dataclass(frozen=True, kw_only=True)
class KaimingInit(LayerRule):
    """He et al. 2015: variance gain² / fan. `groups_correct` is ours: see `modules.kaiming_init`."""

    a: float = 0
    mode: FanMode = "fan_out"
    nonlinearity: str = "relu"
    distribution: Distribution = "normal"
    groups_correct: bool = False
    function = modules.kaiming_init
    min_dims = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            nn.init.calculate_gain(self.nonlinearity, self.a)  # type: ignore[arg-type]
        except ValueError as error:
            raise InitConfigError(f"nonlinearity: {error}") from error

    def arguments(self) -> dict[str, Any]:
        """Leaves out `groups_correct` where it is off, so that the log reads as MMEngine's."""
        arguments = super().arguments()
        if not self.groups_correct:
            del arguments["groups_correct"]
        return arguments

    def describe(self) -> str:
        """With the stray space that MMEngine's sentence has before one of its equals signs."""
        return super().describe().replace("distribution=", "distribution =")


@register("Caffe2Xavier")
@dataclass(frozen=True, kw_only=True)
class Caffe2XavierInit(LayerRule):
    """Caffe2's XavierFill, i.e. Kaiming uniform with a = 1 and fan_in."""

    function = modules.caffe2_xavier_init
    min_dims = 2

    def describe(self) -> str:
        """MMEngine spells out the Kaiming rule that it stands for."""
        spelt_out = KaimingInit(
            a=1, mode="fan_in", nonlinearity="leaky_relu", distribution="uniform", bias=self.arguments()["bias"]
        )
        return spelt_out.describe().replace("KaimingInit", "Caffe2XavierInit")


@register("Pretrained")
@dataclass(frozen=True, kw_only=True)
class PretrainedInit(Rule):
    """Load a checkpoint, after all other rules: see `pretrained.load_pretrained`. It takes no `layer`."""

    checkpoint: str
    prefix: str | None = None
    map_location: str = "cpu"

    def describe(self) -> str:
        """As MMEngine logs it."""
        return f"PretrainedInit: load from {self.checkpoint}"


# Beyond MMEngine.


@register("Orthogonal")
@dataclass(frozen=True, kw_only=True)
class OrthogonalInit(LayerRule):
    """Saxe et al. 2013: orthonormal rows or columns, times gain."""

    gain: float = 1
    function = modules.orthogonal_init
    min_dims = 2


@register("DeltaOrthogonal")
@dataclass(frozen=True, kw_only=True)
class DeltaOrthogonalInit(LayerRule):
    """Xiao et al. 2018: an orthogonal matrix at the kernel's centre, times gain."""

    gain: float = 1
    function = modules.delta_orthogonal_init
    min_dims = 2


@register("Dirac")
@dataclass(frozen=True, kw_only=True)
class DiracInit(LayerRule):
    """Channels pass through unchanged."""

    function = modules.dirac_init
    min_dims = 2


@register("LecunNormal")
@dataclass(frozen=True, kw_only=True)
class LecunNormalInit(LayerRule):
    """N(0, 1 / fan_in)."""

    function = modules.lecun_normal_init
    min_dims = 2


@register("VarianceScaling")
@dataclass(frozen=True, kw_only=True)
class VarianceScalingInit(LayerRule):
    """Variance scale / fan, for fan_in, fan_out or their mean; groups are counted."""

    scale: float = 1
    mode: Literal["fan_in", "fan_out", "fan_avg"] = "fan_in"
    distribution: Literal["truncated_normal", "normal", "uniform"] = "truncated_normal"
    function = modules.variance_scaling_init
    min_dims = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale <= 0:
            raise InitConfigError(f"scale must be positive, it is {self.scale}")


@register("ZerO")
@dataclass(frozen=True, kw_only=True)
class ZerOInit(LayerRule):
    """Zhao et al. 2021: partial identities and Hadamard columns, no random numbers."""

    function = modules.zero_ones_init
    min_dims = 2


@register("Fixup")
@dataclass(frozen=True, kw_only=True)
class FixupInit(MatchingRule):
    """Zhang et al. 2019, on residual blocks that earlier rules have initialised. `layer` names the blocks' classes."""

    function = modules.fixup_init

    def check(self, targets: list[nn.Module]) -> list[str]:
        """What will be left alone and why. Raises InitConfigError where no branch can be silenced."""
        found = [(type(block).__name__, residual_branches(block)) for block in targets]
        if targets and not any(last is not None for _, branches in found for _, last in branches or []):
            raise InitConfigError(
                f"Fixup: {', '.join(sorted({name for name, _ in found}))}: no branch that ends in a norm or a weight "
                "layer is added to a skip there, as far as torch.fx can trace it; `layer` must name the residual blocks"
            )
        warnings = []
        for name, branches in found:
            if branches is None:
                warnings.append(f"Fixup: {name} cannot be traced by torch.fx: left alone, its branches are unknown")
            elif any(last is None for _, last in branches):
                warnings.append(
                    f"Fixup: {name} has something else than a norm or a layer before the addition: it is left alone"
                )
        return list(dict.fromkeys(warnings))

    def apply(self, targets: list[nn.Module]) -> list[torch.Tensor]:
        """Scale the blocks' branches; returns the tensors that were scaled or zeroed."""
        return modules.fixup_init(targets)


def _check_bounds(a: float, b: float) -> None:
    if a > b:
        raise InitConfigError(f"the lower bound a={a} lies above the upper bound b={b}")
