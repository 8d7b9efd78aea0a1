"""The process behind one slot of the local executor: receives picklable calls, sends reports and one answer each."""

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


def serve(descriptor: int) -> None:
    """Answer calls from the socket `descriptor` until it is closed.

    The process ignores SIGINT, which a terminal sends to everybody: its parent decides when to stop it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        # A parent killed with -9 cannot stop us: ask the kernel to.
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() == 1:
            return
    connection: Connection[Any, Any] = Connection(descriptor)
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            call = connection.recv()
            try:
                answer = call(lambda content: connection.send(("report", content)))
            except Exception:  # noqa: BLE001 - the traceback is the answer
                connection.send(("error", traceback.format_exc()))
            else:
                connection.send(("answer", answer))
