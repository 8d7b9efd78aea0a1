"""Writing a file so that a crash leaves the old one or the new one, never half of one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomically(path: Path, *parts: bytes | memoryview, durable: bool = True) -> None:
    """Write `parts` beside `path`, rename the file into place and, when `durable`, flush it and its folder to the disk.

    A link at `path` is replaced, not followed. Raises OSError and then leaves no temporary file.
    """
    with staged(path, *parts, durable=durable) as temporary:
        temporary.replace(path)
    if durable:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def staged(path: Path, *parts: bytes | memoryview, durable: bool = True) -> Iterator[Path]:
    """A temporary file beside `path` that holds `parts`, so that the caller's rename into place needs no further space.

    The file is removed at the end unless the caller has renamed it. Raises OSError.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
