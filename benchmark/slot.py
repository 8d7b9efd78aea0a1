"""The process of one or more slots: it receives calls and sends reports, questions and answers."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
import sys
import threading
import traceback
from multiprocessing.connection import Connection
from typing import Any

from benchmark.lanes import GPU_LOST, UNHEARD, Gate, free_memory, is_out_of_memory, lost_gpu

_PR_SET_PDEATHSIG = 1


class _Parent:
    """See `benchmark.executors.Parent`."""

    def __init__(self, connection: Connection[Any, Any]) -> None:
        self._connection = connection
        self._sending = threading.Lock()

    def send(self, kind: str, content: Any) -> None:
        """Send a message. Threads of a user's trainer may report while another message is sent."""
        with self._sending:
            self._connection.send((kind, content))

    def report(self, content: Any) -> None:
        self.send("report", content)

    def ask(self, question: Any) -> Any:
        self.send("ask", question)
        answered, content = self._connection.recv()
        if not answered:
            raise RuntimeError(content)
        return content

    def note(self, text: str) -> None:
        """Tell the user something about the machine."""
        self.send("note", text)


def die_with_parent() -> bool:
    """Let the kernel kill this process when its parent ends, even by kill -9. Returns False if it has ended already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        return os.getppid() != 1
    return True


def serve(*descriptors: int) -> None:
    """Answer calls from the sockets `descriptors` until they are closed. Each has a thread, which is one lane.

    The process ignores SIGINT, which a terminal sends to all processes: only its parent stops it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not die_with_parent():
        return
    if len(descriptors) > 1:
        gc.disable()  # an import makes no garbage, and looking for it takes a tenth of the start
        import benchmark.train  # noqa: F401 - torch does not survive two threads that import it for the first time

        gc.enable()
    gate = Gate(len(descriptors))
    others = [threading.Thread(target=_serve_lane, args=(descriptor, gate)) for descriptor in descriptors[1:]]
    for other in others:
        other.start()
    _serve_lane(descriptors[0], gate)
    for other in others:
        other.join()


def _serve_lane(descriptor: int, gate: Gate) -> None:
    connection: Connection[Any, Any] = Connection(descriptor)
    parent = _Parent(connection)
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            call = connection.recv()
            try:
                kind, content = "answer", _answer(call, parent, gate)
            except Exception:  # noqa: BLE001 - the traceback is the answer
                kind, content = "error", traceback.format_exc()
                if lost_gpu():
                    print(content, file=sys.stderr, flush=True)
                    os._exit(GPU_LOST)  # the parent tries all calls of this process once more
            try:
                parent.send(kind, content)
            except ConnectionError:
                raise
            except OSError:  # the call has closed the descriptor
                os._exit(UNHEARD)


def _answer(call: Any, parent: _Parent, gate: Gate) -> Any:
    """Run the call. If memory does not suffice for all lanes, run it again when fewer train side by side."""
    while True:
        with gate:
            try:
                return call(parent)
            except Exception as error:
                if not is_out_of_memory(error) or not gate.narrow():
                    raise
        free_memory()
        parent.note(f"the GPU's memory does not suffice, so only {gate.width} evaluations share it from now on")
