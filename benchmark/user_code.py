"""What surrounds code of a user's own in this process: it may do anything, and what comes after it is not changed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def contained() -> Iterator[None]:
    """Run the user's code and keep what the next one relies on.

    A process that the code forks, and that comes to the end of the block as well, ends there. The folder and torch's
    defaults (type, device, gradients, threads) are as before.
    """
    import torch

    pid, code, folder = os.getpid(), 1, None
    with contextlib.suppress(OSError):
        folder = Path.cwd()
    dtype, grad, threads = torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()
    device = torch.get_default_device()
    try:
        yield
        code = 0
    finally:
        if os.getpid() != pid:
            os._exit(code)
        if folder is not None:
            with contextlib.suppress(OSError):  # the user's code may have removed it
                os.chdir(folder)
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(grad)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        if torch.get_default_device() != device:
            torch.set_default_device(device if device.type != "cpu" else None)
