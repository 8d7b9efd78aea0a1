"""Landlock on this kernel, tried in a child process."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox import confine, landlock

pytestmark = pytest.mark.skipif(not landlock.abi(), reason="this kernel has no Landlock")


def restricted(readable: list[Path], attempt: Callable[[], object]) -> str:
    """Run `attempt` in a child under Landlock; return its outcome."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            confine.no_new_privs()
            landlock.restrict_self(landlock.create_ruleset(readable))
            attempt()
            os.write(writer, b"done")
        except BaseException as error:  # noqa: BLE001 - the test reads it
            os.write(writer, type(error).__name__.encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as stream:
        return stream.read().decode()


def test_only_what_is_listed_can_be_read(tmp_path: Path) -> None:
    """A candidate reads the code it may import and nothing beside it, even in the same folder."""
    for name in ("listed", "unlisted"):
        (tmp_path / name).write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inner").write_text("x")
    readable = [tmp_path / "listed", tmp_path / "folder", tmp_path / "absent"]
    assert restricted(readable, (tmp_path / "listed").read_text) == "done"
    assert restricted(readable, (tmp_path / "folder" / "inner").read_text) == "done"
    assert restricted(readable, lambda: list((tmp_path / "folder").iterdir())) == "done"
    assert restricted(readable, (tmp_path / "unlisted").read_text) == "PermissionError"
    assert restricted(readable, lambda: list(tmp_path.iterdir())) == "PermissionError"


def test_nothing_can_be_written_not_even_what_is_readable(tmp_path: Path) -> None:
    """Packages stay as they are for the next candidate and for everybody else."""
    (tmp_path / "file").write_text("x")
    assert restricted([tmp_path], lambda: (tmp_path / "file").write_text("y")) == "PermissionError"
    assert restricted([tmp_path], lambda: (tmp_path / "new").write_text("y")) == "PermissionError"
    assert restricted([tmp_path], (tmp_path / "file").unlink) == "PermissionError"
    assert restricted([tmp_path], lambda: (tmp_path / "file").rename(tmp_path / "other")) == "PermissionError"
    assert (tmp_path / "file").read_text() == "x"


def test_signals_and_abstract_sockets_stay_inside() -> None:
    """Where the kernel knows how (ABI 6), the trusted process cannot be signalled."""
    if landlock.abi() < 6:
        pytest.skip("this kernel's Landlock leaves signals alone; the system call filter does not")
    parent = os.getpid()
    assert restricted([], lambda: os.kill(parent, 0)) == "PermissionError"


def test_a_kernel_without_landlock_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """On an old kernel, or another system, the level is not offered."""
    monkeypatch.setattr("sys.platform", "darwin")
    assert landlock.abi() == 0
    with pytest.raises(OSError, match="no Landlock"):
        landlock.create_ruleset([])
