"""Priors for seed noise, and how measured runs update them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


class StatisticsError(ValueError):
    """The numbers cannot be compared. The message says which ones and what to do."""


LOOK_CORRELATION = 0.2
"""Assumed correlation of a look's rank with the true gain. It is below the measured value, because too high a
value harms more than too low a one (docs/statistics.md)."""


@dataclass(frozen=True)
class NoisePrior:
    """The prior for one task before its first run. Standard deviations are in accuracy points (percent).

    `sd` is the seed-to-seed SD, worth `df` degrees of freedom (a scaled-inverse-χ² prior for the variance).
    `effect_sd` is the SD of true gains between sensible initialisations (None: equal to `sd`). `effect_mean` is their
    mean, the gain expected of a candidate before its first test.
    `source` says where the numbers come from. Raises StatisticsError for a number that is not positive.
    """

    sd: float
    df: float
    effect_sd: float | None = None
    source: str = ""
    effect_mean: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("sd", self.sd), ("df", self.df), ("effect_sd", self.effect)):
            if not (math.isfinite(value) and value > 0):
                raise StatisticsError(f"NoisePrior.{name} must be a positive number, not {value}")

    @property
    def effect(self) -> float:
        """The SD of true gains in points."""
        return self.sd if self.effect_sd is None else self.effect_sd

    def after_look(self, score: float) -> NoisePrior:
        """Return the prior of a candidate whose look has this normal score: 0 is an average look, larger is better.

        If score and gain are jointly normal with correlation r, the gain has mean r·τ·score and SD τ·√(1 − r²), where
        τ is `effect_sd`.
        """
        r = LOOK_CORRELATION
        return dataclasses.replace(
            self, effect_mean=r * self.effect * score, effect_sd=self.effect * math.sqrt(1 - r**2)
        )

    def pooled(self, squares: float, df: int) -> tuple[float, float]:
        """Return variance (points²) and degrees of freedom, updated by `squares` with `df` degrees of freedom.

        `squares` is a sum of squared deviations. This is the conjugate update (Gelman et al. 2013, Bayesian Data
        Analysis, section 2.6) with one change: if the runs scatter more than the prior says, the prior's weight is
        reduced by the ratio of the two variances. Otherwise a prior SD that is too small would make the intervals too
        short. A prior SD that is too large only costs power.
        """
        weight = self.df
        if df and squares > df * self.sd**2:
            weight *= df * self.sd**2 / squares
        return (weight * self.sd**2 + squares) / (weight + df), weight + df


_SISTER = "seed SD over 60 methods on sister tasks with the same network"
_CALIBRATED = "pooled over three recipes with five seeds each: docs/calibration.md"
_TOURNAMENT = "from the trainings of the experiment in docs/comparing.md"
_BINOMIAL = "counting hits on 50 test pictures alone scatters by 5 points"
_UNKNOWN = NoisePrior(sd=2.0, df=3, source="nothing is known about this task: a weak and wide guess")

# df = 14 gives 93–97 % coverage at every n if the prior is right, about 90 % from n = 3 on if it is wrong by ×1.5.
# effect_sd on paper tasks is half the seed SD: the published gains scatter barely more than their own noise.
_PRIORS: dict[tuple[str, str], NoisePrior] = {
    ("paper", "resnet56-cifar100"): NoisePrior(0.45, 14, 0.225, _SISTER),
    ("paper", "vgg16bn-cifar100"): NoisePrior(0.50, 14, 0.25, _SISTER),
    ("paper", "mobilenetv2-fmnist"): NoisePrior(0.20, 14, 0.10, _SISTER),
    ("mini", "resnet20-openclipart100"): NoisePrior(1.75, 14, 3.0, _TOURNAMENT),
    ("mini", "mobilenetv2-fmnist_pocket"): NoisePrior(5.4, 11, 10.0, _TOURNAMENT),
    ("smoke", "resnet20-tiny"): NoisePrior(6.0, 5, 3.0, _BINOMIAL),
    ("smoke", "mobilenetv2-tiny"): NoisePrior(6.0, 5, 3.0, _BINOMIAL),
    ("pocket", "resnet56-openclipart100"): NoisePrior(1.35, 12, 4.0, _CALIBRATED),
    ("pocket", "vgg16bn-openclipart100"): NoisePrior(1.05, 8, 4.0, _CALIBRATED),
    ("pocket", "mobilenetv2-fmnist_pocket"): NoisePrior(2.2, 12, 2.0, _CALIBRATED),
}


def noise_prior(profile: str, task: str) -> NoisePrior:
    """Return the noise prior of a task in a profile. An unknown task gets a weak, wide prior that says so."""
    return _PRIORS.get((profile, task), _UNKNOWN)


def learn_noise(prior: NoisePrior, groups: Iterable[Mapping[int, float]]) -> NoisePrior:
    """Return the prior updated by runs of other initialisations on the same task, each a mapping seed → accuracy.

    Leave out the two sides to be compared, because `compare` counts them itself. Accuracies that are not finite and
    groups of one seed carry no information about the noise and are skipped.
    """
    squares, df, used = 0.0, 0, 0
    for group in groups:
        values = [value for value in group.values() if math.isfinite(value)]
        if len(values) > 1:
            mean = sum(values) / len(values)
            squares += sum((value - mean) ** 2 for value in values)
            df, used = df + len(values) - 1, used + 1
    if not used:
        return prior
    variance, total = prior.pooled(squares, df)
    source = f"{prior.source}; {used} groups of runs seen"
    return dataclasses.replace(prior, sd=math.sqrt(variance), df=total, effect_sd=prior.effect, source=source)
