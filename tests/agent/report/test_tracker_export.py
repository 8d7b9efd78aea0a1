"""Runs in the trackers of others: TensorBoard, MLflow, Optuna's dashboard, each read by its own package."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from agent.engine.search import SearchOutcome
from agent.runs.directory import RunDirectory
from agent.runs.record import read_run
from tests.agent.conftest import Agent


def needs(package: str) -> pytest.MarkDecorator:
    """Skip where an optional package is missing, and say how to get it."""
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"pip install {package.replace('_', '-')}")


@needs("tensorboard")
def test_tensorboard_reads_the_curves(agent: Agent, finished: SearchOutcome, tmp_path: Path) -> None:
    """Every evaluation is a run in TensorBoard, with its test accuracy by epoch."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = agent("export", str(finished.run), "--format", "tensorboard", "--out", "tb")
    assert result.returncode == 0, result.stderr
    assert "next: tensorboard --logdir tb" in result.stderr
    record = read_run(RunDirectory(finished.run))
    folder = tmp_path / "tb" / finished.run.name
    assert len(list(folder.glob("*/"))) >= len(record.evaluations)
    events = EventAccumulator(str(folder / "test-1-resnet20-tiny-seed0")).Reload()
    (expected,) = record.curves("test/1", "resnet20-tiny")
    seen = [(event.step, event.value) for event in events.Scalars("resnet20-tiny/test_acc")]
    assert seen == [(point.epoch, pytest.approx(point.test_acc)) for point in expected.curve]


@needs("mlflow")
def test_mlflow_reads_the_run(agent: Agent, finished: SearchOutcome, tmp_path: Path) -> None:
    """One experiment with the search, its gains and files, and a nested run for each evaluation; not twice."""
    words = ("export", str(finished.run), "--format", "mlflow", "--out", "mlflow.db")
    result = agent(*words)
    assert result.returncode == 0, result.stderr
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(finished.run.name)
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    record = read_run(RunDirectory(finished.run))
    assert len(runs) == 1 + len(record.evaluations)
    whole = runs[finished.run.name]
    gain = finished.done["visible"]["resnet20-tiny"]["gain"]
    assert whole.data.metrics["visible gain resnet20-tiny"] == pytest.approx(gain)
    assert whole.data.params["budget"] == "2"
    files = {file.path for file in client.list_artifacts(whole.info.run_id)}
    assert files == {"report.html", "submission.patch", "initialize_weights.py"}
    nested = runs["test-1-resnet20-tiny-seed0"]
    assert nested.data.tags["mlflow.parentRunId"] == whole.info.run_id
    (expected,) = record.curves("test/1", "resnet20-tiny")
    history = client.get_metric_history(nested.info.run_id, "test_acc")
    assert [(m.step, m.value) for m in history] == [(point.epoch, point.test_acc) for point in expected.curve]

    again = agent(*words)
    assert again.returncode == 2
    assert "is in it already" in again.stderr


@pytest.mark.parametrize("package", ["tensorboard", "mlflow"])
def test_missing_package_says_how_to_get_it(
    agent: Agent, finished: SearchOutcome, tmp_path: Path, package: str
) -> None:
    """Exit code 2, the pip line, and nothing written."""
    (tmp_path / f"{package}.py").write_text("raise ImportError('not here')\n")
    result = agent("export", str(finished.run), "--format", package, "--out", "out")
    assert (result.returncode, result.stdout) == (2, "")
    assert f"pip install {package}" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("package", ["tensorboard", "mlflow"])
def test_a_place_is_needed(agent: Agent, finished: SearchOutcome, package: str) -> None:
    """These formats are no text for stdout."""
    result = agent("export", str(finished.run), "--format", package)
    assert (result.returncode, result.stdout) == (2, "")
    assert "--out F" in result.stderr


@needs("mlflow")
def test_mlflow_needs_a_database(agent: Agent, finished: SearchOutcome, tmp_path: Path) -> None:
    """Another file is not overwritten."""
    (tmp_path / "notes.txt").write_text("mine")
    result = agent("export", str(finished.run), "--format", "mlflow", "--out", "notes.txt")
    assert result.returncode == 2
    assert "not a SQLite database" in result.stderr
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_optuna_loads_the_journal(finished: SearchOutcome, tmp_path: Path) -> None:
    """study.journal is Optuna's own: its study has the run's tests as trials, with their scores."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    journal = shutil.copy(finished.run / "study.journal", tmp_path)
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(journal)))
    study = optuna.load_study(study_name="initsearch", storage=storage)
    done = study.get_trials(states=[optuna.trial.TrialState.COMPLETE])
    tests = RunDirectory(finished.run).read_summary()["tests"]
    assert [trial.value for trial in done] == [test["accuracies"]["resnet20-tiny"]["0"] for test in tests]
    assert all(trial.params for trial in done)


@needs("optuna_dashboard")
def test_dashboard_shows_the_journal(finished: SearchOutcome, tmp_path: Path) -> None:
    """`optuna-dashboard RUN/study.journal` serves the study."""
    journal = shutil.copy(finished.run / "study.journal", tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [*(sys.executable, "-c", "from optuna_dashboard._cli import main; main()"), str(journal)]
    server = subprocess.Popen(
        [*command, "--port", str(port), "--server", "wsgiref", "--quiet"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        shown = _answer(f"http://127.0.0.1:{port}/api/studies", server)
    finally:
        server.kill()
        server.wait()
    assert [study["study_name"] for study in shown["study_summaries"]] == ["initsearch"]


def _answer(url: str, server: subprocess.Popen[bytes]) -> dict[str, list[dict[str, str]]]:
    """What a local server answers once it is up."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + 60
    while True:
        try:
            with direct.open(url, timeout=5) as reply:
                found: dict[str, list[dict[str, str]]] = json.load(reply)
                return found
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            if server.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.2)
