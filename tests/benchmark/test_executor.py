"""The executor with real processes: answers, crashes, time limits, and nothing left running."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmark.executors import InfrastructureError, LocalExecutor, Parent, ProcessDied
from benchmark.lanes import UNHEARD


@dataclass(frozen=True)
class Square:
    number: int

    def __call__(self, parent: Parent) -> int:
        parent.report(f"squaring {self.number}")
        return self.number**2


@dataclass(frozen=True)
class Environment:
    names: tuple[str, ...]

    def __call__(self, parent: Parent) -> dict[str, str | None]:
        return {name: os.environ.get(name) for name in self.names}


@dataclass(frozen=True)
class DieOnce:
    """Kills its own process the first time."""

    marker: Path

    def __call__(self, parent: Parent) -> str:
        if not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return "second try"


@dataclass(frozen=True)
class DieAlways:
    def __call__(self, parent: Parent) -> None:
        os._exit(9)


@dataclass(frozen=True)
class DieAndLeaveAChild:
    """Ends while what it forked holds the connection open."""

    def __call__(self, parent: Parent) -> None:
        if os.fork() == 0:
            time.sleep(600)
        os._exit(9)


@dataclass(frozen=True)
class CloseAll:
    """Closes every descriptor that it does not know."""

    def __call__(self, parent: Parent) -> None:
        os.closerange(3, 4096)


@dataclass(frozen=True)
class Sleep:
    seconds: float
    pid_file: Path

    def __call__(self, parent: Parent) -> None:
        self.pid_file.write_text(str(os.getpid()))
        time.sleep(self.seconds)


@dataclass(frozen=True)
class Fail:
    def __call__(self, parent: Parent) -> None:
        raise ValueError("a bug of ours")


@dataclass(frozen=True)
class AskTwice:
    """Asks its parent and continues with the answer."""

    question: str

    def __call__(self, parent: Parent) -> str:
        return f"{parent.ask(self.question)} {parent.ask(self.question)}"


@pytest.fixture
def executor() -> Iterator[LocalExecutor]:
    with LocalExecutor(1, threads=1) as executor:
        yield executor


def test_answers_and_reports_come_back(executor: LocalExecutor) -> None:
    """Each future gets its own call's answer; progress arrives before it."""
    heard: list[str] = []
    futures = [executor.submit(Square(number), on_report=heard.append) for number in range(5)]
    assert [future.result(timeout=30) for future in futures] == [0, 1, 4, 9, 16]
    assert heard == [f"squaring {number}" for number in range(5)]


def test_slots_run_side_by_side_with_their_own_threads_and_gpus(tmp_path: Path) -> None:
    """Two slots overlap, each with the assigned number of threads and a GPU of its own."""
    with LocalExecutor(2, threads=3, gpus=2) as executor:
        names = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
        slow = executor.submit(Sleep(1.0, tmp_path / "pid"))
        while not (tmp_path / "pid").exists():
            time.sleep(0.01)
        one = executor.submit(Environment(names)).result(timeout=30)
        assert not slow.done()
        slow.result(timeout=30)
        assert one["OMP_NUM_THREADS"] == "3"
        assert one["CUDA_VISIBLE_DEVICES"] in ("0", "1")


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [("", ["0", "1", "0", "1"]), ("3,7", ["3", "7", "3", "7"]), ("GPU-a, GPU-b,GPU-c", ["GPU-a", "GPU-b"] * 2)],
)
def test_slots_share_the_gpus_that_the_user_chose(
    chosen: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slots share the GPUs in turn. CUDA_VISIBLE_DEVICES=3,7 once became GPUs 0 and 1."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    with LocalExecutor(4, threads=1, gpus=2) as executor:
        assert [slot._environment["CUDA_VISIBLE_DEVICES"] for slot in executor._slots] == expected
    with LocalExecutor(1, threads=1) as executor:
        assert executor._slots[0]._environment["CUDA_VISIBLE_DEVICES"] == ""


def test_crashed_process_is_replaced_and_the_call_tried_again(executor: LocalExecutor, tmp_path: Path) -> None:
    """One kill -9 by the kernel costs time, not the evaluation."""
    assert executor.submit(DieOnce(tmp_path / "marker")).result(timeout=30) == "second try"


def test_second_crash_is_an_infrastructure_failure(executor: LocalExecutor) -> None:
    """The error is typed and says how the process ended. The slot works again afterwards."""
    with pytest.raises(InfrastructureError, match=r"died twice.*exit status 9"):
        executor.submit(DieAlways()).result(timeout=30)
    assert executor.submit(Square(3)).result(timeout=30) == 9


@pytest.mark.parametrize(("call", "status"), [(DieAndLeaveAChild(), 9), (CloseAll(), UNHEARD)])
def test_a_process_whose_connection_does_not_tell_its_end(
    executor: LocalExecutor, call: DieAndLeaveAChild | CloseAll, status: int
) -> None:
    """A user's trainer forked and died: the search waited for ever, because the child held the connection open."""
    with pytest.raises(ProcessDied) as died:
        executor.submit(call).result(timeout=60)
    assert died.value.status == status
    assert executor.submit(Square(3)).result(timeout=30) == 9


def test_time_limit_kills_the_process(executor: LocalExecutor, tmp_path: Path) -> None:
    """An evaluation that hangs is stopped at its limit, and so is its process."""
    future = executor.submit(Sleep(60, tmp_path / "pid"), timeout=2.0)
    with pytest.raises(InfrastructureError, match="did not finish within 2 s"):
        future.result(timeout=30)
    assert not _alive(int((tmp_path / "pid").read_text()))
    assert executor.submit(Square(3)).result(timeout=30) == 9


def test_a_call_asks_its_parent_and_goes_on_with_the_answer(executor: LocalExecutor) -> None:
    """The answer is computed in the parent's process, and the slot serves on."""
    answer = executor.submit(AskTwice("who"), on_ask=lambda question: f"{question}:{os.getpid()}")
    assert answer.result(timeout=30) == f"who:{os.getpid()} who:{os.getpid()}"
    assert executor.submit(Square(3)).result(timeout=30) == 9


def test_an_answer_takes_no_time_from_the_call(executor: LocalExecutor) -> None:
    """Who waits for another's candidate must not run into its own limit for that."""

    def slowly(question: str) -> str:
        time.sleep(1.5)
        return question

    executor.submit(Square(1)).result(timeout=30)  # the process has started
    assert executor.submit(AskTwice("x"), timeout=2.0, on_ask=slowly).result(timeout=30) == "x x"


def test_a_question_without_an_answer_fails_the_call_and_says_why(executor: LocalExecutor) -> None:
    """What went wrong in the parent is in the message; the call is not tried again, and the slot serves on."""
    asked: list[str] = []

    def fail(question: str) -> None:
        asked.append(question)
        raise ValueError("no such thing here")

    with pytest.raises(InfrastructureError, match="no such thing here"):
        executor.submit(AskTwice("x"), on_ask=fail).result(timeout=30)
    assert asked == ["x"]
    with pytest.raises(InfrastructureError, match="nobody answers"):
        executor.submit(AskTwice("x")).result(timeout=30)
    with pytest.raises(InfrastructureError, match="pickle"):  # the next call got what this one should have had
        executor.submit(AskTwice("x"), on_ask=lambda question: lambda: question).result(timeout=30)
    assert executor.submit(Square(3)).result(timeout=30) == 9


def test_exception_of_ours_carries_its_traceback(executor: LocalExecutor) -> None:
    """A bug in an evaluation is not a score and not a crash: the message shows where it happened."""
    with pytest.raises(InfrastructureError, match="a bug of ours"):
        executor.submit(Fail()).result(timeout=30)


def test_close_stops_running_calls(tmp_path: Path) -> None:
    """Ctrl-C in the middle of a training leaves no process behind."""
    executor = LocalExecutor(1, threads=1)
    future = executor.submit(Sleep(60, tmp_path / "pid"))
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        time.sleep(0.01)
    executor.close()
    with pytest.raises(InfrastructureError):
        future.result(timeout=10)
    assert not _alive(int((tmp_path / "pid").read_text()))


def test_close_fails_the_calls_that_wait(tmp_path: Path) -> None:
    """Who waited for a call behind another one was left waiting for ever when the executor closed."""
    executor = LocalExecutor(1, threads=1)
    executor.submit(Sleep(60, tmp_path / "pid"))
    waiting = executor.submit(Square(3))
    while not (tmp_path / "pid").exists():
        time.sleep(0.01)
    executor.close()
    with pytest.raises(InfrastructureError, match="was closed"):
        waiting.result(timeout=10)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
