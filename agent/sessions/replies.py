"""What the commands of a session answer: the reply of a call, a test that still runs, an ended session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.errors import Rejected
from agent.runs.events import Submitted, TestStarted
from agent.runs.fold import FinishedCall

REFUSED, SPENT = 3, 4


class SessionEnded(Rejected):
    """A test was submitted, or the run has ended otherwise. Nothing can be changed any more."""


@dataclass(frozen=True)
class SessionReply:
    """The reply of one tool call. `text` is that of PROTOCOL.md."""

    tool: str
    text: str
    ok: bool = True
    error: str | None = None
    """Kind of the refusal, such as `syntax` or `budget`; `candidate_failed` for a paid test that failed."""
    test: int | None = None
    """Number of the test that the reply is about."""
    submitted: int | None = None
    done: Mapping[str, Any] | None = None
    """The last line of `agent search --json`, once the session has ended."""
    words: tuple[str, ...] = field(default=())
    """The verdict in sentences, once the session has ended."""

    @property
    def exit_code(self) -> int:
        """0: carried out, also for a paid test that failed. 3: refused, nothing spent. 4: the budget is spent."""
        if self.ok or self.error == "candidate_failed":
            return 0
        return SPENT if self.error == "budget" else REFUSED

    def as_json(self) -> dict[str, Any]:
        """The object that --json prints."""
        found = {"event": "reply", "tool": self.tool, "ok": self.ok, "error": self.error, "test": self.test}
        return {**found, "submitted": self.submitted, "reply": self.text, "exit_code": self.exit_code}

    @classmethod
    def recorded(cls, found: FinishedCall, test: int | None) -> SessionReply:
        """The reply that a log holds. `test`: the number of the test that the call repeated, if it did."""
        started = next((event.number for event in found.inner if isinstance(event, TestStarted)), test)
        submitted = next((event.number for event in found.inner if isinstance(event, Submitted)), None)
        reply = found.reply
        return cls(found.call.tool, reply.reply, reply.ok, reply.error, test=started, submitted=submitted)


@dataclass(frozen=True)
class StillRunning:
    """A call is being carried out by another process. `wait` gives its reply."""

    tool: str
    seconds: float
    """Since the call began."""
    test: int | None = None
    """Number of the test that is being trained; None before it was paid."""

    exit_code = 0

    @property
    def text(self) -> str:
        """One line for people."""
        of = "" if self.tool == "test" else f"{self.tool} of "
        what = self.tool if self.test is None else f"{of}test #{self.test}"
        return f"still running: {what}, for {self.seconds:.0f} s; agent session wait waits for its reply"

    def as_json(self) -> dict[str, Any]:
        """The object that --json prints."""
        return {"event": "running", "tool": self.tool, "test": self.test, "seconds": round(self.seconds, 1)}
