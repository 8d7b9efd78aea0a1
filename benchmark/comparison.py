"""The result of a comparison: its numbers, and the sentence that a user reads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from benchmark.task import ACCURACY, Metric

Resolved = Literal["improvement", "worse", "not resolved"]


def resolve(ci: tuple[float, float]) -> Resolved:
    """What an interval of a gain says: nothing is resolved while it holds zero."""
    if ci[0] > 0:
        return "improvement"
    return "worse" if ci[1] < 0 else "not resolved"


@dataclass(frozen=True)
class Comparison:
    """A candidate compared with the baseline on one task. Accuracies, gains and SDs are in points (percent).

    `ci` holds for all `n_candidates` at once, so it is valid for the best of them. `resolved` says on which side of it
    zero lies. `gain` is the observed difference, `shrunk_gain` the difference expected on fresh seeds.
    """

    n_baseline: int
    n_candidate: int
    baseline_mean: float
    candidate_mean: float
    gain: float
    ci: tuple[float, float]
    confidence: float
    n_candidates: int
    """How many candidates this one was picked from. 1 means no choice."""
    sd: float
    """The seed SD in points, pooled from the prior and the two sides."""
    df: float
    standard_error: float
    paired: bool
    correlation: float | None
    """Pearson's r over shared seeds; None for fewer than three, or if a side does not vary."""
    shrinkage: float
    """The weight of the gain in the shrunk gain, 0 to 1. The rest is the weight of the prior's expectation."""
    shrunk_gain: float
    p_better: float
    """Posterior probability that the true gain is positive."""
    smallest_visible_effect: float
    """The true gain that such a comparison resolves with a probability of 80 %."""
    resolved: Resolved
    unit: float
    """See `NoisePrior.unit`."""
    doubted: bool = False
    """The prior was not measured on this machine."""
    metric: Metric = ACCURACY
    """The unit of all numbers. Gains are positive when better, whatever its direction."""
    unit_known: bool = True
    """False without a prior: then `unit` is not a seed SD."""

    @property
    def seed_sd(self) -> float:
        """The known SD of one seed, else the scatter within the two sides; infinite where they show none."""
        return self.unit if self.unit_known else self.sd

    @property
    def known_ci(self) -> list[float] | None:
        """The interval for JSON; None where no noise is known, since it is then infinite."""
        return list(self.ci) if math.isfinite(self.standard_error) else None


@dataclass(frozen=True)
class Overall:
    """A candidate compared with the baseline over several tasks: the mean of the gains, in points.

    If the candidate failed on a task, `failed` names the task, the numbers are NaN and `score` is minus infinity.
    """

    tasks: tuple[str, ...]
    failed: tuple[str, ...]
    gain: float
    ci: tuple[float, float]
    confidence: float
    n_candidates: int
    df: float
    standard_error: float
    shrunk_gain: float
    p_better: float
    smallest_visible_effect: float
    resolved: Resolved
    score: float
    """Mean over tasks of the shrunk gain in units of the prior's seed SD. The best score is submitted
    (`agent/analysis/choosing.py`)."""
    metric: Metric = ACCURACY
    """The unit of the gains; `SEED_SD` where the tasks' metrics differ. Then NaN stands for what is not known."""

    @property
    def known_ci(self) -> list[float] | None:
        """The interval for JSON; None where it is not known."""
        return list(self.ci) if math.isfinite(self.standard_error) else None


def in_words(result: Comparison | Overall) -> str:
    """Return one sentence, such as "+0.8 points (95 % interval −0.6 … +2.2, 3 seeds): not resolved; the smallest
    detectable effect is about 1.5"."""
    picked = f", best of {result.n_candidates}" if result.n_candidates > 1 else ""
    if isinstance(result, Overall):
        if result.failed:
            return f"failed on {', '.join(result.failed)}: no overall gain"
        tasks = len(result.tasks)
        evidence = f"mean of {tasks} task{'s' if tasks > 1 else ''}"
    else:
        n, m = result.n_candidate, result.n_baseline
        evidence = f"{n} seed{'s' if n > 1 else ''}" if n == m else f"{n} against {m} seeds"
        evidence += ", paired" if result.paired else ""
    if not math.isfinite(result.gain):
        return f"no gain over all ({evidence}{picked}): their metrics differ, and the noise of one is not known"
    if not math.isfinite(result.standard_error):
        gain = f"{signed(result.gain, 2)} {result.metric.points} ({evidence}{picked})"
        return f"{gain}: not resolved, since no noise is known and these seeds show none"
    places = places_for(result)
    low, high = (signed(bound, places) for bound in result.ci)
    verdict = {
        "improvement": "a resolved improvement",
        "worse": "resolved, and worse than the baseline",
        "not resolved": "not resolved; the smallest detectable effect is about "
        f"{result.smallest_visible_effect:.{places}f}",
    }[result.resolved]
    interval = f"{result.confidence * 100:g} % interval {low} … {high}"
    return f"{signed(result.gain, places)} {result.metric.points} ({interval}, {evidence}{picked}): {verdict}"


def places_for(result: Comparison | Overall) -> int:
    """How many digits after the point a gain has: one or two of points, two that count of another metric."""
    effect = result.smallest_visible_effect
    if result.metric.is_accuracy:
        return 1 if effect >= 0.5 else 2
    sizes = [size for size in (effect, abs(result.gain)) if math.isfinite(size) and size > 0]
    return min(8, max(1, 1 - math.floor(math.log10(min(sizes, default=1.0)))))


def as_text(value: float, result: Comparison | Overall) -> str:
    """A gain, or an end of its interval, with its sign and as many digits as count; without its unit."""
    return signed(value, max(2, places_for(result)))


def as_gain(value: float, metric: Metric) -> str:
    """A gain alone, of which no interval is known: two digits after the point, or two that count for another metric."""
    size = abs(value) if math.isfinite(value) and value else 1.0
    return signed(value, 2 if metric.is_accuracy else min(8, max(2, 1 - math.floor(math.log10(size)))))


def signed(value: float, places: int = 1) -> str:
    """Format a number with its sign: "+1.2", "−1.2" with U+2212, "0.0" for exactly zero, "–" if it is not finite.

    A number that only rounds to zero keeps its sign, so that the reader sees on which side of zero it lies.
    """
    if not math.isfinite(value):
        return "–"
    return f"{'−' if value < 0 else '+' if value > 0 else ''}{abs(value):.{places}f}"
