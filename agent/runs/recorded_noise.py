"""The seed noise as a run's log records it, and the SD of one seed that follows. Imports nothing heavy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from pydantic import TypeAdapter, ValidationError

from benchmark.noise import NO_PRIOR, NoisePrior, StatisticsError, TaskNoise, has_prior, learn_noise, noise_prior
from benchmark.task import SEED_SD, Metric, common_metric
from benchmark.tasks import Profile

Noise = Mapping[str, TaskNoise]
"""Task name → its noise. A run without one is of an older version, and uses the priors as they are in the table."""

GIVEN = "given in the task file"
"""The source of a prior that the owner of the task states."""
_GIVEN_DF = 14.0
_ADAPTER: TypeAdapter[dict[str, TaskNoise]] = TypeAdapter(dict[str, TaskNoise])


def prior(profile: str, task: str, given: Mapping[str, float]) -> NoisePrior:
    """The prior of a task before anything was measured. `given`: task → SD that its owner states."""
    if task in given:
        return NoisePrior(given[task], _GIVEN_DF, source=GIVEN)
    return noise_prior(profile, task) if has_prior(profile, task) else NO_PRIOR


def unmeasured(profile: Profile) -> dict[str, TaskNoise]:
    """What is known before a run has looked for measurements: the profile's priors, or those of the task file."""
    return {task.name: TaskNoise.of(prior(profile.name, task.name, dict(profile.noise))) for task in profile.tasks}


def as_logged(noise: Noise, profile: Profile) -> dict[str, TaskNoise]:
    """The noise as a log records it: nothing in a log names a hidden task before the submission."""
    names = _logged_names(profile)
    return {names.get(task, task): one for task, one in noise.items()}


def of_log(noise: Noise | None, profile: Profile) -> dict[str, TaskNoise] | None:
    """The noise that a log records, by the tasks' own names; None in a run of an older version."""
    names = {logged: task for task, logged in _logged_names(profile).items()}
    return None if noise is None else {names.get(task, task): one for task, one in noise.items()}


def _logged_names(profile: Profile) -> dict[str, str]:
    return {task.name: f"hidden task {number}" for number, task in enumerate(profile.hidden, start=1)}


def prior_of(
    profile: str, noise: Noise | None, task: str, others: Sequence[Mapping[int, float]], own_df: int
) -> NoisePrior:
    """The prior for one comparison; see `TaskNoise.prior_for`. Without `noise`, as older versions did."""
    known = None if noise is None else noise.get(task)
    return learn_noise(noise_prior(profile, task), others) if known is None else known.prior_for(others, own_df)


def seed_sd(profile: str, noise: Noise | None, task: str, baseline: Mapping[int, float]) -> float | None:
    """The SD of one seed that comparisons rely on before the first test, `baseline` being its seeds ({}: not run).

    None where nothing is known: no prior, no measurement, and at most one seed of the baseline.
    """
    prior = prior_of(profile, noise, task, [baseline], 0)
    return prior.sd if prior.df else None


def noticeable(sd: float, baseline_seeds: int, seeds: int) -> float:
    """Two standard errors of a gain: smaller ones cannot be told from chance."""
    return 2 * sd * math.sqrt(1 / max(1, baseline_seeds) + 1 / max(1, seeds))


def score_units(
    profile: str, noise: Noise | None, metrics: Mapping[str, Metric], baseline: Mapping[str, Mapping[int, float | None]]
) -> tuple[dict[str, float], str]:
    """What the scores of tasks with different metrics are divided by before they are averaged, and the unit's name.

    It is each task's seed SD where all are known, else the baseline's mean. ({}, its unit) where there is one metric.
    """
    common = common_metric(metrics.values())
    if common != SEED_SD:
        return {}, common.points
    known = {task: {s: v for s, v in seeds.items() if v is not None} for task, seeds in baseline.items()}
    sds = {task: seed_sd(profile, noise, task, seeds) for task, seeds in known.items()}
    if all(sds.values()):
        return {task: sd for task, sd in sds.items() if sd}, SEED_SD.points
    return {task: abs(sum(seeds.values()) / len(seeds)) or 1.0 for task, seeds in known.items() if seeds}, "× baseline"


def noise_from(fields: object) -> Noise | None:
    """The noise in a launch event as JSON; None where there is none. Raises StatisticsError for any other content."""
    if fields is None:
        return None
    try:
        return _ADAPTER.validate_python(fields)
    except ValidationError as error:
        raise StatisticsError(f"the recorded noise cannot be read: {error.errors()[0]['msg']}") from None
