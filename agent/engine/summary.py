"""Writes run.json while a search runs: configuration, progress, results."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from typing import Any

from agent.analysis.openness import caveat
from agent.clock import Clock
from agent.config import SearchConfig
from agent.errors import AgentError, Interrupted
from agent.runs.directory import RunDirectory
from agent.runs.status import RunStatus
from benchmark.data import DataError
from benchmark.executors import InfrastructureError
from benchmark.tasks import Profile
from benchmark.vision import installed_version
from sandbox.isolate import IsolationCrashed
from sandbox.workspace import WorkspaceError

OUR_FAILURES = (InfrastructureError, IsolationCrashed, DataError, WorkspaceError, OSError)
"""Failures of machine, disk or files. The search stops and can be resumed."""


class RunSummary:
    """The run.json of one run. Each `save` replaces the file. A resumed search keeps the existing fields."""

    def __init__(self, run: RunDirectory, config: SearchConfig, profile: Profile, reason: str, clock: Clock) -> None:
        self._run = run
        self._config = config
        self._profile = profile
        self._reason = reason
        self._clock = clock
        self._fields: dict[str, Any] = {}

    def save(self, **changes: Any) -> None:
        """Set these fields and write the file. `created` is set only once."""
        if not self._fields:
            self._fields = self._run.read_summary() if self._run.summary.is_file() else self._first()
        if "created" in self._fields:
            changes.pop("created", None)
        self._fields.update(changes)
        with self._clock.phase("bookkeeping"):
            self._run.write_summary(self._fields)

    @contextmanager
    def stops_recorded(self) -> Iterator[None]:
        """Record that the search stopped if a signal or a failure ends the block before the search has ended."""
        try:
            yield
        except (Interrupted, KeyboardInterrupt):
            self._stopped(status=RunStatus.INTERRUPTED)
            raise
        except (AgentError, *OUR_FAILURES) as error:
            self._stopped(status=RunStatus.FAILED, message=str(error))
            raise

    def _stopped(self, **changes: Any) -> None:
        """If the disk is full, the run stays `running` and can be resumed, and the first error is reported."""
        if self._fields.get("status") == RunStatus.RUNNING:
            with suppress(OSError):
                self.save(**changes)

    def _first(self) -> dict[str, Any]:
        config, profile = self._config, self._profile
        return {
            "schema": 1,
            "profile": profile.name,
            "reason": self._reason,
            "config": config.model_dump(mode="json"),
            "seeds": list(config.evaluation_seeds),
            "budget": config.budget,
            "null": config.null,
            "caveat": caveat(config.proposer, profile.caveat),
            "tasks": tasks_as_json(profile),
            "versions": {
                "python": platform.python_version(),
                **{name: version(name) for name in ("torch", "optuna", "numpy", "initsearch")},
                **({"torchvision": vision} if (vision := installed_version()) else {}),
            },
        }


def tasks_as_json(profile: Profile) -> dict[str, Any]:
    """The tasks as run.json lists them."""
    kinds = (("visible", profile.visible), ("hidden", profile.hidden))
    return {kind: [{"name": task.name, **task.as_json()} for task in tasks] for kind, tasks in kinds}
