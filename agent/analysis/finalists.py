"""Confirmation: before a test is final, the best of them and the baseline are trained again on fresh seeds.

What a test scored is partly luck, and the best of many has had the most of it. Fresh seeds know nothing of that luck.
Roles stay the same, so that a log's evaluations of `test/2` are all there is to know about test 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from agent.protocol import Accuracies

MOST = 5
"""Finalists."""


def finalist_count(tests: int) -> int:
    """How many of so many successful tests are confirmed: the better half, rounded up, at most `MOST`."""
    return min(MOST, math.ceil(tests / 2))


def trained_again(tests: Sequence[int], with_what: str) -> str:
    """In words: what confirmation did."""
    noun = "test" if len(tests) == 1 else "tests"
    listed = ", ".join(f"#{number}" for number in tests)
    return f"{noun} {listed} and the baseline were trained again with {with_what}"


def pooled(first: Accuracies, more: Accuracies) -> dict[str, dict[int, float | None]]:
    """Both together: task → seed → accuracy."""
    return {task: {**seeds, **more[task]} for task, seeds in first.items()}
