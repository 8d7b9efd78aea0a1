"""Measures seed noise from stored results: the scatter of equal code over seeds, pooled over all code of a task."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmark.noise import NoisePrior, TaskNoise
from benchmark.results import EvaluationResult, task_sha256
from benchmark.store import ISOLATED, ResultStore
from benchmark.tasks import Task

_MOST_RESULTS = 1000
"""Results of one task that are read. These take half a second, and more would not make the noise better known."""


@dataclass(frozen=True)
class Scatter:
    """The sum of squared deviations (points²) of runs from the means of their `groups`, with `df` degrees of freedom.

    A group is equal code on equal hardware with equal versions, over seeds.
    """

    squares: float = 0.0
    df: int = 0
    groups: int = 0


def measured_noise(
    task: Task, prior: NoisePrior, environment: Mapping[str, str], stores: Sequence[ResultStore]
) -> TaskNoise:
    """Return the prior of a task with the scatter in `stores` for this device kind and precision.

    `environment` is the value of `benchmark.hardware.environment`. Results of another recipe do not count, nor results
    without `task_sha256`, which say only the name of their task.
    """
    digest = task_sha256(task)
    found = (result for store in stores for result in store.containing(digest) if result.task_sha256 == digest)
    scatter = scatter_of(
        result
        for result in itertools.islice(found, _MOST_RESULTS)
        if (result.device, result.precision) == (environment.get("device"), environment.get("precision"))
        and result.isolation_level in ISOLATED
    )
    return TaskNoise.of(prior, scatter.squares, scatter.df, scatter.groups)


def scatter_of(results: Iterable[EvaluationResult]) -> Scatter:
    """Pool the scatter over seeds of results of one task.

    Code that diverged with any seed, or whose mean is less than half of the best code's, is left out: it did not
    train, so its scatter says nothing about code that does. The same scatter would come from runs at chance level.
    """
    groups: dict[tuple[object, ...], dict[int, EvaluationResult]] = {}
    own = []
    for result in results:
        own.append(result.score is not None)
        versions = tuple(sorted(result.versions.items()))
        key = (result.region_sha256, result.device, result.precision, result.threads, versions)
        groups.setdefault(key, {})[result.seed] = result
    accuracies = [
        [result.value for result in group.values()]
        for group in groups.values()
        if all(result.status == "ok" for result in group.values())
    ]
    # The score of a user's own trainer may be a loss, of which half says nothing.
    least = -math.inf if any(own) else max((_mean(values) for values in accuracies), default=0.0) / 2
    kept = [values for values in accuracies if len(values) > 1 and _mean(values) >= least]
    squares = sum((value - _mean(values)) ** 2 for values in kept for value in values)
    return Scatter(squares, sum(len(values) - 1 for values in kept), len(kept))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
