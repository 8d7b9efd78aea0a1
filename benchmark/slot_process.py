"""The child process of one or more slots: each slot has a socket of its own to it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

from benchmark.files import open_plain
from benchmark.fork_server import Forked, ForkServer
from benchmark.lanes import GPU_LOST


@dataclass(frozen=True)
class Running:
    """A process that was started, with our end of each slot's socket."""

    process: subprocess.Popen[bytes] | Forked
    connections: tuple[Connection[Any, Any], ...]

    def ended(self) -> bool:
        """Whether the process has ended."""
        try:
            self.process.wait(timeout=0)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """Kill the process and everything it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class SlotProcess:
    """Starts the process when a slot needs it, and again after it died: by `forks`, or as a new interpreter.

    `lanes` slots share it: on a GPU, kernels of two processes take turns, and those of two threads run side by side.
    Its death ends what all its slots were doing.
    """

    def __init__(
        self, environment: Mapping[str, str], log: Path | None, *, lanes: int = 1, forks: ForkServer | None = None
    ) -> None:
        self.environment = dict(environment)
        self._forks = forks
        self._log = log
        self._lanes = lanes
        self._running: Running | None = None
        self._lock = threading.Lock()

    def running(self) -> Running:
        """Return the process, after starting it if there is none."""
        with self._lock:
            if self._running is None:
                self._running = self._start()
            return self._running

    def stop(self, running: Running | None = None) -> None:
        """Kill the process, or only `running`, which another slot may have replaced already."""
        with self._lock:
            if self._running is not None and running in (None, self._running):
                self._running.kill()
                self._running = None

    @property
    def see_log(self) -> str:
        """Where the process said what; empty without a log."""
        return f"; see {self._log}" if self._log else ""

    def describe_exit(self, running: Running, error: Exception) -> tuple[str, int | None]:
        """Say how the process ended, with its exit status; None: it has not ended."""
        code = None
        # The socket closes a moment before the process can be waited for.
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = running.process.wait(timeout=5)
        what = "the GPU no longer answered, " if code == GPU_LOST else ""
        return f"{what}exit status {code} ({type(error).__name__}){self.see_log}", code

    def _start(self) -> Running:
        pairs = [socket.socketpair() for _ in range(self._lanes)]
        theirs = [pair[1].fileno() for pair in pairs]
        try:
            process: subprocess.Popen[bytes] | Forked
            if self._forks is not None:
                process = self._forks.fork(theirs)
            else:
                script = f"from benchmark.slot import serve; serve(*{theirs})"
                process = start_python(script, theirs, self.environment, self._log)
        finally:
            for _, other in pairs:
                other.close()
        return Running(process, tuple(Connection(ours.detach()) for ours, _ in pairs))


def start_python(
    script: str, descriptors: Sequence[int], environment: Mapping[str, str], log: Path | None
) -> subprocess.Popen[bytes]:
    """Start an interpreter with these descriptors open, which writes to `log`, and whose session is its own."""
    with contextlib.ExitStack() as stack:
        output: int | IO[bytes] = subprocess.DEVNULL
        if log is not None:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            output = stack.enter_context(os.fdopen(open_plain(log.parent, log.name, flags=flags), "ab"))
        return subprocess.Popen(
            # Pass our sys.path, so that the child finds the same packages from any working directory.
            [sys.executable, "-c", f"import sys; sys.path[:] = {json.dumps(sys.path)}; {script}"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(environment),
            pass_fds=descriptors,
            start_new_session=True,
        )
