"""Confirmation: before a test is final, the best of them and the baseline are trained again on fresh seeds.

What a test scored is partly luck, and the best of many has had the most of it. Fresh seeds know nothing of that luck.
Roles stay the same, so that a log's evaluations of `test/2` are all there is to know about test 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.evaluator import Candidate, Evaluator, accuracies_of, require_baseline
from agent.protocol import Accuracies
from benchmark.store import ResultStore
from benchmark.tasks import Profile
from sandbox.region import scaffold

MOST = 5
"""Finalists."""


def finalist_count(tests: int) -> int:
    """How many of so many successful tests are confirmed: the better half, rounded up, at most `MOST`."""
    return min(MOST, math.ceil(tests / 2))


@dataclass(frozen=True)
class Confirmation:
    """Trains finalists and baseline with `seeds`."""

    evaluator: Evaluator
    profile: Profile
    seeds: Sequence[int]
    keep: ResultStore
    shared: ResultStore | None

    def measure(self, finalists: Mapping[int, str]) -> dict[str, Accuracies]:
        """Role (`baseline`, `test/N`) → accuracies with the fresh seeds, for regions by their test's number.

        Raises InfrastructureError when the baseline failed.
        """
        candidates = [Candidate("baseline", scaffold().region)]
        candidates += [Candidate(f"test/{number}", region) for number, region in finalists.items()]
        outcomes = self.evaluator.evaluate(
            candidates, self.profile.visible, self.seeds, keep=self.keep, shared=self.shared
        )
        require_baseline(outcomes, "baseline")
        return {one.role: accuracies_of(outcomes, one.role) for one in candidates}


def pooled(first: Accuracies, more: Accuracies) -> dict[str, dict[int, float | None]]:
    """Both together: task → seed → accuracy."""
    return {task: {**seeds, **more[task]} for task, seeds in first.items()}
