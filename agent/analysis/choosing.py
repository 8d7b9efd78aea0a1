"""The choice of the test to submit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agent.analysis.against_baseline import compare_tasks
from agent.protocol import Accuracies, TestOutcome
from agent.runs.recorded_noise import Noise
from benchmark.comparison import Overall
from benchmark.statistics import combine
from benchmark.task import Metric

_NO_LOOKS: Mapping[str, float] = {}


def ranked(
    profile: str,
    baseline: Accuracies,
    tests: Sequence[TestOutcome],
    looks: Mapping[str, float] = _NO_LOOKS,
    noise: Noise | None = None,
    metrics: Mapping[str, Metric] = {},
) -> list[TestOutcome]:
    """The tests that succeeded, best first: the first one is to be submitted.

    The best has the largest shrunk gain over all visible tasks, by all its seeds, with the noise of the other tests;
    the earlier one on a tie. The shrinkage already removes the optimism of picking a maximum. `looks` maps the hash of
    a region to its score from screening. `noise`, `metrics`: see `compare_tasks`.
    """
    ran = [test for test in tests if not test.failed]
    scores = [overall.score for overall in _judged(profile, baseline, ran, looks, noise, metrics)]
    return [ran[index] for index in sorted(range(len(ran)), key=scores.__getitem__, reverse=True)]


def none_better(
    profile: str,
    baseline: Accuracies,
    tests: Sequence[TestOutcome],
    noise: Noise | None = None,
    metrics: Mapping[str, Metric] = {},
) -> bool:
    """Whether no test that succeeded has a mean gain above zero over the visible tasks."""
    ran = [test for test in tests if not test.failed]
    return all(overall.gain <= 0 for overall in _judged(profile, baseline, ran, _NO_LOOKS, noise, metrics))


def _judged(
    profile: str,
    baseline: Accuracies,
    ran: Sequence[TestOutcome],
    looks: Mapping[str, float],
    noise: Noise | None,
    metrics: Mapping[str, Metric],
) -> list[Overall]:
    return [
        combine(
            compare_tasks(
                profile,
                baseline,
                test.accuracies,
                others=[other.accuracies for other in ran if other is not test],
                look=looks.get(test.region_sha256),
                noise=noise,
                metrics=metrics,
            )
        )
        for test in ran
    ]
