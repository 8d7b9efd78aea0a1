"""Where a run stands, by one fold over its log: every view that says how far a run is asks here.

run.json has the counts only when the search has ended; the log has them at any moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from agent.runs.log_lines import Fields
from agent.runs.status import RunStatus


@dataclass(frozen=True)
class RunState:
    """How far a run is. `held`: a process works on it at this moment. Tests by their numbers."""

    status: RunStatus
    held: bool
    budget: int | None
    begun: tuple[int, ...]
    finished: tuple[int, ...]
    submitted: int | None
    released: bool
    """Whether the hidden task follows the submission without a person's word."""

    @property
    def running(self) -> bool:
        """Whether the run has not ended and a process works on it."""
        return self.held and self.status.resumable

    @property
    def tests(self) -> str:
        """Tests of the budget, as `1 of 3` and the one that is being trained."""
        count = f"{len(self.finished)} of {'?' if self.budget is None else self.budget}"
        if self._open is None:
            return count
        return f"{count} (test {self._open} {'is being trained' if self.running else 'was begun'})"

    @property
    def words(self) -> str:
        """What goes on, or why nothing does, in one sentence; for a run that has not ended."""
        if not self.running:
            return {
                RunStatus.RUNNING: "This search was killed, its process is gone.",
                RunStatus.SESSION: "This session waits for its next command.",
                RunStatus.INTERRUPTED: "This search was interrupted.",
                RunStatus.INFRA: "This search broke off because the machinery failed, not a candidate.",
            }.get(self.status, "This search broke off.")
        if self.submitted is not None:
            then = "the hidden task is being trained" if self.released else "the run is about to wait for a review"
            return f"This search is running: test {self.submitted} was submitted, and {then}."
        if self._open is not None:
            return f"This search is running: test {self._open} is being trained."
        return f"This search is running: {'between two tests' if self.finished else 'the first test has not begun'}."

    @property
    def _open(self) -> int | None:
        """The test that was begun and has no result."""
        return next((number for number in reversed(self.begun) if number not in self.finished), None)


def state_of(summary: Mapping[str, Any], events: Iterable[Fields], *, held: bool) -> RunState:
    """The fold. `events` are those of the log, as read from a possibly damaged file."""
    begun: list[int] = []
    finished: list[int] = []
    submitted: int | None = None
    for event in events:
        number = event.get("number")
        if not isinstance(number, int) or isinstance(number, bool):
            continue
        match event.get("kind"):
            case "test_started":
                begun.append(number)
            case "test_finished":
                finished.append(number)
            case "submitted":
                submitted = number
    config, budget = summary.get("config"), summary.get("budget")
    waits = isinstance(config, dict) and config.get("submit") is False
    return RunState(
        status=RunStatus.of(summary),
        held=held,
        budget=budget if isinstance(budget, int) else None,
        begun=tuple(dict.fromkeys(begun)),
        finished=tuple(dict.fromkeys(finished)),
        submitted=submitted,
        released=not waits,
    )
