"""What a person sees while a search runs: what is counted, and what is not."""

from __future__ import annotations

import io
import math
import time
from pathlib import Path

import pytest
from rich.console import Console

from agent.cli.live_table import LiveProgress
from agent.progress import Pace, PlainProgress, Progress
from benchmark.results import EpochMetrics, EvaluationResult
from tests.agent.engine.test_screening import smoke
from tests.agent.harm import Server
from tests.benchmark.test_store import make_result

TASK = "resnet20-tiny"


def result(accuracy: float) -> EvaluationResult:
    """A finished evaluation of two seconds."""
    return make_result("0" * 64, accuracy).model_copy(update={"test_loss": 3.5, "training_seconds": 2.0})


def show(progress: Progress) -> None:
    """The baseline, a look that is better on held-out pictures than any test, and a test."""
    progress.begin(2, tests=1)
    for role, accuracy in (("baseline", 20.0), ("screen/1/1/1", 90.0), ("test/1", 30.0)):
        progress.started(role, TASK, 0, epochs=1)
        progress.evaluated(role, TASK, 0, result(accuracy), cached=False)


def test_looks_are_not_counted_as_trainings() -> None:
    """A search with --screen counted its looks, and went on to [14/10]; their accuracies are not test accuracies."""
    stream = io.StringIO()
    show(PlainProgress(stream))
    lines = [line.partition(" ")[2].strip() for line in stream.getvalue().splitlines()]
    assert lines == [
        f"[1/2] baseline {TASK} seed 0: best test accuracy 20.00 % (2 s)",
        f"screen/1/1/1 {TASK}: held-out loss 3.500",
        f"[2/2] test/1 {TASK} seed 0: best test accuracy 30.00 % (2 s)",
    ]


def _epoch(number: int, seconds: float) -> EpochMetrics:
    return EpochMetrics(
        epoch=number, train_loss=1.5, train_acc=50.0, test_loss=1.6, test_acc=48.0, lr=0.1, seconds=seconds
    )


def test_a_long_training_says_how_fast_it_is_and_how_long_it_takes() -> None:
    """In 200 epochs a person saw accuracies and never the end. The last seconds of a training need no forecast."""
    stream = io.StringIO()
    progress = PlainProgress(stream)
    progress.started("baseline", TASK, 0, epochs=200, pictures=50_000)
    progress.epoch("baseline", TASK, 0, _epoch(20, 60.0), 200)
    progress.epoch("baseline", TASK, 0, _epoch(40, 110.0), 200)
    progress.epoch("baseline", TASK, 0, _epoch(200, 510.0), 200)
    progress.close()
    ends = [line.partition("48.00 %")[2] for line in stream.getvalue().splitlines()]
    assert ends == [", 16,667 images/s, about 9:00 to go", ", 20,000 images/s, about 6:40 to go", ""]


def test_the_pace_of_a_training_of_unknown_size() -> None:
    """Without the number of pictures there is still the time, and a clock that stands still is no error."""
    pace = Pace(10, 0)
    assert pace.after(_epoch(1, 30.0)) == ", about 4:30 to go"
    assert pace.after(_epoch(2, 30.0)) == ""
    assert pace.after(_epoch(3, math.inf)) == ""


def test_a_line_comes_when_nothing_else_does() -> None:
    """Off a terminal a search said nothing for minutes: now a line says what it is at, and nothing after its end."""
    stream = io.StringIO()
    progress = PlainProgress(stream, silence=0.05)
    progress.message("measuring the baseline")
    time.sleep(0.12)
    progress.started("test/1", TASK, 0, epochs=1)
    time.sleep(0.12)
    progress.close()
    said = [line.partition(" ")[2].strip() for line in stream.getvalue().splitlines()]
    assert said[1] == "still at work: measuring the baseline"
    assert said[-1] == f"still at work: test/1 {TASK} seed 0"
    time.sleep(0.12)
    assert len(stream.getvalue().splitlines()) == len(said)


def test_the_best_so_far_is_a_tests() -> None:
    """The live view called a look's held-out accuracy the best."""
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system=None)
    progress = LiveProgress(console)
    show(progress)
    with console.capture() as shown:
        console.print(progress._render())
    progress.close()
    assert f"best {TASK} 30.00 %" in shown.get()
    assert "0 of 1 tests left" in shown.get()


def test_a_test_from_the_store_is_not_left() -> None:
    """The live view said "1 of 1 tests left" while the hidden task ran: the store had the test's results."""
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system=None)
    progress = LiveProgress(console)
    progress.begin(4, 1)
    progress.evaluated("baseline", TASK, 0, result(30.0), cached=True)
    progress.evaluated("test/1", TASK, 0, result(30.0), cached=True)
    with console.capture() as shown:
        console.print(progress._render())
    progress.close()
    assert "0 of 1 tests left" in shown.get()


@pytest.mark.parametrize(("words", "trainings"), [((), 4), (("--no-submit",), 2), (("--confirm", "1"), 6)])
def test_the_count_ends_where_it_said(
    server: Server, cache: Path, tmp_path: Path, words: tuple[str, ...], trainings: int
) -> None:
    """Baseline and test, twice again with confirmation, and the hidden task for both, unless it is held back."""
    smoke(server, tmp_path, cache, "--budget", "1", "--runs", str(tmp_path / "runs"), *words)
    counted = [line for line in (tmp_path / "stderr").read_text().splitlines() if "]" in line and "[" in line]
    assert counted[-1].split("]")[0].endswith(f"[{trainings}/{trainings}")
