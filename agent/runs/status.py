"""The status of a run in run.json: whether it can be resumed, waits for a person, or is finished."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class RunStatus(StrEnum):
    """The state of a run. run.json, the event `Ended` and the last line of `agent search --json` use these values."""

    RUNNING = "running"
    """A process works on it, or was killed."""
    SESSION = "session"
    """A session (`agent session`) waits for its next command. No process works on it."""
    INTERRUPTED = "interrupted"
    """Stopped by a signal."""
    FAILED = "failed"
    """Stopped by an error: a full disk, a wrong file."""
    INFRA = "infra"
    """The loop ended because our own machinery failed."""
    WAITING = "waiting_for_review"
    """A test was chosen. The hidden task runs after `agent submit`."""
    SUBMITTED = "submitted"
    TESTS_EXHAUSTED = "tests_exhausted"
    STEPS = "steps"
    TIME = "time"
    COST = "cost"
    FORMAT = "format"
    API = "api"
    UNKNOWN = "unknown"
    """No status is recorded, or one that this version does not know."""

    @classmethod
    def of(cls, summary: Mapping[str, Any]) -> RunStatus:
        """The status in a run.json; UNKNOWN for an invalid one, so that every file can be listed."""
        recorded = summary.get("status")
        return cls(recorded) if isinstance(recorded, str) and recorded in cls._value2member_map_ else cls.UNKNOWN

    @property
    def resumable(self) -> bool:
        """Whether `agent search --resume` can continue the run."""
        return self in (
            RunStatus.RUNNING,
            RunStatus.SESSION,
            RunStatus.INTERRUPTED,
            RunStatus.FAILED,
            RunStatus.INFRA,
        )

    @property
    def waiting(self) -> bool:
        """Whether `agent submit` can continue the run."""
        return self is RunStatus.WAITING

    @property
    def finished(self) -> bool:
        """Whether the search has ended, with or without a submission."""
        return not (self.resumable or self.waiting or self is RunStatus.UNKNOWN)

    @property
    def over(self) -> bool:
        """Whether nothing more is tested: the search has ended, or only its hidden task waits for an approval."""
        return self.finished or self.waiting
