"""The process of one slot of the local executor: it receives calls and sends reports, questions and answers."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import traceback
from multiprocessing.connection import Connection
from typing import Any

_PR_SET_PDEATHSIG = 1


class _Parent:
    """See `benchmark.executors.Parent`."""

    def __init__(self, connection: Connection[Any, Any]) -> None:
        self._connection = connection

    def report(self, content: Any) -> None:
        self._connection.send(("report", content))

    def ask(self, question: Any) -> Any:
        self._connection.send(("ask", question))
        answered, content = self._connection.recv()
        if not answered:
            raise RuntimeError(content)
        return content


def serve(descriptor: int) -> None:
    """Answer calls from the socket `descriptor` until it is closed.

    The process ignores SIGINT, which a terminal sends to all processes: only its parent stops it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        # A parent that was killed with -9 cannot stop this process, so the kernel does.
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() == 1:
            return
    connection: Connection[Any, Any] = Connection(descriptor)
    parent = _Parent(connection)
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            call = connection.recv()
            try:
                answer = call(parent)
            except Exception:  # noqa: BLE001 - the traceback is the answer
                connection.send(("error", traceback.format_exc()))
            else:
                connection.send(("answer", answer))
