"""The choice of the test to submit: the order of the finished tests, and whether one beat the baseline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from agent.analysis.against_baseline import compare_tasks
from agent.protocol import Accuracies, TestOutcome
from agent.runs.recorded_noise import Noise
from benchmark.comparison import Overall
from benchmark.statistics import combine
from benchmark.task import Metric

NONE_BETTER = "No test beat the baseline."

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
    found = compared(profile, baseline, tests, looks, noise, metrics)
    return [test for test, _ in sorted(found, key=lambda one: one[1].score, reverse=True)]


def compared(
    profile: str,
    baseline: Accuracies,
    tests: Sequence[TestOutcome],
    looks: Mapping[str, float] = _NO_LOOKS,
    noise: Noise | None = None,
    metrics: Mapping[str, Metric] = {},
) -> list[tuple[TestOutcome, Overall]]:
    """Each test that succeeded, with how it compares. The arguments are those of `ranked`."""
    ran = [test for test in tests if not test.failed]

    def overall(test: TestOutcome) -> Overall:
        others = [other.accuracies for other in ran if other is not test]
        look = looks.get(test.region_sha256)
        return combine(
            compare_tasks(profile, baseline, test.accuracies, others=others, look=look, noise=noise, metrics=metrics)
        )

    return [(test, overall(test)) for test in ran]


def none_better(tests: Iterable[Overall]) -> bool:
    """Whether tests succeeded, and none of them has a mean gain above zero over the visible tasks."""
    gains = [overall.gain for overall in tests if not overall.failed]
    return bool(gains) and all(gain <= 0 for gain in gains)
