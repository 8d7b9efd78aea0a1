"""Judge a difference in accuracy from one to ten seeds per side: intervals, shrunk gains, a plain sentence.

Seed noise is about as large as the effect of a good initialisation, and a search reports the best of many candidates.
So each comparison uses a prior for the noise, shrinks the gain, and corrects for the number of candidates.
docs/statistics.md has formulae, sources and the simulations behind the constants. All functions are pure.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special  # a third of a second; scipy.stats would be one and a half

from benchmark.comparison import Comparison, Overall, Resolved, in_words, resolve
from benchmark.correlation import correlate, correlation_of, pairing_pays, squares
from benchmark.dunnett import critical_value, visible_effect
from benchmark.noise import NoisePrior, StatisticsError, learn_noise, noise_prior
from benchmark.task import SEED_SD, common_metric

__all__ = [
    "Comparison",
    "DuplicateSeedError",
    "MissingSeedsError",
    "NoisePrior",
    "Overall",
    "Resolved",
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
    "smallest_visible_effect",
]

FloatArray = NDArray[np.float64]

_MAX_CORRELATION = 0.95  # a paired variance never falls below a tenth of the unpaired one


class MissingSeedsError(StatisticsError):
    """One side has no seed. Run it first."""


class UnusableAccuracyError(StatisticsError):
    """An accuracy is missing, NaN or infinite. Treat the candidate as failed on this task (`None` in `combine`)."""


class DuplicateSeedError(StatisticsError):
    """One seed has two different accuracies, so results of different runs were mixed."""


def by_seed(results: Iterable[tuple[int, float]]) -> dict[int, float]:
    """Turn pairs (seed, accuracy) into a mapping. Equal pairs count once.

    Raises DuplicateSeedError if a seed has two different accuracies.
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
    """Compare two sides, each a mapping seed → accuracy (percent). One seed per side is enough.

    The variance within the sides is pooled with the prior's. The interval is Student's t with the degrees of freedom
    of both, or Dunnett's (1955, many-to-one comparisons) if the candidate is the best of `n_candidates`.
    Differences are paired only if both sides have the same seeds, at least five, and their correlation is significantly
    positive (one-sided 1 %, divided by `n_candidates`). This costs at most one point of coverage.
    Without a prior (df = 0) the noise comes from the two sides. If they show none, nothing is resolved.

    Raises MissingSeedsError, UnusableAccuracyError, or StatisticsError for a bad `n_candidates` or `confidence`.
    """
    _check_family(n_candidates, confidence)
    ours, theirs = _values(candidate, "the candidate"), _values(baseline, "the baseline")
    n, m = ours.size, theirs.size
    candidate_mean, baseline_mean = float(ours.sum()) / n, float(theirs.sum()) / m
    gain = candidate_mean - baseline_mean

    variance, df = prior.pooled(squares(ours) + squares(theirs), n + m - 2)
    standard_error = math.sqrt(variance * (1 / n + 1 / m))
    correlation = correlation_of(baseline, candidate)
    paired = set(baseline) == set(candidate) and pairing_pays(correlation, n, (1 - confidence) / 5 / n_candidates)
    if paired:
        differences = np.array([candidate[seed] - baseline[seed] for seed in baseline])
        of_differences = max(squares(differences) / (n - 1), 2 * variance * (1 - _MAX_CORRELATION))
        standard_error, df = math.sqrt(of_differences / n), n - 1

    half, smallest = _interval(standard_error, df, n_candidates, n / (n + m), confidence)
    ci = (gain - half, gain + half)
    # Without a prior, true gains are taken to scatter as much as the noise, which need not be known for this ratio.
    shrinkage = (
        prior.effect**2 / (prior.effect**2 + standard_error**2) if prior.effects_known else 1 / (1 + 1 / n + 1 / m)
    )
    shrunk_gain = prior.effect_mean + shrinkage * (gain - prior.effect_mean)
    return Comparison(
        n_baseline=m,
        n_candidate=n,
        baseline_mean=baseline_mean,
        candidate_mean=candidate_mean,
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
        p_better=_p_better(df, shrunk_gain, math.sqrt(shrinkage) * standard_error),
        smallest_visible_effect=smallest,
        resolved=resolve(ci),
        unit=prior.unit,
        doubted=prior.doubted,
        unit_known=prior.unit_known,
    )


def combine(comparisons: Mapping[str, Comparison | None]) -> Overall:
    """Combine the tasks' comparisons (name → comparison, None if the candidate failed) into one verdict.

    The gain is the plain mean in points or in the tasks' metric, which a reader can check. Gains in different metrics
    have no common unit, so each is divided by its task's seed SD first (see `_in_seed_sds`). The interval assumes
    independent noise between tasks (Welch–Satterthwaite degrees of freedom). The `score` is the mean of the shrunk
    gains in units of each task's prior SD, so that a task with large noise or a wide scale does not dominate.
    Raises StatisticsError if there is no task.
    """
    if not comparisons:
        raise StatisticsError("no task to combine: give at least one comparison")
    tasks, failed = tuple(comparisons), tuple(task for task, comparison in comparisons.items() if comparison is None)
    ran = [comparison for comparison in comparisons.values() if comparison is not None]
    n_candidates = max((comparison.n_candidates for comparison in ran), default=1)
    confidence = max((comparison.confidence for comparison in ran), default=0.95)
    metric = common_metric(comparison.metric for comparison in ran)
    if failed:
        nan = math.nan
        return Overall(
            tasks, failed, nan, (nan, nan), confidence, n_candidates, nan, nan, nan, nan, nan, "not resolved", -math.inf
        )
    if metric == SEED_SD:
        ran = _in_seed_sds(ran)
    count = len(ran)
    gain = sum(comparison.gain for comparison in ran) / count
    variances = [comparison.standard_error**2 for comparison in ran]
    standard_error, df = _of_mean(variances, [comparison.df for comparison in ran])
    if any(comparison.doubted for comparison in ran):  # the priors are wrong together, so the mean is not surer
        df = min(df, max(comparison.df for comparison in ran))
    if metric == SEED_SD and not all(comparison.unit_known for comparison in ran):  # the units scatter as well
        standard_error = sum(comparison.standard_error for comparison in ran) / count
        df = min(comparison.df for comparison in ran)
    rho = min(comparison.n_candidate / (comparison.n_candidate + comparison.n_baseline) for comparison in ran)
    half, smallest = _interval(standard_error, df, n_candidates, rho, confidence)
    ci = (gain - half, gain + half)
    shrunk_gain = sum(comparison.shrunk_gain for comparison in ran) / count
    posterior_sd = (
        math.sqrt(sum(comparison.shrinkage * v for v, comparison in zip(variances, ran, strict=True))) / count
    )
    known = metric != SEED_SD or math.isfinite(standard_error)
    return Overall(
        metric=metric,
        tasks=tasks,
        failed=(),
        gain=gain if known else math.nan,
        ci=ci if known else (math.nan, math.nan),
        confidence=confidence,
        n_candidates=n_candidates,
        df=df,
        standard_error=standard_error,
        shrunk_gain=shrunk_gain if known else math.nan,
        p_better=_p_better(df, shrunk_gain, posterior_sd),
        smallest_visible_effect=smallest,
        resolved=resolve(ci) if known else "not resolved",
        score=sum(comparison.shrunk_gain / comparison.unit for comparison in ran) / count,
    )


def _in_seed_sds(ran: Sequence[Comparison]) -> list[Comparison]:
    """Comparisons of different metrics in one unit, so that they can be averaged.

    The unit of a task is its seed SD: the known one, else the scatter within its two sides. Where a task has neither,
    there is no common unit, and gains are relative to the baseline: good for choosing, but nothing is resolved.
    """
    own = all(math.isfinite(comparison.seed_sd) for comparison in ran)
    found = []
    for comparison in ran:
        unit = comparison.seed_sd if own else abs(comparison.baseline_mean) or 1.0
        found.append(
            dataclasses.replace(
                comparison,
                gain=comparison.gain / unit,
                standard_error=comparison.standard_error / unit if own else math.inf,
                shrunk_gain=comparison.shrunk_gain / unit,
                unit=1.0,
                unit_known=own and comparison.unit_known,
            )
        )
    return found


def in_noise_units(comparisons: Mapping[str, Comparison | None]) -> Overall:
    """Divide each task's gain by its prior's seed SD, then `combine`, so that tasks of any scale can be combined.

    Gain, interval, errors and smallest detectable effect are in units of seed noise, not in points.
    """
    return combine(
        {
            task: comparison
            and dataclasses.replace(
                comparison,
                gain=comparison.gain / comparison.unit,
                standard_error=comparison.standard_error / comparison.unit,
                shrunk_gain=comparison.shrunk_gain / comparison.unit,
                unit=1.0,
            )
            for task, comparison in comparisons.items()
        }
    )


def smallest_visible_effect(
    prior: NoisePrior | Sequence[NoisePrior],
    n_baseline: int,
    n_candidate: int,
    *,
    n_candidates: int = 1,
    confidence: float = 0.95,
) -> float:
    """Return the true gain (points) that a plan resolves with 80 % probability, if the prior's SD is right.

    For several tasks, give one prior each. The result is then the true mean gain over them, as `combine` judges it.
    It is infinite where no noise is known. Raises MissingSeedsError if a side has no seed, StatisticsError if there is
    no task.
    """
    priors = [prior] if isinstance(prior, NoisePrior) else prior
    if not priors:
        raise StatisticsError("no task to plan for: give at least one prior")
    _check_family(n_candidates, confidence)
    if min(n_baseline, n_candidate) < 1:
        raise MissingSeedsError(f"seeds a side must be at least 1, not {n_baseline} and {n_candidate}")
    expected = [task_prior.expected(n_baseline + n_candidate - 2) for task_prior in priors]
    variances = [variance * (1 / n_baseline + 1 / n_candidate) for variance, _ in expected]
    standard_error, df = _of_mean(variances, [df for _, df in expected])
    if any(task_prior.doubted for task_prior in priors):
        df = min(df, max(df for _, df in expected))
    return _interval(standard_error, df, n_candidates, n_candidate / (n_baseline + n_candidate), confidence)[1]


def _interval(
    standard_error: float, df: float, n_candidates: int, rho: float, confidence: float
) -> tuple[float, float]:
    """Return the half width of the interval and the smallest detectable effect; both infinite without known noise."""
    if not math.isfinite(standard_error):
        return math.inf, math.inf
    critical = critical_value(n_candidates, df, rho, confidence)
    return critical * standard_error, standard_error * visible_effect(critical, df)


def _p_better(df: float, shrunk_gain: float, posterior_sd: float) -> float:
    return float(special.stdtr(df, shrunk_gain / posterior_sd)) if math.isfinite(posterior_sd) else 0.5


def _of_mean(variances: Sequence[float], dfs: Sequence[float]) -> tuple[float, float]:
    """Return the standard error of the mean of independent gains and its Welch–Satterthwaite degrees of freedom."""
    total = sum(variances)
    if not math.isfinite(total):
        return math.inf, 0.0
    df = total**2 / sum(variance**2 / df for variance, df in zip(variances, dfs, strict=True))
    return math.sqrt(total) / len(variances), df


def _values(side: Mapping[int, float], name: str) -> FloatArray:
    """Return the accuracies of one side as an array. Raises for an empty side and for values that are not finite."""
    if not side:
        raise MissingSeedsError(f"{name} has no seed: run at least one before comparing")
    # The type excludes None, but a failed run in a JSON file has it.
    unusable = sorted(seed for seed, value in side.items() if value is None or not math.isfinite(value))
    if unusable:
        raise UnusableAccuracyError(
            f"{name} has no usable accuracy for seed {', '.join(map(str, unusable))}: the run failed or diverged; "
            "count the whole task as failed (None in combine), since leaving out bad seeds would flatter it"
        )
    return np.array([side[seed] for seed in side], dtype=np.float64)


def _check_family(n_candidates: int, confidence: float) -> None:
    if n_candidates < 1:
        raise StatisticsError(f"n_candidates must be at least 1 (the candidate itself), not {n_candidates}")
    if not 0 < confidence < 1:
        raise StatisticsError(f"confidence must lie between 0 and 1, such as 0.95, not {confidence}")
