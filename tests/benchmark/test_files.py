"""Opening what somebody else may have prepared."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmark.files import NotPlain, is_plain, open_plain, read_plain, read_regular, write_atomically, write_plain


def _linked_folder(root: Path) -> tuple[str, ...]:
    (root / "away").mkdir()
    (root / "away" / "file").write_text("x")
    (root / "folder").symlink_to(root / "away")
    return "folder", "file"


def _link(root: Path) -> tuple[str, ...]:
    (root / "away").write_text("x")
    (root / "file").symlink_to(root / "away")
    return ("file",)


def _pipe(root: Path) -> tuple[str, ...]:
    os.mkfifo(root / "file")
    return ("file",)


def _folder(root: Path) -> tuple[str, ...]:
    (root / "file").mkdir()
    return ("file",)


def _large(root: Path) -> tuple[str, ...]:
    (root / "file").write_bytes(bytes(101))
    return ("file",)


def _way_out(root: Path) -> tuple[str, ...]:
    (root.parent / "file").write_text("x")
    return ("../file",)


def _up(root: Path) -> tuple[str, ...]:
    (root.parent / "file").write_text("x")
    return "..", "file"


@pytest.mark.parametrize("prepare", [_linked_folder, _link, _pipe, _folder, _large, _way_out, _up])
def test_what_is_not_plain_is_not_read(tmp_path: Path, prepare: Callable[[Path], tuple[str, ...]]) -> None:
    """Refused at once, with the path in the message; a pipe is not waited for."""
    root = tmp_path / "root"
    root.mkdir()
    names = prepare(root)
    with pytest.raises(NotPlain, match=r"file|folder"):
        read_plain(root, *names, limit=100)


def test_plain_files_are_read_through_a_link_to_the_root(tmp_path: Path) -> None:
    """`runs/latest` is a link, and ours."""
    (tmp_path / "run" / "results").mkdir(parents=True)
    (tmp_path / "latest").symlink_to(tmp_path / "run")
    write_plain(tmp_path / "latest", "results", "a.json", data=b"1")
    assert read_plain(tmp_path / "latest", "results", "a.json", limit=1) == b"1"
    assert [path.name for path in (tmp_path / "run" / "results").iterdir()] == ["a.json"]
    assert is_plain(tmp_path / "run", "results", "a.json")
    assert not is_plain(tmp_path / "run", "results")
    with pytest.raises(FileNotFoundError, match=r"results/b\.json"):
        read_plain(tmp_path / "latest", "results", "b.json", limit=1)


def test_writing_never_leaves_the_folder(tmp_path: Path) -> None:
    """A link in the file's place is replaced, one in the folder's place is refused, and so is a second name."""
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "file").symlink_to(precious)
    write_atomically(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(NotPlain):
        write_plain(tmp_path, "link", "precious", data=b"bad")
    (tmp_path / "second").hardlink_to(precious)
    with pytest.raises(NotPlain, match="second name"):
        open_plain(tmp_path, "second", flags=os.O_WRONLY)
    assert precious.read_text() == "mine"


def test_a_users_own_link_is_followed_and_a_users_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """`--config`, `scripted:FILE` and data sets may be links."""
    (tmp_path / "real").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert read_regular(tmp_path / "link", limit=10) == b"x"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotPlain):
        read_regular(tmp_path / "pipe", limit=10)
