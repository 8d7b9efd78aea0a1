"""Runs a user's own trainer in a fresh process, with a network whose initial weights came from isolation."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import numbers
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.data.prepared import folder
from benchmark.executors import Parent
from benchmark.files import write_atomically
from benchmark.networks import Network, build, described
from benchmark.results import EpochMetrics
from benchmark.sources import captured, import_file, provide
from benchmark.task import Task, Trainer


class TrainerFailed(RuntimeError):
    """The user's trainer raised, changed, or returned something that is no score. The message is one sentence."""


@dataclass(frozen=True)
class Trained:
    """What a trainer returned and reported."""

    score: float
    """It may be NaN or infinite: the training diverged."""
    curve: tuple[EpochMetrics, ...]
    seconds: float


@dataclass(frozen=True)
class TrainCall:
    """A call for a fresh process: build the network, load `weights` (None: as built), let the user's function train.

    The answer is `Trained`, or a sentence about the trainer's fault.
    """

    trainer: Trainer
    network: Network
    weights: Path | None
    seed: int
    device: str

    def __call__(self, parent: Parent) -> Trained | str:
        try:
            return self._train(parent)
        except TrainerFailed as error:
            return str(error)

    def _train(self, parent: Parent) -> Trained:
        import numpy as np
        import torch

        from benchmark.hardware import threads
        from benchmark.train import stream_seed
        from benchmark.weights import load_initial_weights

        torch.set_num_threads(threads())
        model = build(self.network, self.seed)
        if self.weights is not None:
            load_initial_weights(self.weights, model)
        function = self._function()
        seed = stream_seed("model", self.seed)
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        curve: list[EpochMetrics] = []
        started = time.perf_counter()

        def report(epoch: int, **metrics: float) -> None:
            """Show a user's numbers of an epoch, and keep them as a point of the curve."""
            point = own_metrics(epoch, metrics, time.perf_counter() - started)
            curve.append(point)
            parent.report(point)

        try:
            score = function(model.to(self.device), seed=self.seed, device=self.device, report=report)
        except (Exception, SystemExit) as error:
            raise TrainerFailed(f"train {self.trainer.spec}: {described(error)}") from error
        return Trained(as_score(score, self.trainer.spec), tuple(curve), time.perf_counter() - started)

    def _function(self) -> Any:
        """The user's function, from the files that the task was made of. Raises TrainerFailed."""
        file, _, name = self.trainer.spec.rpartition(":")
        provide(self.network.sources)
        os.chdir(self.trainer.folder)
        try:
            function = getattr(import_file(file, self.trainer.folder), name)
        except (Exception, SystemExit) as error:
            raise TrainerFailed(f"train {self.trainer.spec}: {file} cannot be imported: {described(error)}") from error
        known = dict(self.trainer.sources)
        for source in captured(file, self.trainer.folder):
            if known.get(source.file, "") not in ("", hashlib.sha256(source.text.encode()).hexdigest()):
                raise TrainerFailed(f"train {self.trainer.spec}: {source.file} was changed while the search ran")
        return function


def known_seconds(task: Task) -> float:
    """Seconds of the last training of this task here; 0 if there was none."""
    try:
        return float(json.loads(_seconds_file(task).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return 0.0


def remember_seconds(task: Task, seconds: float) -> None:
    """Keep how long a training of this task took, for `agent plan`."""
    with contextlib.suppress(OSError):  # then the plan does not know it
        path = _seconds_file(task)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(seconds).encode(), durable=False)


def _seconds_file(task: Task) -> Path:
    digest = hashlib.sha256(json.dumps(task.identity(), sort_keys=True).encode()).hexdigest()
    return folder().parent / "trainer-seconds" / f"{digest}.json"


def as_score(value: Any, spec: str) -> float:
    """The returned score as a number. Raises TrainerFailed if it is none."""
    if hasattr(value, "item") and getattr(value, "numel", lambda: 1)() == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TrainerFailed(f"train {spec} returned {value!r:.80}, which is no number")
    return float(value)


def own_metrics(epoch: int, metrics: dict[str, Any], seconds: float) -> EpochMetrics:
    """A point of the curve with a user's numbers. What is no number is left out."""
    found = {}
    for name, value in metrics.items():
        number = value.item() if hasattr(value, "item") else value
        if isinstance(number, numbers.Real) and not isinstance(number, bool):
            found[name] = float(number)
    nan = math.nan
    loss = found.get("train_loss", found.get("loss", nan))
    return EpochMetrics(
        epoch=int(epoch),
        train_loss=loss,
        train_acc=nan,
        test_loss=found.get("val_loss", found.get("test_loss", nan)),
        test_acc=nan,
        lr=found.get("lr", nan),
        seconds=seconds,
        own=found,
    )
