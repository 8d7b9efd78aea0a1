"""Several trainings in one process, each in a thread: a *lane*. On a GPU they share the card and the data on it."""

from __future__ import annotations

import sys
import threading

MOST_LANES = 32
"""torch has that many streams for a process."""


GPU_LOST = 70
"""Exit status of a process whose GPU answers every call with an error. A new process may be able to use it."""

UNHEARD = 71
"""Exit status of a process whose call has closed the connection to us."""


class Gate:
    """Lets `width` lanes train at a time. It narrows when the memory does not suffice for all of them."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._inside = 0
        self._changed = threading.Condition()

    def __enter__(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._inside < self.width)
            self._inside += 1

    def __exit__(self, *exc_info: object) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    def narrow(self) -> bool:
        """Called by a lane inside that lacks memory: let one lane less in. Return False if it was alone."""
        with self._changed:
            if self._inside == 1:
                return False
            self.width = min(self.width, self._inside - 1)
            return True


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch could not allocate memory on a device."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.OutOfMemoryError)


def free_memory() -> None:
    """Give memory that this process holds and does not use back to the device."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def lost_gpu() -> bool:
    """Whether this process used a GPU and can no longer: after some errors CUDA fails until the process ends."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False
