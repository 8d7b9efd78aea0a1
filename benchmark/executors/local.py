"""Runs evaluations on this machine: one persistent process per slot."""

from __future__ import annotations

import contextlib
import itertools
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
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import IO, Any

from benchmark.executors.seam import AnswerT, Ask, Call, InfrastructureError, OnStart, Priority, Report
from benchmark.files import open_plain


@dataclass
class _Job:
    call: Call[Any]
    timeout: float | None
    on_report: Report | None
    on_ask: Ask | None
    on_start: OnStart | None
    future: Future[Any] = field(default_factory=Future)


class LocalExecutor:
    """Runs `slots` processes on this machine, each with `threads` CPU threads. Slots get GPUs in turn, one each.

    If there are more slots than GPUs, several processes share a GPU, since one small network does not fill it.
    A process that dies is replaced and its call retried once. A second death is an InfrastructureError.
    """

    remote = False

    def __init__(
        self,
        slots: int,
        *,
        threads: int,
        gpus: int = 0,
        log: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """`environ`: the environment variables of the processes; None: those of this process."""
        if slots < 1 or threads < 1:
            raise ValueError("slots and threads must be at least 1")
        self.slots = slots
        self._queue: queue.PriorityQueue[tuple[Priority, int, _Job | None]] = queue.PriorityQueue()
        self._order = itertools.count()
        self._closing = threading.Event()
        names = _gpu_names(gpus)
        inherited = dict(os.environ if environ is None else environ)
        self._slots = [
            _Slot(index + 1, threads, names[index % gpus] if gpus else "", log, inherited) for index in range(slots)
        ]
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
        on_start: OnStart | None = None,
        priority: Priority = (),
    ) -> Future[AnswerT]:
        """See `Executor.submit`."""
        if self._closing.is_set():
            raise RuntimeError("the executor is closed")
        job = _Job(call, timeout, on_report, on_ask, on_start)
        self._queue.put((priority, next(self._order), job))
        return job.future

    def close(self) -> None:
        """Kill the processes with all their children. Unfinished futures raise InfrastructureError."""
        self._closing.set()
        for slot in self._slots:
            slot.stop()
        for _ in self._threads:
            self._queue.put(((), next(self._order), None))
        for thread in self._threads:
            thread.join(timeout=10)

    def _serve(self, slot: _Slot) -> None:
        while (job := self._queue.get()[2]) is not None:
            if not job.future.set_running_or_notify_cancel():
                continue
            try:
                job.future.set_result(self._run(slot, job))
            except BaseException as error:  # noqa: BLE001 - the future passes every error on
                job.future.set_exception(error)
        slot.stop()

    def _run(self, slot: _Slot, job: _Job) -> Any:
        for attempt in (1, 2):
            if self._closing.is_set():
                raise InfrastructureError("the executor was closed while the evaluation was waiting or running")
            if job.on_start is not None:
                job.on_start(f"slot {slot.number}")
            try:
                return slot.run(job)
            except _Crashed as crash:
                slot.stop()
                if attempt == 2:
                    raise InfrastructureError(f"an evaluation process died twice: {crash}") from None
        raise AssertionError("unreachable")


def _gpu_names(count: int) -> list[str]:
    """Return the names of the first `count` GPUs for CUDA_VISIBLE_DEVICES; they keep the user's names, if set."""
    chosen = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return chosen[:count] if len(chosen) >= count else [str(index) for index in range(count)]


def _reply(on_ask: Ask | None, question: Any) -> memoryview:
    """Answer a question. Return, pickled, whether there is an answer, and the answer or the reason."""
    if on_ask is None:
        return ForkingPickler.dumps((False, "nobody answers the questions of this call"))
    try:
        return ForkingPickler.dumps((True, on_ask(question)))
    except Exception:  # noqa: BLE001 - the waiting call must receive the error
        return ForkingPickler.dumps((False, traceback.format_exc()))


class _Crashed(Exception):
    """The slot's process has ended."""


class _Slot:
    """One child process that answers calls. The first call starts it."""

    def __init__(self, number: int, threads: int, gpu: str, log: Path | None, inherited: Mapping[str, str]) -> None:
        self.number = number
        self._environment = {
            **inherited,
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
        """Send one call, handle its reports and questions, return its answer. Raises _Crashed, InfrastructureError."""
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
                    except OSError as error:  # the socket was closed meanwhile
                        raise _Crashed(self._describe_exit(error)) from None
                elif kind == "answer":
                    return content
                else:
                    raise InfrastructureError(f"an evaluation failed in our own code:\n{content}")
        except (EOFError, ConnectionError, BrokenPipeError) as error:
            raise _Crashed(self._describe_exit(error)) from None

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
        # Pass our sys.path, so that the child finds the same packages from any working directory.
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

    def _describe_exit(self, error: Exception) -> str:
        code = None
        if self._process is not None:
            # The socket closes a moment before the process can be waited for.
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._process.wait(timeout=5)
        where = f"; see {self._log}" if self._log else ""
        return f"exit status {code} ({type(error).__name__}){where}"
