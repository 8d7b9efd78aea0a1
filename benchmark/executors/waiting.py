"""What all engines share: a call with everything that belongs to it, and the queue in which calls wait."""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any, Self

from benchmark.executors.seam import AnswerT, Ask, Call, InfrastructureError, OnStart, Priority, Report


@dataclass(eq=False)
class SubmittedCall:
    """A submitted call."""

    call: Call[Any]
    timeout: float | None
    on_report: Report | None
    on_ask: Ask | None
    on_start: OnStart | None
    priority: Priority
    attempts: int = 0
    """How often it has begun on another machine."""
    losses: int = 0
    """How often the machine that should run it was gone."""
    future: Future[Any] = field(default_factory=Future)

    def fail(self, why: str) -> None:
        """Raise InfrastructureError from the future, unless it has its answer."""
        with contextlib.suppress(InvalidStateError):
            self.future.set_exception(InfrastructureError(why))


class QueueExecutor:
    """The half of an executor that its callers see. A subclass takes jobs with `_take` and resolves their futures."""

    def __init__(self) -> None:
        self._queue: queue.PriorityQueue[tuple[Priority, int, SubmittedCall | None]] = queue.PriorityQueue()
        self._order = itertools.count()
        self._closing = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def submit(
        self,
        call: Call[AnswerT],
        *,
        timeout: float | None = None,
        on_report: Report | None = None,
        on_ask: Ask | None = None,
        on_start: OnStart | None = None,
        priority: Priority = (),
    ) -> Future[AnswerT]:
        """See `Executor.submit`."""
        if self._closing.is_set():
            raise RuntimeError("the executor is closed")
        job = SubmittedCall(call, timeout, on_report, on_ask, on_start, priority)
        self._put(job)
        return job.future

    def close(self) -> None:
        """See `Executor.close`."""
        raise NotImplementedError

    def _put(self, job: SubmittedCall) -> None:
        self._queue.put((job.priority, next(self._order), job))

    def _take(self, *, wait: bool = True) -> SubmittedCall | None:
        """The next job that nobody cancelled. None once the executor closes, and if there is none to `wait` for."""
        while True:
            try:
                job = self._queue.get(block=wait)[2]
            except queue.Empty:
                return None
            if job is None:
                self._end_waiting()  # for the next thread
                return None
            if job.future.running() or job.future.set_running_or_notify_cancel():
                return job

    def _end_waiting(self) -> None:
        """Let every thread that waits in `_take` go on with None."""
        self._queue.put(((), next(self._order), None))

    def _fail_waiting(self, why: str) -> None:
        """Fail all jobs that wait."""
        with contextlib.suppress(queue.Empty):
            while True:
                if (job := self._queue.get_nowait()[2]) is not None:
                    job.fail(why)
        if self._closing.is_set():
            self._end_waiting()
