"""What the status in run.json says about a run: whether it can be resumed, waits for a person, or is finished."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class RunStatus(StrEnum):
    """Where a run stands. Its values are what run.json, `Ended` and the last line of `agent search --json` say."""

    RUNNING = "running"
    """A process works on it, or was killed."""
    INTERRUPTED = "interrupted"
    """Stopped by a signal."""
    FAILED = "failed"
    """Stopped by an error: a full disk, a wrong file."""
    INFRA = "infra"
    """The loop ended because our own machinery failed."""
    WAITING = "waiting_for_review"
    """A test was chosen, and the hidden task is held back until a person lets it run."""
    SUBMITTED = "submitted"
    TESTS_EXHAUSTED = "tests_exhausted"
    STEPS = "steps"
    TIME = "time"
    COST = "cost"
    FORMAT = "format"
    API = "api"
    UNKNOWN = "unknown"
    """None is recorded, or one that this version does not know."""

    @classmethod
    def of(cls, summary: Mapping[str, Any]) -> RunStatus:
        """The status in a run.json; UNKNOWN for anything strange, so that a foreign file can be listed."""
        recorded = summary.get("status")
        return cls(recorded) if isinstance(recorded, str) and recorded in cls._value2member_map_ else cls.UNKNOWN

    @property
    def resumable(self) -> bool:
        """Whether `agent search --resume` goes on with the run."""
        return self in (RunStatus.RUNNING, RunStatus.INTERRUPTED, RunStatus.FAILED, RunStatus.INFRA)

    @property
    def waiting(self) -> bool:
        """Whether `agent submit` goes on with the run."""
        return self is RunStatus.WAITING

    @property
    def finished(self) -> bool:
        """Whether the search came to its end, with or without a submission."""
        return not (self.resumable or self.waiting or self is RunStatus.UNKNOWN)
