"""Forks the processes of several slots from one that has imported torch, which would take seconds in each."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from benchmark.lanes import MOST_LANES

_GONE_SECONDS = 5.0
Start = Callable[[str, Sequence[int]], "subprocess.Popen[bytes]"]
"""Starts `python -c script` with these descriptors open."""


class ForkServerDied(ConnectionError):
    """The process that forks has ended, or was told to."""


class Forked:
    """A forked process, with what is used of `subprocess.Popen`."""

    def __init__(self, server: ForkServer, pid: int) -> None:
        self._server, self.pid = server, pid
        self._status: int | None = None

    def wait(self, timeout: float = _GONE_SECONDS) -> int:
        """Return the exit status, negative for a signal. Raises subprocess.TimeoutExpired."""
        if self._status is None:
            try:
                answer = self._server.ask(f"wait {self.pid} {timeout}", ())
            except ForkServerDied:
                answer = _gone(self.pid)
            if answer == "running":
                raise subprocess.TimeoutExpired("slot", timeout)
            self._status = int(answer)
        return self._status


class ForkServer:
    """Our side. `start` starts the server at the first fork, and again if it died."""

    def __init__(self, start: Start) -> None:
        self._start = start
        self._asking = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._orders: socket.socket | None = None
        self._closing = False

    def begin(self) -> None:
        """Start the server now unless it runs. The kernel ends it with the thread that started it."""
        with self._asking:
            self._connection(start=True)

    def fork(self, descriptors: Sequence[int]) -> Forked:
        """Start a process that serves these sockets (see `benchmark.slot.serve`). Raises ForkServerDied."""
        return Forked(self, int(self.ask("fork", descriptors)))

    def ask(self, order: str, descriptors: Sequence[int]) -> str:
        """Send an order and return the answer. Raises ForkServerDied."""
        with self._asking:
            try:
                orders = self._connection(start=order == "fork")
                socket.send_fds(orders, [order.encode()], descriptors)
                if answer := orders.recv(64).decode():
                    return answer
            except OSError:
                pass
            self._end()
            raise ForkServerDied("the process that starts the slots' processes has ended")

    def abandon(self) -> None:
        """Fork no more, and let nobody wait for a server that still imports torch."""
        self._closing = True
        if self._asking.locked() and (process := self._process) is not None:
            process.kill()

    def close(self) -> None:
        """End the server. Its forks die with it."""
        self._closing = True
        with self._asking:
            self._end()

    def _connection(self, *, start: bool) -> socket.socket:
        if self._orders is None:
            if self._closing or not start:
                raise BrokenPipeError
            self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                script = f"from benchmark.fork_server import serve; serve({theirs.fileno()})"
                self._process = self._start(script, [theirs.fileno()])
        return self._orders

    def _end(self) -> None:
        process, orders = self._process, self._orders
        self._process = self._orders = None
        if process is not None:
            process.kill()
            process.wait()
        if orders is not None:
            orders.close()


def serve(control: int) -> None:
    """The server: carry out orders from the socket `control` until it is closed. It trains nothing."""
    from benchmark.slot import die_with_parent
    from benchmark.slot import serve as serve_slots

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not die_with_parent():
        return
    gc.disable()  # an import makes no garbage, and looking for it takes a tenth of the start
    import benchmark.train  # noqa: F401

    gc.enable()
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=control) as orders:
        while True:
            order, descriptors, _, _ = socket.recv_fds(orders, 64, MOST_LANES)
            match order.decode().split():
                case ["fork"]:
                    child = os.fork()
                    if child == 0:
                        _become_a_slot(serve_slots, descriptors, orders)
                    with contextlib.suppress(OSError):  # whichever comes first: the child is to lead a group at once
                        os.setpgid(child, child)
                    for descriptor in descriptors:
                        os.close(descriptor)
                    orders.send(str(child).encode())
                case ["wait", pid, seconds]:
                    orders.send(_waited(int(pid), float(seconds)).encode())
                case _:
                    return


def _become_a_slot(work: Callable[..., None], descriptors: Sequence[int], orders: socket.socket) -> NoReturn:
    """What a forked process does. It leads a group, so that it can be killed with all that it starts."""
    code = 1
    try:
        os.setpgid(0, 0)
        orders.close()
        work(*descriptors)
        code = 0
    except BaseException:  # noqa: BLE001 - nothing may reach the server's loop
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _waited(pid: int, seconds: float) -> str:
    """The exit status of a child, or "running" after so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return str(os.waitstatus_to_exitcode(status))
        if time.monotonic() >= deadline:
            return "running"
        time.sleep(0.002)


def _gone(pid: int) -> str:
    """Wait for a process whose parent has died, and is dying with it."""
    deadline = time.monotonic() + _GONE_SECONDS
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.kill(pid, 0)
            time.sleep(0.005)
    return str(-signal.SIGKILL)
