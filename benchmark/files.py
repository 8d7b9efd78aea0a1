"""Safe access to files that may be hostile: follow no link, open only regular files, limit sizes.

A run directory or a result store may come from another person. A link in it could lead a reader or writer outside, a
named pipe would make a reader wait for ever, and a huge file would fill the memory.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_CAREFUL = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
"""With O_NONBLOCK, opening a named pipe does not wait for its other end."""


class NotPlain(OSError):
    """The path is a link, pipe, socket, device or folder, or the file exceeds its size limit."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(errno.EINVAL, reason, str(path))

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


def open_plain(root: Path, *names: str, flags: int = os.O_RDONLY) -> int:
    """Open the regular file `root`/`names`; return a descriptor. Links may lead to `root`, but not below it.

    A file to write must have only one name: a second hard link could be a file of another person.
    Raises NotPlain, FileNotFoundError, or another OSError.
    """
    path = root.joinpath(*names)
    folder = open_folder(root, *names[:-1])
    try:
        try:
            handle = os.open(_name(path, names[-1]), flags | _CAREFUL, 0o644, dir_fd=folder)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
                raise NotPlain(path, _NOT_REGULAR) from None
            raise _named(error, path) from None
    finally:
        os.close(folder)
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or (flags & (os.O_WRONLY | os.O_RDWR) and found.st_nlink != 1):
        os.close(handle)
        raise NotPlain(path, _NOT_REGULAR if not stat.S_ISREG(found.st_mode) else "has a second name (a hard link)")
    return handle


def open_folder(root: Path, *names: str) -> int:
    """Open the folder `root`/`names`; return a descriptor. Raises like `open_plain`."""
    path = root
    folder = os.open(root, _FOLDER)
    for name in names:
        path = path / name
        try:
            inner = os.open(_name(path, name), _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise NotPlain(path, "a link or a file where a folder belongs; nothing in it is used") from None
            raise _named(error, path) from None
        finally:
            os.close(folder)
        folder = inner
    return folder


def read_plain(root: Path, *names: str, limit: int) -> bytes:
    """Return all bytes of the regular file `root`/`names`, at most `limit`. Raises like `open_plain`."""
    return _read(open_plain(root, *names), root.joinpath(*names), limit)


def read_regular(path: Path, *, limit: int) -> bytes:
    """Read a file that the user names, like `read_plain`, but follow links to it."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise NotPlain(path, _NOT_REGULAR)
    return _read(handle, path, limit)


def read_toml(path: Path, *, limit: int) -> dict[str, Any]:
    """The content of a TOML file of at most `limit` bytes. Raises OSError, and ValueError where it is no TOML."""
    try:
        return tomllib.loads(read_regular(path, limit=limit).decode("utf-8-sig"))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("it is no text in UTF-8; save it as UTF-8") from None


def is_plain(root: Path, *names: str) -> bool:
    """Whether `open_plain` can open a regular file there."""
    try:
        os.close(open_plain(root, *names))
    except (OSError, ValueError):
        return False
    return True


def write_plain(root: Path, *names: str, data: bytes) -> None:
    """Write a file beside `root`/`names`, flush it, rename it into place, flush the folder. Follow no link.

    Raises OSError. Leaves no temporary file.
    """
    folder = open_folder(root, *names[:-1])
    try:
        _write(folder, root.joinpath(*names), data)
    finally:
        os.close(folder)


def write_in_place(root: Path, *names: str, data: bytes) -> None:
    """Overwrite a short file that is there, and keep its inode and the locks on it. Raises like `open_plain`."""
    handle = open_plain(root, *names, flags=os.O_WRONLY | os.O_TRUNC)
    try:
        os.write(handle, data)
    finally:
        os.close(handle)


def write_atomically(path: Path, *parts: bytes | memoryview, durable: bool = True) -> None:
    """Write a file like `write_plain`, but follow links to its folder. A link at `path` is replaced.

    `durable`: flush the file and its folder to the disk.
    """
    folder = open_folder(path.parent)
    try:
        _write(folder, path, *parts, durable=durable)
    finally:
        os.close(folder)


@contextlib.contextmanager
def staged(path: Path, data: bytes) -> Iterator[Path]:
    """Write `data` to a temporary file beside `path`, so that the caller's rename needs no more disk space.

    The file is removed at the end unless the caller has renamed it. Raises OSError.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


_NOT_REGULAR = "a link, pipe, socket, device or folder where a regular file belongs; it is not opened"


def _write(folder: int, path: Path, *parts: bytes | memoryview, durable: bool = True) -> None:
    temporary = f".{path.name}.{secrets.token_hex(4)}.tmp"
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _CAREFUL, 0o666, dir_fd=folder)
        with os.fdopen(handle, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            if durable:
                os.fsync(handle)
        os.replace(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)
        if isinstance(error, OSError):
            raise _named(error, path) from None
        raise
    if durable:
        os.fsync(folder)


def _read(handle: int, path: Path, limit: int) -> bytes:
    with os.fdopen(handle, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise NotPlain(path, f"larger than {limit:,} bytes, which it cannot be; it is not read")
    return data


def _name(path: Path, name: str) -> str:
    """Return `name` if it is a plain entry of a folder. Raises NotPlain for a name that leads elsewhere."""
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise NotPlain(path, "not the name of a file")
    return name


def _named(error: OSError, path: Path) -> OSError:
    """Return the same error with the whole path: the system's message has only the last name."""
    return error if isinstance(error, NotPlain) else OSError(error.errno, error.strerror, str(path))
