"""The choice of the test to submit: the order of the finished tests, and whether one beat the baseline."""

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
    judged = _judged(profile, baseline, tests, looks, noise, metrics)
    return [test for test, _ in sorted(judged, key=lambda one: one[1].score, reverse=True)]


def none_better(
    profile: str,
    baseline: Accuracies,
    tests: Sequence[TestOutcome],
    noise: Noise | None = None,
    metrics: Mapping[str, Metric] = {},
) -> bool:
    """Whether no test that succeeded has a mean gain above zero over the visible tasks."""
    return all(overall.gain <= 0 for _, overall in _judged(profile, baseline, tests, _NO_LOOKS, noise, metrics))


def _judged(
    profile: str,
    baseline: Accuracies,
    tests: Sequence[TestOutcome],
    looks: Mapping[str, float],
    noise: Noise | None,
    metrics: Mapping[str, Metric],
) -> list[tuple[TestOutcome, Overall]]:
    """Each test that succeeded, with how it compares."""
    ran = [test for test in tests if not test.failed]

    def compared(test: TestOutcome) -> Overall:
        others = [other.accuracies for other in ran if other is not test]
        look = looks.get(test.region_sha256)
        return combine(
            compare_tasks(profile, baseline, test.accuracies, others=others, look=look, noise=noise, metrics=metrics)
        )

    return [(test, compared(test)) for test in ran]
