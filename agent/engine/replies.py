"""The texts of the replies of screen, test and submit (sandbox/editing.py has edit, undo, view and rewrite), and the
state that a proposer is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from agent.engine.screening import Round, Screen
from agent.evaluation.batches import Outcomes
from agent.protocol import Observation, Situation, TestOutcome
from benchmark.report_lines import task_report
from benchmark.results import EvaluationResult
from benchmark.task import Task


class SituationOnDemand(Situation):
    """Finds the best test when it is asked for it: with hundreds of tests, comparing all of them takes seconds."""

    def __init__(
        self, find_best: Callable[[], int | None] | None = None, *, best: int | None = None, **fields: Any
    ) -> None:
        """`best` instead of `find_best`: for `dataclasses.replace`."""
        super().__init__(best=best, **fields)
        object.__setattr__(self, "_find_best", find_best or (lambda: best))

    def __getattribute__(self, name: str) -> Any:
        if name == "best":
            return object.__getattribute__(self, "_find_best")()
        return object.__getattribute__(self, name)


def refused(kind: str, text: str) -> Observation:
    """The reply to a call that was not carried out."""
    return Observation(text, ok=False, error=kind)


def to_submit(number: object, tests: Sequence[TestOutcome]) -> TestOutcome | Observation:
    """The test that a call of `submit` asks for, or the reply that refuses it."""
    if isinstance(number, bool) or not isinstance(number, int):
        return refused("arguments", f"ERROR: Invalid arguments for 'submit': n must be an integer, not {number!r}")
    if not tests:
        return refused("no_tests", "ERROR: No test results yet. Run test() at least once first.")
    outcome = next((test for test in tests if test.number == number), None)
    if outcome is None:
        numbers = ", ".join(str(test.number) for test in tests)
        return refused("no_such_test", f"ERROR: There is no test #{number}; tests so far: {numbers}.")
    if outcome.failed:
        return refused("failed_test", f"ERROR: Test #{number} failed and cannot be submitted; choose another.")
    return outcome


def to_screen(candidates: object, screen: Screen, left: int) -> list[str] | Observation:
    """The regions that a call of `screen` asks for, of which `left` may be new, or the reply that refuses it."""
    if not isinstance(candidates, list) or not candidates or not all(isinstance(one, str) for one in candidates):
        return refused("arguments", "ERROR: Invalid arguments for 'screen': candidates must be a list of texts")
    new = screen.unseen(candidates)
    if new > left:
        return refused(
            "screening_budget",
            f"ERROR: {new} new candidates cost more than screening may spend now; {left} can be looked at. Test, "
            "and it may spend more.",
        )
    return candidates


def test_report(number: int, outcomes: Outcomes, tasks: Sequence[Task], seeds: Sequence[int], left: int) -> str:
    """The reply to test `number`: its results by task, and how many tests are left."""
    noun = "test" if left == 1 else "tests"
    hint = "; call submit(n=N) to choose which test result to submit as final" if left else ""
    parts = [f"[Test #{number}] ({left} {noun} remaining{hint})"]
    for task in tasks:
        by_seed = {seed: outcomes[f"test/{number}", task.name, seed] for seed in seeds}
        results = [outcome for outcome in by_seed.values() if isinstance(outcome, EvaluationResult)]
        failures = [
            f"FAILED with seed {seed}: {outcome.kind}: {outcome.message}"
            for seed, outcome in by_seed.items()
            if not isinstance(outcome, EvaluationResult)
        ]
        parts.append(task_report(task.name, results, failures, metric=task.metric))
    return "\n\n".join(parts)


def looks_report(seen: Round) -> str:
    """The reply to a screening."""
    noun = "candidate" if len(seen.looks) == 1 else "candidates"
    lines = [f"[Screen] {len(seen.looks)} {noun} for {seen.cost:.2f} of a test; loss on held-out pictures, nats:"]
    for number, look in enumerate(seen.looks, start=1):
        found = f"rejected: {look.rejected}" if look.loss is None else f"{look.loss:.3f}, look {look.rung + 1}"
        lines.append(f"candidate {number}: {found}{' (the best)' if number - 1 == seen.best else ''}")
    return "\n".join(lines)
