"""Confirmation: how many of the best tests (finalists) are trained again on fresh seeds before a submission, and which.

The baseline is trained again too. The score of a test is partly luck, and the best of many tests had the most luck.
Fresh seeds remove that bias. Roles stay the same, so all evaluations of `test/2` in a log belong to test 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from agent.protocol import Accuracies, TestOutcome

MOST = 5
"""The largest number of finalists."""


def finalist_count(tests: int) -> int:
    """How many of `tests` successful tests are confirmed: the better half, rounded up, at most `MOST`."""
    return min(MOST, math.ceil(tests / 2))


def finalists_of(best_first: Sequence[TestOutcome], nominee: int) -> list[int]:
    """The numbers of the tests to confirm, ascending: the first ones, and the one that is to be submitted."""
    return sorted({nominee, *(test.number for test in best_first[: finalist_count(len(best_first))])})


def winner(best_first: Sequence[TestOutcome], confirmed: Sequence[int]) -> TestOutcome | None:
    """The best of the confirmed tests; None where each failed on a fresh seed."""
    return next((test for test in best_first if test.number in confirmed), None)


def trained_again(tests: Sequence[int], with_what: str) -> str:
    """A sentence that says which tests were confirmed."""
    noun = "test" if len(tests) == 1 else "tests"
    listed = ", ".join(f"#{number}" for number in tests)
    return f"{noun} {listed} and the baseline were trained again with {with_what}"


def pooled(first: Accuracies, more: Accuracies) -> dict[str, dict[int, float | None]]:
    """Merge the accuracies of two sets of seeds: task → seed → accuracy."""
    return {task: {**seeds, **more[task]} for task, seeds in first.items()}


def pooled_test(test: TestOutcome, fresh: Mapping[str, Accuracies]) -> TestOutcome:
    """The test with its accuracies on fresh seeds, which are given by role; as it is when it has none."""
    more = fresh.get(f"test/{test.number}")
    return test if more is None else replace(test, accuracies=pooled(test.accuracies, more))


def confirmation_reply(tests: Sequence[int], seeds: Sequence[int]) -> str:
    """The sentence of a reply to `submit` that says what was trained again."""
    span = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"
    return f"[confirm] {trained_again(tests, span).capitalize()}."
