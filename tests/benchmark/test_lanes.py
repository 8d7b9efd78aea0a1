"""Lanes: several trainings in one process, each in a thread. Here on the CPU; tests/gpu has the same on a GPU."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import wait
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from benchmark.executors import InfrastructureError, LocalExecutor, Parent
from benchmark.lanes import Gate
from benchmark.tasks import Recipe
from benchmark.train import train
from tests.benchmark.test_train import coloured_noise, small_net


@dataclass(frozen=True)
class Meet:
    """Returns the process and thread once `count` calls are inside at the same time."""

    folder: Path
    name: str
    count: int = 2

    def __call__(self, parent: Parent) -> tuple[int, int]:
        (self.folder / self.name).touch()
        while len(list(self.folder.iterdir())) < self.count:
            time.sleep(0.01)
        return os.getpid(), threading.get_ident()


@dataclass(frozen=True)
class Train:
    """Trains a small network with dropout and returns a hash of its weights.

    The initial weights come from a generator of its own: torch's, which all lanes share, gave other ones by chance.
    """

    seed: int
    lr: float = 0.05

    def __call__(self, parent: Parent) -> tuple[str, str]:
        model = small_net()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.uniform_(-0.3, 0.3, generator=generator)
        recipe = Recipe(epochs=3, lr=self.lr, batch_size=16)
        outcome = train(model, coloured_noise(), recipe, seed=self.seed, precision="fp32", on_epoch=parent.report)
        weights = b"".join(value.numpy().tobytes() for value in model.state_dict().values())
        return outcome.status, hashlib.sha256(weights).hexdigest()


@dataclass(frozen=True)
class KillOnce(Meet):
    """Kills the process of both lanes once both calls are inside, the first time."""

    def __call__(self, parent: Parent) -> tuple[int, int]:
        here = super().__call__(parent)
        marker = self.folder.with_suffix(".killed")
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return here


@dataclass(frozen=True)
class MeetAndStay(Meet):
    """Stays inside for a minute, the first time, and so is there when the process is killed."""

    def __call__(self, parent: Parent) -> tuple[int, int]:
        first = not (self.folder / self.name).exists()
        here = super().__call__(parent)
        if first:
            time.sleep(60)
        return here


@dataclass(frozen=True)
class Sleep:
    seconds: float

    def __call__(self, parent: Parent) -> int:
        time.sleep(self.seconds)
        return os.getpid()


@dataclass(frozen=True)
class Fail:
    def __call__(self, parent: Parent) -> None:
        raise ValueError("a bug of ours")


_INSIDE: list[int] = []


@dataclass(frozen=True)
class NeedsAllMemory:
    """Lacks memory if another call is inside."""

    number: int

    def __call__(self, parent: Parent) -> int:
        _INSIDE.append(self.number)
        try:
            for _ in range(30):
                time.sleep(0.01)
                if len(_INSIDE) > 1 and self.number == max(_INSIDE):
                    raise torch.OutOfMemoryError("there is room for one")
            return self.number
        finally:
            _INSIDE.remove(self.number)


@dataclass(frozen=True)
class NeedsMore:
    def __call__(self, parent: Parent) -> None:
        raise torch.OutOfMemoryError("too large for the card")


@pytest.fixture(scope="module")
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def lanes(said: list[str]) -> Iterator[LocalExecutor]:
    """One executor for all tests, because its process imports torch for seconds."""
    with LocalExecutor(2, threads=1, lanes=2, say=said.append) as executor:
        yield executor


def test_lanes_are_threads_of_one_process(lanes: LocalExecutor, tmp_path: Path) -> None:
    """Both calls are inside at the same time, in one process and two threads."""
    futures = [lanes.submit(Meet(tmp_path, name)) for name in ("a", "b")]
    (process, thread), (other_process, other_thread) = [future.result(timeout=60) for future in futures]
    assert process == other_process
    assert thread != other_thread


def test_a_training_gives_the_same_weights_beside_others(lanes: LocalExecutor) -> None:
    """Alone, beside another seed, and beside one that diverges: dropout once drew from one generator for all."""
    alone = {seed: Train(seed)(_Deaf()) for seed in (0, 1)}
    futures = [lanes.submit(call) for call in (Train(0), Train(1, lr=1e20), Train(0), Train(1), Train(0), Train(1))]
    answers = [future.result(timeout=60) for future in futures]
    assert answers[0] == answers[2] == answers[4] == alone[0]
    assert answers[1][0] == "diverged"
    assert answers[3] == answers[5] == alone[1]
    assert alone[0][1] != alone[1][1]


def test_an_error_in_one_lane_leaves_the_other_alone(lanes: LocalExecutor) -> None:
    """The failed call gets its traceback, and the process goes on."""
    slow = lanes.submit(Sleep(0.5))
    with pytest.raises(InfrastructureError, match="a bug of ours"):
        lanes.submit(Fail()).result(timeout=60)
    process = slow.result(timeout=60)
    assert lanes.submit(Sleep(0)).result(timeout=60) == process


def test_a_network_that_does_not_fit_alone_is_an_error(lanes: LocalExecutor) -> None:
    """Fewer lanes do not help it, so it fails with the reason instead of waiting for ever."""
    with pytest.raises(InfrastructureError, match="too large for the card"):
        lanes.submit(NeedsMore()).result(timeout=60)


def test_the_death_of_the_process_is_retried_for_each_lane(lanes: LocalExecutor, tmp_path: Path) -> None:
    """kill -9, as after an error that takes the GPU's context down: both calls run again, in one new process.

    It comes before the test that leaves one lane, where the calls would follow each other in two processes.
    """
    old = lanes.submit(Sleep(0)).result(timeout=60)
    folder = tmp_path / "inside"
    folder.mkdir()
    futures = [lanes.submit(KillOnce(folder, "a")), lanes.submit(MeetAndStay(folder, "b"))]
    new = {future.result(timeout=50)[0] for future in futures}
    assert len(new) == 1
    assert old not in new


def test_without_memory_for_all_lanes_fewer_train(lanes: LocalExecutor, said: list[str]) -> None:
    """No evaluation is lost: the one that lacked memory runs again when the other is done, and the user is told."""
    futures = [lanes.submit(NeedsAllMemory(number)) for number in range(4)]
    wait(futures, timeout=60)
    assert [future.result() for future in futures] == [0, 1, 2, 3]
    assert said == ["the GPU's memory does not suffice, so only 1 evaluations share it from now on"]


def test_slots_go_round_four_gpus() -> None:
    """Ten slots on four GPUs: a process for each GPU, with three or two lanes; one slot uses one GPU."""
    with LocalExecutor(10, threads=1, gpus=4) as executor:
        assert [slot._environment["CUDA_VISIBLE_DEVICES"] for slot in executor._slots] == [*"0123012301"]
        assert [slot._lane for slot in executor._slots] == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]
        processes = {id(slot._process): slot._process for slot in executor._slots}.values()
        assert [process._lanes for process in processes] == [3, 3, 2, 2]
    with LocalExecutor(1, threads=1, gpus=4) as executor:
        assert [slot._environment["CUDA_VISIBLE_DEVICES"] for slot in executor._slots] == ["0"]


def test_a_chosen_subset_of_four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA_VISIBLE_DEVICES=1,3 and four slots: two processes that see one of these GPUs each, with two lanes each.

    That a process has the environment of its slots, with several on GPUs: test_executor.py.
    """
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,3")
    with LocalExecutor(4, threads=1, gpus=2) as executor:
        assert [slot._environment["CUDA_VISIBLE_DEVICES"] for slot in executor._slots] == [*"1313"]
        processes = {id(slot._process): slot._process for slot in executor._slots}.values()
        assert [process._lanes for process in processes] == [2, 2]


def test_the_gate_never_closes() -> None:
    """Of three lanes that all lack memory, one goes on alone and keeps its place."""
    gate = Gate(3)
    for _ in range(3):
        gate.__enter__()
    assert gate.narrow()
    assert gate.width == 2
    gate.__exit__()
    assert gate.narrow()
    assert gate.width == 1
    gate.__exit__()
    assert not gate.narrow()
    assert gate.width == 1


class _Deaf:
    def report(self, content: object, /) -> None:
        pass

    def ask(self, question: object, /) -> None:
        pass
