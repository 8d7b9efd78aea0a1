"""The processes of several slots on a CPU: forks of one that has imported torch."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmark.executors import InfrastructureError, LocalExecutor, Parent
from tests.benchmark.test_executor import DieAlways, DieOnce, Environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks them")


@dataclass(frozen=True)
class Family:
    """Returns this process, its group and its parent, once two calls are inside."""

    folder: Path
    name: str

    def __call__(self, parent: Parent) -> tuple[int, int, int]:
        (self.folder / self.name).touch()
        while len(list(self.folder.iterdir())) < 2:
            time.sleep(0.01)
        assert "torch" in sys.modules
        return os.getpid(), os.getpgrp(), os.getppid()


@dataclass(frozen=True)
class KillServerOnce(Family):
    """Kills the process that forks, the first time."""

    def __call__(self, parent: Parent) -> tuple[int, int, int]:
        marker = self.folder.with_suffix(f".{self.name}")
        first = not marker.exists()
        marker.touch()  # before both are inside, so before either dies
        found = super().__call__(parent)
        if first:
            if self.name == "a":
                os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(60)
        return found


@pytest.fixture(scope="module")
def executor() -> Iterator[LocalExecutor]:
    with LocalExecutor(2, threads=1) as executor:
        yield executor


def family(executor: LocalExecutor, folder: Path, kind: type[Family] = Family) -> list[tuple[int, int, int]]:
    folder.mkdir()
    futures = [executor.submit(kind(folder, name)) for name in ("a", "b")]
    return [future.result(timeout=60) for future in futures]


def test_slots_are_forks_of_one_process(executor: LocalExecutor, tmp_path: Path) -> None:
    """Each leads a group, so that it can be killed with all that it starts; torch is there already."""
    (one, group, server), (other, other_group, other_server) = family(executor, tmp_path / "inside")
    assert (one, other) == (group, other_group)
    assert one != other
    assert server == other_server != os.getpid()
    names = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
    assert executor.submit(Environment(names)).result(timeout=60) == {names[0]: "1", names[1]: ""}


def test_a_slot_that_dies_is_forked_again(executor: LocalExecutor, tmp_path: Path) -> None:
    """The call is tried again, and the error of the second death has the exit status."""
    assert executor.submit(DieOnce(tmp_path / "marker")).result(timeout=60) == "second try"
    with pytest.raises(InfrastructureError, match=r"died twice.*exit status 9"):
        executor.submit(DieAlways()).result(timeout=60)


def test_the_server_of_the_slots_is_killed(executor: LocalExecutor, tmp_path: Path) -> None:
    """Its slots die with it. Their calls run again in forks of a new one."""
    before = family(executor, tmp_path / "before")
    after = family(executor, tmp_path / "after", KillServerOnce)
    assert {server for _, _, server in after}.isdisjoint({server for _, _, server in before})
    assert len({server for _, _, server in after}) == 1


def test_a_server_that_cannot_start_is_an_error(tmp_path: Path) -> None:
    """It names the file that says why, and nobody waits for ever."""
    (tmp_path / "torch.py").write_text("raise ImportError('a torch for another Python')")
    log = tmp_path / "log"
    paths, environment = [str(tmp_path), *sys.path], os.environ | {"PYTHONPATH": str(tmp_path)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", paths)
        with LocalExecutor(2, threads=1, log=log, environ=environment) as executor:
            future = executor.submit(Environment(()))
            with pytest.raises(InfrastructureError, match=rf"died twice.*has ended; see {log}"):
                future.result(timeout=60)
    assert "a torch for another Python" in log.read_text()


def test_an_executor_closes_while_its_server_starts() -> None:
    """Ctrl-C in the first seconds: the import of torch is not waited for, and nothing is left running."""
    executor = LocalExecutor(2, threads=1)
    future = executor.submit(Environment(()))
    forks = executor._forks
    assert forks is not None
    while (server := forks._process) is None:
        time.sleep(0.001)
    executor.close()
    with pytest.raises(InfrastructureError):
        future.result(timeout=60)
    assert server.poll() is not None
    assert not any(thread.is_alive() for thread in executor._threads)
