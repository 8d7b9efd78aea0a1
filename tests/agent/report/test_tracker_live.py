"""`agent search --track`: the numbers of a running search in the trackers, offline, read back by their own packages."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent.errors import UsageError
from agent.progress import Progress
from agent.report.tracker_live import FOLDER, Trackers, parse_trackers
from agent.runs.directory import RunDirectory
from agent.runs.files import strangers
from agent.runs.live import LiveFile
from tests.agent.conftest import Main
from tests.agent.report_samples import change_log, change_summary
from tests.agent.runs.test_live import metrics
from tests.agent.runs.test_state import holder
from tests.sample import SAMPLE, restore

Points = list[tuple[int, float]]
SERIES = "test-1/a-task-seed0"


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """The sample run, as if it were under way."""
    run = restore(SAMPLE, tmp_path / "runs" / "20261101-120000-pocket-optuna-aaaa")
    change_summary(run, status="running")
    return run


def from_tensorboard(folder: Path) -> tuple[Points, float]:
    """The points of the series, and the hidden gain."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    series = EventAccumulator(str(next(folder.glob("*/test-1-a-task-seed0")))).Reload()
    whole = EventAccumulator(str(next(path for path in folder.iterdir() if path.is_dir()))).Reload()
    points = [(event.step, float(make_ndarray(event.tensor_proto))) for event in series.Tensors("test_acc")]
    (gain,) = whole.Tensors("hidden/mobilenetv2-fmnist_pocket/gain")
    return points, float(make_ndarray(gain.tensor_proto))


def from_mlflow(folder: Path) -> tuple[Points, float]:
    """See `from_tensorboard`."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("initsearch")
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.data.params["budget"] == "3"
    history = client.get_metric_history(found.info.run_id, f"{SERIES}/test_acc")
    return [(one.step, one.value) for one in history], found.data.metrics["hidden/mobilenetv2-fmnist_pocket/gain"]


def from_trackio(folder: Path) -> tuple[Points, float]:
    """See `from_tensorboard`."""
    with sqlite3.connect(folder / "initsearch.db") as database:
        rows = [json.loads(row[0]) for row in database.execute("select metrics from metrics order by id")]
    points = [(row[f"{SERIES}/epoch"], row[f"{SERIES}/test_acc"]) for row in rows if f"{SERIES}/epoch" in row]
    (gain,) = {row[name] for row in rows for name in row if name.startswith("hidden/") and name.endswith("/gain")}
    return points, gain


def wandb_records(path: Path) -> Iterator[bytes]:
    """The records of a .wandb file: 7 bytes of header, then blocks of 32 kB as in a log of LevelDB."""
    data, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # a whole record, or the last part of one
            yield whole
            whole = b""


def from_wandb(folder: Path) -> tuple[Points, float]:
    """See `from_tensorboard`. A resumed run has a second file."""
    messages: Any = importlib.import_module("wandb.proto.wandb_internal_pb2")
    points: Points = []
    gain = 0.0
    for path in sorted(folder.glob("wandb/*/*.wandb")):
        for data in wandb_records(path):
            record = messages.Record()
            record.ParseFromString(data)
            items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            if f"{SERIES}/epoch" in items:
                points.append((json.loads(items[f"{SERIES}/epoch"]), json.loads(items[f"{SERIES}/test_acc"])))
            for item in record.summary.update:
                if (item.key or "/".join(item.nested_key)).endswith("fmnist_pocket/gain"):
                    gain = json.loads(item.value_json)
    return points, gain


READERS: dict[str, Callable[[Path], tuple[Points, float]]] = {
    "tensorboard": from_tensorboard,
    "mlflow": from_mlflow,
    "trackio": from_trackio,
    "wandb": from_wandb,
}


def ended(folder: Path) -> None:
    """Wait until the process of a tracker has ended: its lock is free, and it has sent the results."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if os.system(f"pgrep -f 'agent.report.tracker_live .* {folder.parents[1]}$' > /dev/null"):
            return
        time.sleep(0.2)
    raise AssertionError((folder / "process.log").read_text())


@pytest.mark.parametrize("name", READERS)
def test_numbers_arrive_once(name: str, run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Live, again after a resume without what was sent, with the gains at the end; nothing of the machine."""
    if importlib.util.find_spec(name) is None or not os.environ.get("INITSEARCH_TRACKERS"):
        pytest.skip(f"pip install {name}, and INITSEARCH_TRACKERS=1: their start alone takes many seconds")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-this-is-another-ones-key")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    folder, said = run.path / FOLDER / name, list[str]()
    for epochs in ((1, 2), (1, 2, 3)):  # the second process trains the interrupted test anew
        with holder(run), closing(LiveFile(run.path, Progress())) as progress:
            Trackers(name).start(run, said.append)
            progress.started("test/1", "a-task", 0, 4)
            for epoch in epochs:
                progress.epoch("test/1", "a-task", 0, metrics(epoch, 10.0 + epoch), 4)
            deadline = time.monotonic() + 60
            while f'"{SERIES}": {epochs[-1]}' not in _text(folder / "sent.json") and time.monotonic() < deadline:
                time.sleep(0.1)
        if epochs[-1] == 3:
            change_summary(run, status="submitted")
        ended(folder)
    assert len(said) == 2
    points, gain = READERS[name](folder)
    assert points == [(1, 11.0), (2, 12.0), (3, 13.0)], _text(folder / "process.log")
    assert gain == pytest.approx(-4.15, abs=0.01)
    assert not list(strangers(run.path)), "the run can be resumed and reviewed"
    sent = [path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".log",)]
    for word in (b"sk-this-is-another", b"agent.report.tracker_live", str(run.path.parent).encode()):
        assert not [path for path in sent if path.suffix in (".wandb",) and word in path.read_bytes()], word
    host = socket.gethostname().encode()
    assert len(host) < 4 or not [path for path in sent if path.suffix == ".wandb" and host in path.read_bytes()]


def test_hidden_numbers_wait_for_the_submission(run: RunDirectory) -> None:
    """A file that claims hidden results before the log has a submission is not believed."""
    if importlib.util.find_spec("tensorboard") is None or not os.environ.get("INITSEARCH_TRACKERS"):
        pytest.skip("pip install tensorboard, and INITSEARCH_TRACKERS=1")
    change_log(run, lambda event: None if event["kind"] == "submitted" else event)
    folder = run.path / FOLDER / "tensorboard"
    with holder(run), closing(LiveFile(run.path, Progress())) as progress:
        Trackers("tensorboard").start(run, lambda text: None)
        progress.epoch("hidden/submission", "a-task", 0, metrics(1, 50.0), 4)
        progress.epoch("test/1", "a-task", 0, metrics(1, 10.0), 4)
        deadline = time.monotonic() + 60
        while SERIES not in _text(folder / "sent.json") and time.monotonic() < deadline:
            time.sleep(0.1)
    ended(folder)
    assert "hidden" not in _text(folder / "sent.json")


def test_names_and_packages(main: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown tracker, and one that is not installed, are said before anything starts."""
    assert parse_trackers(" ") == []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for given, said in (("wandb", "pip install 'initsearch[wandb]'"), ("neptune", "known: wandb")):
        with pytest.raises(UsageError, match=said.replace("[", r"\[").split("'")[0]):
            parse_trackers(given)
        code, _, err = main("search", "--profile", "smoke", "--track", given)
        assert (code, said in err) == (2, True)
        assert not Path("runs").exists()


def test_a_tracker_gets_its_own_key_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither another tracker's nor a language model's."""
    from agent.report.tracker_live import _environment

    for name in ("WANDB_API_KEY", "HF_TOKEN", "MLFLOW_TRACKING_TOKEN", "OPENAI_API_KEY", "GITHUB_TOKEN"):
        monkeypatch.setenv(name, "secret")
    found = {name: {key for key, value in _environment(name).items() if value == "secret"} for name in READERS}
    assert found == {
        "tensorboard": set(),
        "mlflow": {"MLFLOW_TRACKING_TOKEN"},
        "trackio": {"HF_TOKEN"},
        "wandb": {"WANDB_API_KEY"},
    }


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
