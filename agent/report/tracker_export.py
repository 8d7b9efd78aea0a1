"""Exports a run to experiment trackers: TensorBoard event files, or an MLflow database (SQLite).

Both packages are optional. Nothing here uses the network.
"""

from __future__ import annotations

import logging
import math
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

from agent.errors import UsageError
from agent.report.findings import Findings, find
from agent.runs.directory import RunDirectory
from agent.runs.record import Evaluation, RunRecord, read_run
from agent.runs.untrusted import mapping, number
from benchmark.files import is_plain
from benchmark.results import EpochMetrics, EvaluationResult

CURVES = ("train_loss", "train_acc", "test_loss", "test_acc", "lr")
"""Fields of `EpochMetrics` that are exported, each by epoch."""
_FILES = ("report.html", "submission.patch", "initialize_weights.py")


def write_tensorboard(run: RunDirectory, folder: Path) -> int:
    """Write event files under `folder`, one subfolder per evaluation. Returns the number of evaluations.

    Raises UsageError when the package is missing.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UsageError("TensorBoard is not installed: pip install tensorboard") from None
    record = read_run(run)
    started = number(record.summary.get("created")) or 0.0
    count = 0
    for one, result in _results(record):
        with SummaryWriter(str(folder / record.name / _file_name(one))) as writer:
            for point in result.curve:
                for name, value in curve_values(point):
                    writer.add_scalar(f"{one.task}/{name}", value, point.epoch, walltime=started + point.seconds)
        count += 1
    with SummaryWriter(str(folder / record.name)) as writer:
        writer.add_text("verdict", find(record).verdict, walltime=started)
    return count


def write_mlflow(run: RunDirectory, database: Path) -> int:
    """Write an MLflow experiment named like the run: one MLflow run for the search, and nested runs for evaluations.

    `database` is a SQLite file. The run's page, patch and module are copied to a folder beside it. Returns the number
    of evaluations. Raises UsageError when the package is missing or the database already contains the run.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param
        from mlflow.exceptions import MlflowException
    except ImportError:
        raise UsageError("MLflow is not installed: pip install mlflow") from None
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    record = read_run(run)
    findings = find(record)
    database = database.absolute()
    database.parent.mkdir(parents=True, exist_ok=True)
    if database.exists() and (not database.is_file() or database.read_bytes()[:15] != b"SQLite format 3"):
        raise UsageError(f"{database}: not a SQLite database; give the name of one, or a new name")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            client = MlflowClient(tracking_uri=f"sqlite:///{database}")
        if client.get_experiment_by_name(record.name) is not None:
            raise UsageError(f"{database}: {record.name} is in it already; give another file")
        artifacts = database.with_suffix(".artifacts") / record.name
        experiment = client.create_experiment(record.name, artifact_location=artifacts.as_uri())
    except MlflowException as error:
        raise UsageError(f"{database}: {str(error).splitlines()[0]}") from None
    began = int(1000 * (number(record.summary.get("created")) or 0.0))
    whole = client.create_run(experiment, start_time=began, run_name=record.name).info.run_id
    config = mapping(record.summary.get("config"))
    gains = [Metric(name, value, began, 0) for name, value in _gains(findings)]
    client.log_batch(whole, gains, [Param(name, str(value)[:500]) for name, value in config.items()])
    client.set_tag(whole, "verdict", findings.verdict)
    for file in _FILES:
        if is_plain(run.path, file):
            client.log_artifact(whole, str(run.path / file))
    count = 0
    for one, result in _results(record):
        nested = client.create_run(
            experiment, start_time=began, run_name=_file_name(one), tags={"mlflow.parentRunId": whole}
        ).info.run_id
        metrics = [
            Metric(name, value, began + int(1000 * point.seconds), point.epoch)
            for point in result.curve
            for name, value in curve_values(point)
        ]
        params = [Param("role", one.role), Param("task", one.task), Param("seed", str(one.seed))]
        for begin in range(0, max(1, len(metrics)), 1000):  # the most that one batch may hold
            client.log_batch(nested, metrics[begin : begin + 1000], params if begin == 0 else [])
        client.set_terminated(nested, end_time=began + int(1000 * result.training_seconds))
        count += 1
    client.set_terminated(whole, "FINISHED" if record.submitted is not None else "KILLED")
    return count


def _results(record: RunRecord) -> Iterator[tuple[Evaluation, EvaluationResult]]:
    """The evaluations that have a result file."""
    return (
        (evaluation, record.results[evaluation.key])
        for evaluation in record.evaluations
        if evaluation.key in record.results
    )


def _file_name(one: Evaluation) -> str:
    """A name of letters, digits, dots and dashes. Roles and tasks of a damaged log can contain any character."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", f"{one.role} {one.task} seed{one.seed}").strip("-.")[:120]


def curve_values(point: EpochMetrics) -> Iterator[tuple[str, float]]:
    """The numbers of one epoch by name: ours, or the finite ones that a user's own trainer reported."""
    if point.own is None:
        yield from ((name, getattr(point, name)) for name in CURVES)
        return
    for name, value in point.own.items():
        if math.isfinite(value):
            yield re.sub(r"[^A-Za-z0-9._]+", "-", name)[:80], value


def _gains(findings: Findings) -> Iterator[tuple[str, float]]:
    """Each gain with its ends, named by task. One that is not in points has its metric in the name."""
    for kind, comparisons in (("visible", findings.visible), ("hidden", findings.hidden)):
        for task, one in comparisons.items():
            if one is not None and math.isfinite(one.gain):
                name = re.sub(r"[^A-Za-z0-9.]+", "-", task)[:100]
                name += "" if one.metric.is_accuracy else f" in {re.sub(r'[^A-Za-z0-9._]+', '-', one.metric.name)[:40]}"
                yield f"{kind} gain {name}", one.gain
                for end, bound in zip(("low", "high"), one.known_ci or (), strict=False):
                    yield f"{kind} gain {name} {end}", bound
