"""Copies of users' data in the cache: the unused ones go, oldest first, and none that a process works with."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmark.data import unused
from benchmark.data.arrays import Arrays
from benchmark.data.prepared import folder, prepare
from benchmark.task import Prepared

DAY = 86_400
HOLD = """
import sys
from pathlib import Path
from benchmark.data.unused import hold
hold(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INITSEARCH_CACHE_DIR", str(tmp_path / "cache"))


def kept(brightness: int, *, days: float = 0.0) -> Prepared:
    """A small data set in the cache, last used so many days ago."""
    labels = np.arange(4, dtype=np.int64) % 2
    images = np.full((4, 1, 8, 8), brightness, dtype=np.uint8)
    made = prepare(Arrays(images, labels, images, labels))
    used = time.time() - days * DAY
    os.utime(made.folder, (used, used))
    return made


def there(*sets: Prepared) -> list[bool]:
    return [one.folder.is_dir() for one in sets]


def test_what_was_not_used_for_a_month_goes_and_is_made_again() -> None:
    """The folder only ever grew."""
    now = kept(3)
    month, week = kept(1, days=31), kept(2, days=7)
    (folder() / ".new-abc").mkdir()  # of a process that was killed
    os.utime(folder() / ".new-abc", (0, 0))
    (folder() / "notes").mkdir()
    os.utime(folder() / "notes", (0, 0))
    kept(3)
    assert there(month, week, now) == [False, True, True]
    assert {path.name for path in folder().iterdir()} == {now.sha256, week.sha256, "notes"}
    assert kept(1) == month
    assert there(month) == [True]


def test_the_oldest_go_where_all_take_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    size = sum(path.stat().st_size for path in kept(1).folder.iterdir())
    monkeypatch.setattr(unused, "MOST_BYTES", 3 * size)
    sets = [kept(brightness, days=days) for brightness, days in ((1, 3), (2, 5), (3, 4), (4, 0.5))]
    kept(5)
    assert there(*sets) == [True, False, False, True]
    monkeypatch.setattr(unused, "MOST_BYTES", 0)
    kept(5)
    assert there(*sets) == [False, False, False, True]  # used on the last day


def test_what_a_process_works_with_stays() -> None:
    """A search of many days reads the data of its hidden task at its end."""
    one = kept(1)
    command = [sys.executable, "-c", HOLD, str(one.folder)]
    root = str(Path(__file__).parents[2])
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root, env={**os.environ, "PYTHONPATH": root}
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        os.utime(one.folder, (0, 0))
        kept(2)
        assert there(one) == [True]
        process.communicate()
    kept(2)
    assert there(one) == [False]


def test_a_link_is_left_alone() -> None:
    """It may lead to a folder that somebody shares."""
    one = kept(1, days=40)
    shutil.rmtree(one.folder)
    one.folder.symlink_to(folder().parent / "elsewhere")
    (folder().parent / "elsewhere").mkdir()
    os.utime(folder().parent / "elsewhere", (0, 0))
    kept(2)
    assert one.folder.is_symlink()
