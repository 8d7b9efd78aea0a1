"""Runs evaluations on this machine: one persistent process per slot."""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

from benchmark.executors.seam import Ask, InfrastructureError, ProcessDied, TookTooLong
from benchmark.executors.waiting import QueueExecutor, SubmittedCall
from benchmark.fork_server import ForkServer, ForkServerDied
from benchmark.slot_process import Running, SlotProcess, start_python


class LocalExecutor(QueueExecutor):
    """Runs `slots` evaluations side by side on this machine, each with `threads` CPU threads.

    On a CPU the slots' processes are forks of one that has imported torch.
    Slots get GPUs in turn. All slots of a GPU are lanes of one process, since one small network does not fill it and
    processes would take turns. Without a GPU, `lanes` slots share a process: one, but in tests.
    A process that dies is replaced and its calls are retried once. A second death raises ProcessDied.
    `say` gets sentences for the user, such as that the memory does not suffice for all lanes.
    """

    remote = False

    def __init__(
        self,
        slots: int,
        *,
        threads: int,
        gpus: int = 0,
        log: Path | None = None,
        lanes: int = 1,
        say: Callable[[str], None] | None = None,
        environ: Mapping[str, str] | None = None,
        forks: ForkServer | None = None,
    ) -> None:
        """`environ`: the environment variables of the processes; None: those of this process.

        `forks`: a server that is kept for later executors, and is not closed with this one. The kernel ends it with the
        thread that makes the first of them.
        """
        if slots < 1 or threads < 1:
            raise ValueError("slots and threads must be at least 1")
        super().__init__()
        self.slots = slots
        count = min(gpus, slots) or -(-slots // lanes)
        names = _gpu_names(gpus) if gpus else [""] * count
        inherited = _environment(threads, environ)
        # A GPU's driver does not survive a fork, and each GPU has one process anyway.
        self._forks = None
        if forks is not None:
            forks.begin()
        elif count > 1 and not gpus and sys.platform == "linux":
            forks = self._forks = fork_server(threads, environ, log)
        shared = [
            SlotProcess(
                inherited | {"CUDA_VISIBLE_DEVICES": names[index]},
                log,
                lanes=len(range(index, slots, count)),
                forks=forks,
            )
            for index in range(count)
        ]
        self._slots = [_Slot(index + 1, shared[index % count], index // count, say) for index in range(slots)]
        self._threads = [threading.Thread(target=self._serve, args=(slot,), daemon=True) for slot in self._slots]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Kill the processes with all their children. Unfinished futures raise InfrastructureError."""
        self._closing.set()
        if self._forks is not None:
            self._forks.abandon()
        for slot in self._slots:
            slot.stop()
        if self._forks is not None:
            self._forks.close()
        self._end_waiting()
        for thread in self._threads:
            thread.join(timeout=10)
        self._fail_waiting("the executor was closed while the evaluation was waiting")

    def _serve(self, slot: _Slot) -> None:
        while (job := self._take()) is not None:
            try:
                job.future.set_result(self._run(slot, job))
            except BaseException as error:  # noqa: BLE001 - the future passes every error on
                job.future.set_exception(error)
        slot.stop()

    def _run(self, slot: _Slot, job: SubmittedCall) -> Any:
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
                    raise ProcessDied(f"an evaluation process died twice: {crash}", crash.status) from None
        raise AssertionError("unreachable")


def fork_server(threads: int, environ: Mapping[str, str] | None = None, log: Path | None = None) -> ForkServer:
    """Return a server, not yet started, whose forks train on the CPU; see `LocalExecutor`."""
    on_cpu = _environment(threads, environ) | {"CUDA_VISIBLE_DEVICES": ""}
    return ForkServer(lambda script, descriptors: start_python(script, descriptors, on_cpu, log))


def _environment(threads: int, environ: Mapping[str, str] | None) -> dict[str, str]:
    numbers = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "INITSEARCH_THREADS"), str(threads))
    return dict(os.environ if environ is None else environ) | numbers


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


_LOOK = 0.5
"""Seconds between looks whether a silent process lives: what it has forked may hold its socket open after its end."""


def _heard(connection: Connection[Any, Any], running: Running, deadline: float | None) -> bool:
    """Wait for a message. False: there is none at the deadline. Raises EOFError if the process has ended."""
    while not connection.poll(_LOOK if deadline is None else min(_LOOK, deadline - time.monotonic())):
        if deadline is not None and time.monotonic() >= deadline:
            return False
        if running.ended() and not connection.poll():
            raise EOFError
    return True


class _Crashed(Exception):
    """The slot's process has ended, or closed its connection. `status`: see `ProcessDied`."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class _Slot:
    """One lane of a child process, which answers calls. The first call starts the process."""

    def __init__(self, number: int, process: SlotProcess, lane: int, say: Callable[[str], None] | None) -> None:
        self.number = number
        self._process, self._lane, self._say = process, lane, say
        self._running: Running | None = None

    @property
    def _environment(self) -> dict[str, str]:
        return self._process.environment

    def run(self, job: SubmittedCall) -> Any:
        """Send one call, handle its reports and questions, return its answer. Raises _Crashed, InfrastructureError."""
        try:
            running = self._running = self._process.running()
        except ForkServerDied as error:
            raise _Crashed(f"{error}{self._process.see_log}") from None
        connection = running.connections[self._lane]
        deadline = None if job.timeout is None else time.monotonic() + job.timeout
        try:
            connection.send(job.call)
            while True:
                if not _heard(connection, running, deadline):
                    self.stop()
                    raise TookTooLong(f"an evaluation did not finish within {job.timeout:.0f} s")
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
                        raise _Crashed(*self._process.describe_exit(running, error)) from None
                elif kind == "note":
                    if self._say is not None:
                        self._say(content)
                elif kind == "answer":
                    return content
                else:
                    raise InfrastructureError(f"an evaluation failed in our own code:\n{content}")
        except (EOFError, ConnectionError, BrokenPipeError) as error:
            raise _Crashed(*self._process.describe_exit(running, error)) from None

    def stop(self) -> None:
        """Kill the process that answered the last call, with everything it started and all its lanes."""
        running, self._running = self._running, None
        if running is not None:
            self._process.stop(running)
            running.connections[self._lane].close()
