"""Experiment trackers as places for numbers: Weights & Biases, trackio, MLflow, TensorBoard.

Each is opened in a process of its own (`agent.report.tracker_live`). What they would add by themselves is switched off:
the command line, code, console output and the machine's name.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from agent.runs.log_lines import Fields

PROJECT = "initsearch"
_ANONYMOUS = "initsearch"
"""In place of the names of machine and program."""


class Sink(Protocol):
    """Where numbers go. It is made of a folder for its files, the run's name, the choices of the search, and what the
    process before it left to it. Names are letters, digits, dots and dashes, with one slash.
    """

    def point(self, series: str, epoch: int, values: Mapping[str, float], when: float) -> None:
        """One epoch of a training; `when` in seconds since the epoch of clocks."""

    def result(self, values: Mapping[str, float], verdict: str) -> None:
        """The gains at the end, with their intervals, and the verdict in a sentence."""

    def close(self) -> None:
        """Send what is left."""


class TensorBoardSink:
    """Event files, a folder for each training."""

    def __init__(self, folder: Path, name: str, config: Fields, state: Fields) -> None:
        from tensorboard.summary import Writer

        self._folder, self._writers, self._make = folder / name, dict[str, Any](), Writer

    def point(self, series: str, epoch: int, values: Mapping[str, float], when: float) -> None:
        writer = self._writer(series.replace("/", "-"))
        for name, value in values.items():
            writer.add_scalar(name, value, epoch, wall_time=when)
        writer.flush()

    def result(self, values: Mapping[str, float], verdict: str) -> None:
        writer = self._writer("")
        for name, value in values.items():
            writer.add_scalar(name, value, 0)

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()

    def _writer(self, name: str) -> Any:
        if name not in self._writers:
            self._writers[name] = self._make(str(self._folder / name))
        return self._writers[name]


class MlflowSink:
    """An MLflow run; its database lies in the run, unless MLFLOW_TRACKING_URI names a server."""

    def __init__(self, folder: Path, name: str, config: Fields, state: Fields) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ["MLFLOW_RUN_CONTEXT"] = "[]"
        for noisy in ("mlflow", "alembic"):
            logging.getLogger(noisy).setLevel(logging.ERROR)
        from mlflow import MlflowClient

        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder / 'mlflow.db'}"
        self._client: Any = MlflowClient(tracking_uri=uri)
        if not isinstance(state.get("run_id"), str):
            found = self._client.get_experiment_by_name(PROJECT)
            place = None if "MLFLOW_TRACKING_URI" in os.environ else (folder / "artifacts").as_uri()
            experiment = found.experiment_id if found else self._client.create_experiment(PROJECT, place)
            made = self._client.create_run(experiment, run_name=name, tags={"mlflow.user": _ANONYMOUS})
            state["run_id"] = made.info.run_id
            for key, value in config.items():
                self._client.log_param(made.info.run_id, key, str(value)[:500])
        self._run: str = state["run_id"]
        self._client.update_run(self._run, status="RUNNING")

    def point(self, series: str, epoch: int, values: Mapping[str, float], when: float) -> None:
        for name, value in values.items():
            self._client.log_metric(self._run, f"{series}/{name}", value, timestamp=int(when * 1000), step=epoch)

    def result(self, values: Mapping[str, float], verdict: str) -> None:
        for name, value in values.items():
            self._client.log_metric(self._run, name, value)
        self._client.set_tag(self._run, "verdict", verdict)

    def close(self) -> None:
        self._client.set_terminated(self._run)


class WandbSink:
    """A run of Weights & Biases; without WANDB_API_KEY its files stay in the run (`wandb sync` sends them later)."""

    def __init__(self, folder: Path, name: str, config: Fields, state: Fields) -> None:
        import wandb

        offline = not os.environ.get("WANDB_API_KEY") and "WANDB_BASE_URL" not in os.environ
        quiet = wandb.Settings(
            console="off",
            silent=True,
            save_code=False,
            disable_code=True,
            disable_git=True,
            disable_job_creation=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
            host=_ANONYMOUS,
            program=_ANONYMOUS,
            program_relpath=_ANONYMOUS,
            username=_ANONYMOUS,
            symlink=False,
        )
        self._run: Any = wandb.init(
            project=PROJECT,
            id=name[:64],
            name=name,
            resume="allow",
            config=dict(config),
            dir=str(folder),
            mode="offline" if offline else None,
            settings=quiet,
        )
        self._folder = folder
        self._remove_links()
        self._defined: set[str] = set()

    def point(self, series: str, epoch: int, values: Mapping[str, float], when: float) -> None:
        if series not in self._defined:
            self._defined.add(series)
            self._run.define_metric(f"{series}/*", step_metric=f"{series}/epoch")
        self._run.log({f"{series}/epoch": epoch, **{f"{series}/{name}": value for name, value in values.items()}})

    def result(self, values: Mapping[str, float], verdict: str) -> None:
        self._run.summary.update({**values, "verdict": verdict})

    def close(self) -> None:
        self._run.finish()
        self._remove_links()

    def _remove_links(self) -> None:
        """A run with links in it counts as hostile: nothing would be written there any more."""
        for path in self._folder.rglob("*"):
            if path.is_symlink():
                path.unlink()


class TrackioSink:
    """A run of trackio, in the run's own folder; `TRACKIO_SPACE_ID` names a Space that it goes to."""

    def __init__(self, folder: Path, name: str, config: Fields, state: Fields) -> None:
        os.environ["TRACKIO_DIR"] = str(folder)
        import trackio

        self._trackio: Any = trackio
        trackio.init(
            project=PROJECT,
            name=name,
            config=dict(config),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
            space_id=os.environ.get("TRACKIO_SPACE_ID"),
        )

    def point(self, series: str, epoch: int, values: Mapping[str, float], when: float) -> None:
        self._trackio.log({f"{series}/epoch": epoch, **{f"{series}/{name}": value for name, value in values.items()}})

    def result(self, values: Mapping[str, float], verdict: str) -> None:
        self._trackio.log({**values, "verdict": verdict})

    def close(self) -> None:
        self._trackio.finish()


SINKS: Mapping[str, Callable[[Path, str, Fields, Fields], Sink]] = {
    "wandb": WandbSink,
    "trackio": TrackioSink,
    "mlflow": MlflowSink,
    "tensorboard": TensorBoardSink,
}
OWN_VARIABLES: Mapping[str, re.Pattern[str]] = {
    "wandb": re.compile("WANDB_"),
    "trackio": re.compile("TRACKIO_|HF_TOKEN$"),
    "mlflow": re.compile("MLFLOW_"),
    "tensorboard": re.compile("(?!)"),
}
"""The variables that the process of each tracker gets beside those of the system. No other key is among them."""


def series_name(role: str, task: str, seed: int) -> str:
    """The name of one training: `test-1/a-task-seed0`."""
    return f"{plain_name(role)}/{plain_name(task)}-seed{seed}"


def plain_name(text: str) -> str:
    """The text with letters, digits, dots, dashes and underscores only."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-.")[:80] or "unnamed"
