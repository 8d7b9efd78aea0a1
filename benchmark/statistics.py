"""What a difference in accuracy means: intervals, shrunk gains and honest words, from one seed a side to ten.

Seed noise is about as large as the effect of a good initialisation, and a search reports the best of many. So every
difference here leans on a prior for the noise, is shrunk, and is corrected for the number of candidates it was picked
from. Formulae, sources and the simulations behind the constants: docs/statistics.md. All functions are pure.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special  # a third of a second; scipy.stats would be one and a half

from benchmark.correlation import correlate, correlation_of, pairing_pays, squares
from benchmark.dunnett import critical_value, visible_effect
from benchmark.noise import NoisePrior, StatisticsError, learn_noise, noise_prior

__all__ = [
    "Comparison",
    "DuplicateSeedError",
    "MissingSeedsError",
    "NoisePrior",
    "NothingToSelectError",
    "Overall",
    "StatisticsError",
    "UnusableAccuracyError",
    "by_seed",
    "combine",
    "compare",
    "correlate",
    "in_noise_units",
    "in_words",
    "learn_noise",
    "noise_prior",
    "select",
    "smallest_visible_effect",
]

FloatArray = NDArray[np.float64]

Resolved = Literal["improvement", "worse", "not resolved"]

_MAX_CORRELATION = 0.95  # a paired variance never falls below a tenth of the unpaired one


class MissingSeedsError(StatisticsError):
    """One side has no seed at all: run it first."""


class UnusableAccuracyError(StatisticsError):
    """An accuracy is missing, NaN or infinite: treat the candidate as failed on this task (`None` in `combine`)."""


class DuplicateSeedError(StatisticsError):
    """One seed has two different accuracies: the results were mixed up."""


class NothingToSelectError(StatisticsError):
    """No candidate ran on every task."""


@dataclass(frozen=True)
class Comparison:
    """A candidate against the baseline on one task. Accuracies, gains and SDs in points (percent).

    `ci` holds for the whole family of `n_candidates` at once, so it may be read for the best of them; `resolved` says
    on which side of it zero lies. `gain` is what was seen, `shrunk_gain` what to expect on fresh seeds.
    """

    n_baseline: int
    n_candidate: int
    baseline_mean: float
    candidate_mean: float
    gain: float
    ci: tuple[float, float]
    confidence: float
    n_candidates: int
    """How many candidates this one was picked from; 1: none was picked."""
    sd: float
    """The seed SD used, points: the prior's and that within the two sides, pooled."""
    df: float
    standard_error: float
    paired: bool
    correlation: float | None
    """Pearson's r over shared seeds; None with fewer than three or without any spread."""
    shrinkage: float
    """The weight of the gain, between 0 and 1, in the shrunk gain; the rest is what was expected before the test."""
    shrunk_gain: float
    p_better: float
    """Posterior probability that the true gain is positive."""
    smallest_visible_effect: float
    """The true gain that a comparison like this one resolves with a probability of 80 %."""
    resolved: Resolved
    unit: float
    """The prior's seed SD, points: gains are divided by it before tasks are averaged for a choice."""


@dataclass(frozen=True)
class Overall:
    """A candidate against the baseline over several tasks: the plain mean of the gains, in points.

    When the candidate failed on a task, `failed` names it, the numbers are NaN and `score` is minus infinity.
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
    """Mean over tasks of the shrunk gain in units of the prior's seed SD: what a submission is chosen by."""


def by_seed(results: Iterable[tuple[int, float]]) -> dict[int, float]:
    """Pairs (seed, accuracy) as a mapping; the same result twice is dropped.

    Raises DuplicateSeedError when a seed comes with two different accuracies.
    """
    accuracies: dict[int, float] = {}
    for seed, accuracy in results:
        if seed in accuracies and not (accuracies[seed] == accuracy or accuracies[seed] != accuracies[seed]):
            raise DuplicateSeedError(
                f"seed {seed} has two accuracies, {accuracies[seed]} and {accuracy}: one seed, code and task give one "
                "result; compare runs of one code only, with distinct seeds"
            )
        accuracies[seed] = accuracy
    return accuracies


def compare(
    baseline: Mapping[int, float],
    candidate: Mapping[int, float],
    prior: NoisePrior,
    *,
    n_candidates: int = 1,
    confidence: float = 0.95,
) -> Comparison:
    """Compare two sides, each a mapping seed → accuracy (percent), right from one seed a side upwards.

    The variance within the sides is pooled with the prior's; the interval is Student's t with the degrees of freedom
    of both, or Dunnett's (1955, many-to-one comparisons) when the candidate is the best of `n_candidates`.
    Differences are paired only when both sides have the same seeds, at least five, and their correlation is clearly
    positive (one-sided 1 %, divided by `n_candidates`), which costs at most one point of coverage.

    Raises MissingSeedsError, UnusableAccuracyError, or StatisticsError for a bad `n_candidates` or `confidence`.
    """
    _check_family(n_candidates, confidence)
    ours, theirs = _values(candidate, "the candidate"), _values(baseline, "the baseline")
    n, m = ours.size, theirs.size
    gain = float(ours.mean() - theirs.mean())

    variance, df = prior.pooled(squares(ours) + squares(theirs), n + m - 2)
    standard_error = math.sqrt(variance * (1 / n + 1 / m))
    correlation = correlation_of(baseline, candidate)
    paired = set(baseline) == set(candidate) and pairing_pays(correlation, n, (1 - confidence) / 5 / n_candidates)
    if paired:
        differences = np.array([candidate[seed] - baseline[seed] for seed in baseline])
        of_differences = max(squares(differences) / (n - 1), 2 * variance * (1 - _MAX_CORRELATION))
        standard_error, df = math.sqrt(of_differences / n), n - 1

    critical = critical_value(n_candidates, df, n / (n + m), confidence)
    ci = (gain - critical * standard_error, gain + critical * standard_error)
    shrinkage = prior.effect**2 / (prior.effect**2 + standard_error**2)
    shrunk_gain = prior.effect_mean + shrinkage * (gain - prior.effect_mean)
    return Comparison(
        n_baseline=m,
        n_candidate=n,
        baseline_mean=float(theirs.mean()),
        candidate_mean=float(ours.mean()),
        gain=gain,
        ci=ci,
        confidence=confidence,
        n_candidates=n_candidates,
        sd=math.sqrt(variance),
        df=df,
        standard_error=standard_error,
        paired=paired,
        correlation=correlation,
        shrinkage=shrinkage,
        shrunk_gain=shrunk_gain,
        p_better=float(special.stdtr(df, shrunk_gain / (math.sqrt(shrinkage) * standard_error))),
        smallest_visible_effect=standard_error * visible_effect(critical, df),
        resolved=_verdict(ci),
        unit=prior.sd,
    )


def combine(comparisons: Mapping[str, Comparison | None]) -> Overall:
    """One verdict over the tasks (name → comparison, None where the candidate failed).

    The gain is the plain mean in points, because that is what a reader can check; its interval assumes independent
    noise between tasks (Welch–Satterthwaite degrees of freedom). The `score` is the mean of shrunk gains in units of
    each task's prior SD, so that a task with loud noise or a wide scale does not decide alone.
    Raises StatisticsError when there is no task.
    """
    if not comparisons:
        raise StatisticsError("no task to combine: give at least one comparison")
    tasks, failed = tuple(comparisons), tuple(task for task, one in comparisons.items() if one is None)
    ran = [one for one in comparisons.values() if one is not None]
    n_candidates = max((one.n_candidates for one in ran), default=1)
    confidence = max((one.confidence for one in ran), default=0.95)
    if failed:
        nan = math.nan
        return Overall(
            tasks, failed, nan, (nan, nan), confidence, n_candidates, nan, nan, nan, nan, nan, "not resolved", -math.inf
        )
    count = len(ran)
    gain = sum(one.gain for one in ran) / count
    variances = [one.standard_error**2 for one in ran]
    standard_error, df = _of_mean(variances, [one.df for one in ran])
    rho = min(one.n_candidate / (one.n_candidate + one.n_baseline) for one in ran)
    critical = critical_value(n_candidates, df, rho, confidence)
    ci = (gain - critical * standard_error, gain + critical * standard_error)
    shrunk_gain = sum(one.shrunk_gain for one in ran) / count
    posterior_sd = math.sqrt(sum(one.shrinkage * v for v, one in zip(variances, ran, strict=True))) / count
    return Overall(
        tasks=tasks,
        failed=(),
        gain=gain,
        ci=ci,
        confidence=confidence,
        n_candidates=n_candidates,
        df=df,
        standard_error=standard_error,
        shrunk_gain=shrunk_gain,
        p_better=float(special.stdtr(df, shrunk_gain / posterior_sd)),
        smallest_visible_effect=standard_error * visible_effect(critical, df),
        resolved=_verdict(ci),
        score=sum(one.shrunk_gain / one.unit for one in ran) / count,
    )


def in_noise_units(comparisons: Mapping[str, Comparison | None]) -> Overall:
    """As `combine`, with each task's gain divided by its prior's seed SD first: tasks of any scale can be put together.

    Gain, interval, errors and smallest visible effect are then in units of seed noise, not in points.
    """
    return combine(
        {
            task: one
            and dataclasses.replace(
                one,
                gain=one.gain / one.unit,
                standard_error=one.standard_error / one.unit,
                shrunk_gain=one.shrunk_gain / one.unit,
                unit=1.0,
            )
            for task, one in comparisons.items()
        }
    )


def select(candidates: Sequence[Overall]) -> int:
    """The index of the candidate with the best shrunk score; of equals the first.

    The prior's shrinkage already removes the optimism of picking a maximum. Raises NothingToSelectError when all
    failed.
    """
    best = max(range(len(candidates)), key=lambda index: candidates[index].score, default=None)
    if best is None or candidates[best].score == -math.inf:
        raise NothingToSelectError(f"none of the {len(candidates)} candidates ran on every task: nothing to submit")
    return best


def smallest_visible_effect(
    prior: NoisePrior | Sequence[NoisePrior],
    n_baseline: int,
    n_candidate: int,
    *,
    n_candidates: int = 1,
    confidence: float = 0.95,
) -> float:
    """For planning: the true gain (points) that would be resolved with 80 % probability, if the prior's SD is right.

    With one prior for each of several tasks, the true mean gain over them, as `combine` will judge it.
    Raises MissingSeedsError when a side has no seed, StatisticsError when there is no task.
    """
    priors = [prior] if isinstance(prior, NoisePrior) else prior
    if not priors:
        raise StatisticsError("no task to plan for: give at least one prior")
    _check_family(n_candidates, confidence)
    if min(n_baseline, n_candidate) < 1:
        raise MissingSeedsError(f"seeds a side must be at least 1, not {n_baseline} and {n_candidate}")
    variances = [one.sd**2 * (1 / n_baseline + 1 / n_candidate) for one in priors]
    standard_error, df = _of_mean(variances, [one.df + n_baseline + n_candidate - 2 for one in priors])
    critical = critical_value(n_candidates, df, n_candidate / (n_baseline + n_candidate), confidence)
    return standard_error * visible_effect(critical, df)


def in_words(result: Comparison | Overall) -> str:
    """One plain sentence, such as "+0.8 points (95 % interval −0.6 … +2.2, 3 seeds): not resolved; the smallest effect
    visible here is about 1.5"."""
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
    places = 1 if result.smallest_visible_effect >= 0.5 else 2
    low, high = (_signed(bound, places) for bound in result.ci)
    verdict = {
        "improvement": "a resolved improvement",
        "worse": "resolved, and worse than the baseline",
        "not resolved": "not resolved; the smallest effect visible here is about "
        f"{result.smallest_visible_effect:.{places}f}",
    }[result.resolved]
    interval = f"{result.confidence * 100:g} % interval {low} … {high}"
    return f"{_signed(result.gain, places)} points ({interval}, {evidence}{picked}): {verdict}"


def _of_mean(variances: Sequence[float], dfs: Sequence[float]) -> tuple[float, float]:
    """Standard error of the mean of independent gains, and its degrees of freedom (Welch–Satterthwaite)."""
    total = sum(variances)
    df = total**2 / sum(variance**2 / df for variance, df in zip(variances, dfs, strict=True))
    return math.sqrt(total) / len(variances), df


def _values(side: Mapping[int, float], name: str) -> FloatArray:
    """The accuracies of one side as an array; refuses an empty side and anything that is not a finite number."""
    if not side:
        raise MissingSeedsError(f"{name} has no seed: run at least one before comparing")
    # None is not in the type, but it is what a failed run looks like in a JSON file.
    unusable = sorted(seed for seed, value in side.items() if value is None or not math.isfinite(value))
    if unusable:
        raise UnusableAccuracyError(
            f"{name} has no usable accuracy for seed {', '.join(map(str, unusable))}: the run failed or diverged; "
            "count the whole task as failed (None in combine), since leaving out bad seeds would flatter it"
        )
    return np.array([side[seed] for seed in side], dtype=np.float64)


def _verdict(ci: tuple[float, float]) -> Resolved:
    if ci[0] > 0:
        return "improvement"
    return "worse" if ci[1] < 0 else "not resolved"


def _signed(value: float, places: int) -> str:
    """With a true minus sign; a bound that only rounds to zero keeps its side."""
    return f"{'−' if value < 0 else '+' if value > 0 else ''}{abs(value):.{places}f}"


def _check_family(n_candidates: int, confidence: float) -> None:
    if n_candidates < 1:
        raise StatisticsError(f"n_candidates must be at least 1 (the candidate itself), not {n_candidates}")
    if not 0 < confidence < 1:
        raise StatisticsError(f"confidence must lie between 0 and 1, such as 0.95, not {confidence}")
