"""What surrounds code of a user's own in this process: it may do anything, and what comes after it is not changed."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def contained(seconds: float | None = None) -> Iterator[None]:
    """Run the user's code and keep what the next one relies on.

    A process that the code forks, and that comes to the end of the block as well, ends there. The folder and torch's
    defaults (type, device, gradients, threads) are as before. In the main thread, code that takes over `seconds` gets a
    TimeoutError.
    """
    import torch

    pid, code, folder = os.getpid(), 1, None
    with contextlib.suppress(OSError):
        folder = Path.cwd()
    dtype, grad, threads = torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()
    device = torch.get_default_device()
    timed = seconds is not None and threading.current_thread() is threading.main_thread()
    if timed and seconds is not None:
        handler = signal.signal(signal.SIGALRM, functools.partial(_too_long, seconds))
        signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
        code = 0
    finally:
        if os.getpid() != pid:
            os._exit(code)
        if timed:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, handler)
        if folder is not None:
            with contextlib.suppress(OSError):  # the user's code may have removed it
                os.chdir(folder)
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(grad)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        if torch.get_default_device() != device:
            torch.set_default_device(device if device.type != "cpu" else None)


def _too_long(seconds: float, number: int, frame: object) -> None:
    raise TimeoutError(f"it did not return within {seconds:g} s")
