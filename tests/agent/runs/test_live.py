"""live.jsonl: what the process of a search writes for those who watch, and what they make of it."""

from __future__ import annotations

import json
import os
from contextlib import closing
from pathlib import Path

import pytest

from agent.engine.search import SearchOutcome
from agent.progress import Progress
from agent.protocol import CandidateFailure
from agent.runs.live import LIVE, LiveFile, LiveReader, LiveState
from agent.runs.state import state_of
from agent.web.live_view import live_html
from benchmark.results import EpochMetrics


def metrics(epoch: int, accuracy: float) -> EpochMetrics:
    """An epoch of a training."""
    return EpochMetrics(
        epoch=epoch, train_loss=1.0, train_acc=2.0, test_loss=3.0, test_acc=accuracy, lr=0.1, seconds=4.0
    )


def test_a_reader_follows_a_writer(tmp_path: Path) -> None:
    """Epoch by epoch, also from the middle of a line; a search that goes on begins the file anew."""
    reader = LiveReader(tmp_path)
    assert not reader.read()
    with closing(LiveFile(tmp_path, Progress())) as progress:
        progress.begin(4, 3)
        progress.message("measuring the baseline")
        progress.started("baseline", "a-task", 0, 4)
        assert reader.read()
        assert reader.state.trainings["baseline", "a-task", 0].accuracy is None
        progress.epoch("baseline", "a-task", 0, metrics(1, 10.0), 4)
        progress.epoch("baseline", "a-task", 0, metrics(2, 12.5), 4)
        assert reader.read()
        assert not reader.read()
        (training,) = reader.state.trainings.values()
        assert training.accuracies == {1: 10.0, 2: 12.5}
        assert reader.state.share == 0.5 / 4
        progress.evaluated("baseline", "a-task", 0, CandidateFailure(kind="timeout", message="late"), cached=False)
        reader.read()
        assert (reader.state.done, reader.state.trainings) == (1, {})
        assert [text for _, text in reader.state.messages][-1].startswith("baseline a-task seed 0: failed (timeout)")
    with closing(LiveFile(tmp_path, Progress())) as progress:
        for _ in range(100):
            progress.message("another process, which has already written more than the first one had")
        reader.read()
        assert (reader.state.expected, len(reader.state.messages)) == (0, 100)
    whole = (tmp_path / LIVE).read_bytes()
    late = LiveReader(tmp_path)
    (tmp_path / LIVE).write_bytes(whole[:-10])
    late.read()
    (tmp_path / LIVE).write_bytes(whole)
    late.read()
    assert len(late.state.messages) == 100


def test_a_search_writes_it(finished: SearchOutcome) -> None:
    """Every training of a search, and none left over at its end."""
    reader = LiveReader(finished.run)
    reader.read()
    assert reader.state.trainings == {}
    assert reader.state.done == reader.state.expected > 2
    assert reader.state.share == 1.0
    assert reader.state.best


def test_it_never_ends_a_search(tmp_path: Path) -> None:
    """A link in its place is not followed, a missing folder is no error."""
    (tmp_path / "elsewhere").write_text("mine")
    (tmp_path / LIVE).symlink_to(tmp_path / "elsewhere")
    for folder in (tmp_path, tmp_path / "missing"):
        progress = LiveFile(folder, Progress())
        progress.message("said")
        progress.close()
        progress.message("said after the end")
        assert not LiveReader(folder).read()
    assert (tmp_path / "elsewhere").read_text() == "mine"


@pytest.mark.parametrize(
    "field", ["ts", "kind", "role", "task", "seed", "epochs", "epoch", "accuracy", "text", "tests"]
)
@pytest.mark.parametrize("value", [None, [], {}, "x" * 10_000, -1, 1e400, float("nan"), 10**400, True, "\ud800"])
def test_senseless_lines_are_passed_over(field: str, value: object) -> None:
    """The file of somebody else's run may hold anything."""
    state = LiveState()
    for kind in ("begin", "message", "started", "epoch", "evaluated"):
        line = {"ts": 1.0, "kind": kind, "role": "test/1", "task": "t", "seed": 0, "epochs": 3, "epoch": 1}
        state.add({**line, "accuracy": 5.0, "text": "m", "tests": 3, "evaluations": 4, field: value})
    assert len(live_html(state, state_of({"status": "running"}, (), held=True), now=2.0)) < 60_000


def test_it_stays_small_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stops growing at its limit, and a reader takes no more of a larger one."""
    monkeypatch.setattr("agent.runs.live.MAX_BYTES", 500)
    with closing(LiveFile(tmp_path, Progress())) as progress:
        for _ in range(50):
            progress.message("again")
    assert os.stat(tmp_path / LIVE).st_size <= 500  # noqa: PTH116
    lines = (tmp_path / LIVE).read_text(encoding="utf-8").splitlines()
    assert all(json.loads(line)["text"] == "again" for line in lines)
