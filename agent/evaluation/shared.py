"""One isolation and one set of slots for several searches side by side, and equal evaluations only once."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager
from typing import Any

from agent.clock import Clock
from agent.config import SearchConfig
from agent.evaluation.evaluator import Evaluator
from agent.evaluation.workbench import Workbench, open_workbench
from agent.progress import Progress
from agent.runs.events import Evaluated
from agent.secrets import kept_from_children
from benchmark.executors import Call, Executor
from benchmark.executors.seam import AnswerT


class SharedBench:
    """What several searches use together. Each gets a workbench with its own evaluator, clock and log."""

    def __init__(self, workbench: Workbench, secrets: dict[str, str]) -> None:
        self.secrets = secrets
        """The keys that were taken out of the environment."""
        self._workbench = workbench
        self._executor = _Once(workbench.executor)

    @property
    def environment(self) -> dict[str, str]:
        """See `Workbench.environment`."""
        return self._workbench.environment

    def workbench(self, clock: Clock, progress: Progress, record: Callable[[Evaluated], None]) -> Workbench:
        """The workbench of one search."""
        shared = self._workbench
        settings = shared.evaluator.settings
        evaluator = Evaluator(settings, self._executor, shared.isolation, clock, progress, record)
        return Workbench(shared.isolation, evaluator, shared.environment, shared.slots, self._executor)

    def close(self) -> None:
        """Stop all evaluations. The searches end with an InfrastructureError and can be resumed."""
        self._workbench.executor.close()


@contextmanager
def open_shared(config: SearchConfig, progress: Progress, **options: Any) -> Iterator[SharedBench]:
    """Open a workbench for several searches; see `open_workbench`."""
    with kept_from_children() as secrets, open_workbench(config, Clock(), progress, **options) as workbench:
        yield SharedBench(workbench, secrets)


class _Once:
    """An executor that runs calls with the same key once, if they are in flight at the same time."""

    def __init__(self, executor: Executor) -> None:
        self.slots, self.remote = executor.slots, executor.remote
        self._executor = executor
        self._lock = threading.Lock()
        self._running: dict[str, Future[Any]] = {}

    def submit(self, call: Call[AnswerT], **options: Any) -> Future[AnswerT]:
        """See `Executor.submit`."""
        key = getattr(call, "key", None)
        if key is None:
            return self._executor.submit(call, **options)
        with self._lock:
            running = self._running.get(key)
            if running is None:
                running = self._running[key] = self._executor.submit(call, **options)
        running.add_done_callback(lambda _: self._running.pop(key, None))
        copy: Future[AnswerT] = Future()
        running.add_done_callback(lambda done: _copy(done, copy))
        return copy

    def close(self) -> None:
        """Does nothing: who opened the executor closes it."""


def _copy(done: Future[AnswerT], to: Future[AnswerT]) -> None:
    with contextlib.suppress(InvalidStateError):  # cancelled by its own search
        if (error := done.exception()) is not None:
            to.set_exception(error)
        else:
            to.set_result(done.result())
