"""Where evaluations run: one persistent process per slot, behind one seam, `submit(call) -> Future`.

A distributed engine can take the local one's place: calls, their questions and their answers are picklable. What they
share is what they name: a file in which an answer is to be left, say.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

from benchmark.files import open_plain

Report = Callable[[Any], None]
Ask = Callable[[Any], Any]
Answer = TypeVar("Answer", covariant=True)
AnswerT = TypeVar("AnswerT")


class Parent(Protocol):
    """Whoever submitted a call, as the running call sees it. Everything that is passed is picklable."""

    def report(self, content: Any, /) -> None:
        """Show progress; nothing comes back."""
        ...

    def ask(self, question: Any, /) -> Any:
        """Wait for an answer of the parent. Raises RuntimeError with a traceback when it has none."""
        ...


class Call(Protocol[Answer]):
    """A picklable piece of work."""

    def __call__(self, parent: Parent, /) -> Answer: ...


class InfrastructureError(RuntimeError):
    """Our own machinery failed: a crashed or stuck process. Never a candidate's fault, never a score."""


class Executor(Protocol):
    """Runs calls somewhere; answers arrive in futures."""

    slots: int

    def submit(
        self,
        call: Call[AnswerT],
        *,
        timeout: float | None = None,
        on_report: Report | None = None,
        on_ask: Ask | None = None,
    ) -> Future[AnswerT]:
        """Queue a call. The future raises InfrastructureError when its process died twice or ran past `timeout` s.

        `on_report` and `on_ask` are what its parent's `report` and `ask` do. The time of an answer is not the call's.
        """
        ...

    def close(self) -> None:
        """Stop everything now, running calls included."""
        ...


@dataclass
class _Job:
    call: Call[Any]
    timeout: float | None
    on_report: Report | None
    on_ask: Ask | None
    future: Future[Any] = field(default_factory=Future)


class LocalExecutor:
    """`slots` processes on this machine, each with `threads` CPU threads; GPUs are dealt out one per slot, in turn.

    With more slots than GPUs several processes share a GPU, which small networks do not fill alone.
    A process that dies is replaced and its call tried once more; a second death is an InfrastructureError.
    """

    def __init__(self, slots: int, *, threads: int, gpus: int = 0, log: Path | None = None) -> None:
        if slots < 1 or threads < 1:
            raise ValueError("slots and threads must be at least 1")
        self.slots = slots
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        names = _gpu_names(gpus)
        self._slots = [_Slot(threads, names[index % gpus] if gpus else "", log) for index in range(slots)]
        self._threads = [threading.Thread(target=self._serve, args=(slot,), daemon=True) for slot in self._slots]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> LocalExecutor:
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
    ) -> Future[AnswerT]:
        """See `Executor.submit`. `on_report` and `on_ask` are called in another thread than the caller's."""
        if self._closing.is_set():
            raise RuntimeError("the executor is closed")
        job = _Job(call, timeout, on_report, on_ask)
        self._queue.put(job)
        return job.future

    def close(self) -> None:
        """Kill the processes with all their children; futures that are not done raise InfrastructureError."""
        self._closing.set()
        for slot in self._slots:
            slot.stop()
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join(timeout=10)

    def _serve(self, slot: _Slot) -> None:
        while (job := self._queue.get()) is not None:
            if not job.future.set_running_or_notify_cancel():
                continue
            try:
                job.future.set_result(self._run(slot, job))
            except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to whoever waits for the future
                job.future.set_exception(error)
        slot.stop()

    def _run(self, slot: _Slot, job: _Job) -> Any:
        for attempt in (1, 2):
            if self._closing.is_set():
                raise InfrastructureError("the executor was closed while the evaluation was waiting or running")
            try:
                return slot.run(job)
            except _Crashed as crash:
                slot.stop()
                if attempt == 2:
                    raise InfrastructureError(f"an evaluation process died twice: {crash}") from None
        raise AssertionError("unreachable")


def _gpu_names(count: int) -> list[str]:
    """What CUDA_VISIBLE_DEVICES calls the first `count` usable GPUs: the user's own names where there is a choice."""
    chosen = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return chosen[:count] if len(chosen) >= count else [str(index) for index in range(count)]


def _reply(on_ask: Ask | None, question: Any) -> memoryview:
    """Pickled: whether there is an answer, and the answer or why there is none."""
    if on_ask is None:
        return ForkingPickler.dumps((False, "nobody answers the questions of this call"))
    try:
        return ForkingPickler.dumps((True, on_ask(question)))
    except Exception:  # noqa: BLE001 - the call that waits must hear of it, and fails by it
        return ForkingPickler.dumps((False, traceback.format_exc()))


class _Crashed(Exception):
    """The slot's process is gone."""


class _Slot:
    """One child process that answers calls; started when first needed."""

    def __init__(self, threads: int, gpu: str, log: Path | None) -> None:
        self._environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            "INITSEARCH_THREADS": str(threads),
            "CUDA_VISIBLE_DEVICES": gpu,
        }
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection[Any, Any] | None = None
        self._lock = threading.Lock()

    def run(self, job: _Job) -> Any:
        """Send one call, pass on what it reports and asks, return its answer. Raises _Crashed, InfrastructureError."""
        connection = self._connection or self._start()
        deadline = None if job.timeout is None else time.monotonic() + job.timeout
        try:
            connection.send(job.call)
            while True:
                remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
                if not connection.poll(remaining):
                    self.stop()
                    raise InfrastructureError(f"an evaluation did not finish within {job.timeout:.0f} s")
                kind, content = connection.recv()
                if kind == "report":
                    if job.on_report is not None:
                        job.on_report(content)
                elif kind == "ask":
                    asked = time.monotonic()
                    reply = _reply(job.on_ask, content)
                    if deadline is not None:
                        deadline += time.monotonic() - asked
                    try:
                        connection.send_bytes(reply)
                    except OSError as error:  # closed meanwhile
                        raise _Crashed(self._obituary(error)) from None
                elif kind == "answer":
                    return content
                else:
                    raise InfrastructureError(f"an evaluation failed in our own code:\n{content}")
        except (EOFError, ConnectionError, BrokenPipeError) as error:
            raise _Crashed(self._obituary(error)) from None

    def stop(self) -> None:
        """Kill the process and everything it started."""
        with self._lock:
            process, self._process = self._process, None
            connection, self._connection = self._connection, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if connection is not None:
            connection.close()

    def _start(self) -> Connection[Any, Any]:
        ours, theirs = socket.socketpair()
        # Our sys.path, given as such: the child finds the same packages whatever its working directory is.
        path = json.dumps(sys.path)
        script = f"import sys; sys.path[:] = {path}; from benchmark.slot import serve; serve({theirs.fileno()})"
        with contextlib.ExitStack() as stack:
            log: int | IO[bytes] = subprocess.DEVNULL
            if self._log is not None:
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
                log = stack.enter_context(os.fdopen(open_plain(self._log.parent, self._log.name, flags=flags), "ab"))
            process = subprocess.Popen(
                [sys.executable, "-c", script],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        theirs.close()
        connection: Connection[Any, Any] = Connection(ours.detach())
        with self._lock:
            self._process, self._connection = process, connection
        return connection

    def _obituary(self, error: Exception) -> str:
        code = None
        if self._process is not None:
            # The socket closes a moment before the process can be waited for.
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._process.wait(timeout=5)
        where = f"; see {self._log}" if self._log else ""
        return f"exit status {code} ({type(error).__name__}){where}"
