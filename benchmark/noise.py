"""Priors for seed noise, and how measured runs update them.

A run records one `TaskNoise` per task: the prior, and the scatter that was measured on this machine before the run.
`TaskNoise.prior_for` says what one comparison uses.
"""

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
    `source` says where the numbers come from. With df = 0 nothing is known: the noise comes from the seeds at hand,
    true gains are taken to scatter as much, and `sd` is only a unit. Raises StatisticsError for a number that is not
    positive.
    """

    sd: float
    df: float
    effect_sd: float | None = None
    source: str = ""
    effect_mean: float = 0.0
    allowance: float = 1.0
    """The variance is computed as if the prior SD were this many times as large."""
    doubted: bool = False
    """The prior was not measured on this machine. If it is wrong, it is wrong for all tasks of a run alike."""
    settled: bool = False
    """The scatter of the runs to be compared may be in the prior already, so it can only raise the variance."""

    unit_without_prior: float | None = None
    """Set where all that is known is the scatter of other runs: the unit of gains, which must not depend on them."""

    def __post_init__(self) -> None:
        for name, value in (("sd", self.sd), ("effect_sd", self.effect), ("allowance", self.allowance)):
            if not (math.isfinite(value) and value > 0):
                raise StatisticsError(f"NoisePrior.{name} must be a positive number, not {value}")
        if not (math.isfinite(self.df) and self.df >= 0):
            raise StatisticsError(f"NoisePrior.df must be a positive number, or 0 for no prior, not {self.df}")

    @property
    def effect(self) -> float:
        """The SD of true gains in points."""
        return self.sd if self.effect_sd is None else self.effect_sd

    @property
    def effects_known(self) -> bool:
        """Whether `effect` says more than a unit does."""
        return self.df > 0 and self.unit_without_prior is None

    @property
    def unit(self) -> float:
        """What gains are divided by before a choice averages over tasks."""
        return self.sd if self.unit_without_prior is None else self.unit_without_prior

    @property
    def unit_known(self) -> bool:
        """Whether `unit` is a seed SD."""
        return self.df > 0 and self.unit == self.sd

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
        short. A prior SD that is too large only costs power. A `settled` prior never gains certainty here.
        The variance is infinite if nothing is known: no prior, and one seed a side or seeds that are all alike.
        """
        own, weight = (self.allowance * self.sd) ** 2, self.df
        if not weight and not squares:
            return math.inf, 0.0
        if df and squares > df * own:
            weight *= df * own / squares
        variance, total = (weight * own + squares) / (weight + df), weight + df
        return (max(variance, own), min(self.df, total)) if self.settled else (variance, total)

    def expected(self, df: int) -> tuple[float, float]:
        """Return what `pooled` gives for `df` degrees of freedom whose scatter is as large as `sd` says."""
        return self.pooled(df * self.sd**2, df)


_SISTER = "seed SD over 60 methods on sister tasks with the same network"
_CALIBRATED = "pooled over three recipes with five seeds each: docs/calibration.md"
_TOURNAMENT = "from the trainings of the experiment in docs/comparing.md"
_BINOMIAL = "counting hits on 50 test pictures alone scatters by 5 points"
NO_PRIOR = NoisePrior(sd=1.0, df=0, source="no noise is known for this task")
"""For a task whose noise only its own seeds can show."""
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
    ("pocket_small", "resnet20-openclipart100"): NoisePrior(1.6, 12, 3.0, _CALIBRATED),
    ("pocket_small", "vgg8bn-openclipart100"): NoisePrior(0.6, 8, 4.0, _CALIBRATED),
    ("pocket_small", "mobilenetv2-fmnist_pocket"): NoisePrior(5.0, 8, 5.0, _CALIBRATED),
}


# Where a prior was not measured on the machine, its SD may be 1.5 times too small. A prior SD × 1.25 with 4 degrees of
# freedom then keeps all promises, also for heavy-tailed noise and the best of 50, and widens the interval least among
# the pairs that do (docs/statistics.md, tests/benchmark/test_noise_simulation.py).
_ALLOWANCE = 1.25
_DOUBTED_DF = 4.0
_MOST_WRONG = 1.5
_MEASURED_DF = 8.0
"""The most degrees of freedom that a measurement counts for. With more, the best of 50 candidates with one seed would
be claimed too often where the noise has heavier tails than the normal one."""
_MOST = 1e12
"""Numbers in a record are smaller than this, so that nothing overflows."""


@dataclass(frozen=True)
class TaskNoise:
    """What a run knows of a task's seed noise before it starts. The log records it, so every reader computes the same.

    `sd`, `df` and `effect_sd` are those of the prior (df = 0: there is none). `squares` (points²) is the scatter of
    equal code over seeds that was measured on this machine: the sum of squared deviations within `groups` groups of
    runs, with `measured_df` degrees of freedom. Raises StatisticsError for numbers that no noise has.
    """

    sd: float
    df: float
    effect_sd: float | None = None
    source: str = ""
    squares: float = 0.0
    measured_df: int = 0
    groups: int = 0

    def __post_init__(self) -> None:
        for name, value in (("squares", self.squares), ("measured_df", self.measured_df), ("sd", self.sd)):
            if not 0 <= value < _MOST:
                raise StatisticsError(f"TaskNoise.{name} must lie in 0 … {_MOST:g}, not {value}")
        if not self.measured_df and self.squares:
            raise StatisticsError("TaskNoise.squares needs degrees of freedom")
        _ = self.base

    @classmethod
    def of(cls, prior: NoisePrior, squares: float = 0.0, df: int = 0, groups: int = 0) -> TaskNoise:
        """The noise of a task with this prior, and with the scatter that was measured here."""
        return cls(prior.sd, prior.df, prior.effect_sd, prior.source, squares, df, groups)

    @property
    def base(self) -> NoisePrior:
        """The prior with the allowance for another machine, precision or harness."""
        if not self.df:  # the SD is a unit then, the same whether a comparison relies on the measurement or not
            unit = math.sqrt(self.squares / self.measured_df) if self.squares else self.sd
            return NoisePrior(unit, 0, source=self.source, doubted=True)
        effect = self.sd if self.effect_sd is None else self.effect_sd
        return NoisePrior(self.sd, min(self.df, _DOUBTED_DF), effect, self.source, allowance=_ALLOWANCE, doubted=True)

    @property
    def measured(self) -> NoisePrior | None:
        """The prior after the measurement; None where nothing was measured.

        Prior and measurement may disagree. So its variance is not less than the measured one, and its degrees of
        freedom are fewer than their sum. Its SD is not less than the prior's divided by 1.5, because code that hardly
        trains scatters less than the code that a search is looking for.
        """
        if not self.measured_df or not self.squares:
            return None
        pooled, _ = self.base.pooled(self.squares, self.measured_df)
        variance = max(pooled, self.squares / self.measured_df, (self.sd / _MOST_WRONG) ** 2 if self.df else 0.0)
        df = min(_MEASURED_DF, _DOUBTED_DF + self.measured_df / 8)
        df = df if self.df else min(df, self.measured_df)
        sd, effect, unit = math.sqrt(variance), self.base.effect, None if self.df else self.base.unit
        return NoisePrior(sd, df, effect, self.source, settled=True, unit_without_prior=unit)

    def prior_for(self, others: Iterable[Mapping[int, float]], own_df: int) -> NoisePrior:
        """Return the prior for a comparison whose two sides have `own_df` degrees of freedom.

        `others` are the runs of other initialisations, as for `learn_noise`. The scatter comes either from the
        measurement or from the run itself, whichever has more degrees of freedom. It never comes from both, because the
        measurement may contain results that the run uses again.
        """
        learned, measured = learn_noise(self.base, others), self.measured
        return learned if measured is None or measured.df < learned.df + own_df else measured


def has_prior(profile: str, task: str) -> bool:
    """Whether the table has a prior for this task of the profile."""
    return (profile, task) in _PRIORS


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
    if not math.isfinite(variance):
        return prior
    source = f"{prior.source}; {used} groups of runs seen"
    return dataclasses.replace(
        prior,
        sd=math.sqrt(variance),
        df=total,
        effect_sd=prior.effect,
        source=source,
        allowance=1.0,
        unit_without_prior=None if prior.effects_known else prior.unit,
    )
