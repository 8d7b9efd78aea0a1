"""Removes prepared data sets that nobody uses any more. A task file that is given again makes its own anew."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
import time
from pathlib import Path

MOST_BYTES = 20 * 2**30
"""Beyond this size in all, the data sets that were not used for longest are removed."""
UNUSED_SECONDS = 30 * 86_400
"""After so long a data set is removed, whatever its size."""
FRESH_SECONDS = 86_400
"""A data set that was used since is kept in any case: a process may be about to read it."""
_IN_USE = ".in-use"
_OURS = re.compile(r"[0-9a-f]{64}|\.(new|old)-\w+")
_held: dict[Path, int] = {}


def mark_used(place: Path) -> None:
    """Note that the data set in the folder `place` is used now. Raises FileNotFoundError where it is gone."""
    with contextlib.suppress(PermissionError):  # somebody else's, or read-only
        os.utime(place)


def hold(place: Path) -> None:
    """Keep the data set in `place` as long as this process lives. Without effect where files cannot be locked."""
    if place not in _held:
        with contextlib.suppress(OSError):
            _held[place] = os.open(place / _IN_USE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            fcntl.flock(_held[place], fcntl.LOCK_SH)


def prune(folder: Path, keep: Path) -> None:
    """Remove what is unused in the folder of all data sets, but not `keep`, nor what a process holds."""
    found = []
    for place in folder.iterdir():
        with contextlib.suppress(OSError):  # another process removes it, too
            if _OURS.fullmatch(place.name) and place.is_dir() and not place.is_symlink():
                size = sum(file.stat().st_size for file in place.iterdir())
                found.append((place.stat().st_mtime, size, place))
    total, now = sum(size for _, size, _ in found), time.time()
    for used, size, place in sorted(found):
        unused = now - used
        if unused < FRESH_SECONDS or (unused < UNUSED_SECONDS and total <= MOST_BYTES):
            break
        if place != keep and _removed(place, used):
            total -= size


def _removed(place: Path, used: float) -> bool:
    """Remove a data set that was last used then, unless a process holds it or has used it since."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        if (place / _IN_USE).exists():
            descriptor = os.open(place / _IN_USE, os.O_RDWR | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if place.stat().st_mtime != used:
            return False
        old = Path(tempfile.mkdtemp(dir=place.parent, prefix=".old-"))
        place.rename(old)  # at once, so that nobody finds a part of it
        shutil.rmtree(old, ignore_errors=True)
        return True
    return False
