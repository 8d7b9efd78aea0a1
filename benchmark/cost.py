"""Estimate the time of a training on this machine from a few real steps on random pictures."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmark import HARNESS_VERSION
from benchmark.executors import Executor, Parent
from benchmark.files import write_atomically
from benchmark.hardware import gpu_count
from benchmark.results import EpochMetrics
from benchmark.task import SIZES, Task

__all__ = ["SIZES", "KnownCosts", "MeasureCost", "pictures"]


FORWARD = 1 / 3
"""About what a forward pass costs of a training step."""
_TIMEOUT = 600.0
_GPU_STEPS = 10
"""A GPU trains so many batches for each that a CPU trains: they are short."""


@dataclass(frozen=True)
class MeasureCost:
    """A call for an executor that estimates the seconds of one full training of `task`. Reads no data set."""

    task: Task
    precision: str = "auto"
    steps: int = 6
    kernels: str = "auto"
    lanes: int = 1
    """Trainings that share a GPU. All of them train, since each is slower then."""
    idle: bool = False
    """On a CPU, count the processor's time and not the clock's: what it would take if nothing else ran."""

    def __call__(self, parent: Parent) -> float:
        """Train two epochs of a few steps, first as a warm-up. The time of a step does not depend on the pictures."""
        import torch

        from benchmark.own_trainer import known_seconds

        if self.task.trainer is not None:
            return known_seconds(self.task)  # only a whole training tells
        return self._in_lanes() if torch.cuda.is_available() or self.lanes > 1 else self._alone()

    def _in_lanes(self) -> float:
        """Measure an epoch after that in which steps are captured, which a training pays once."""
        import torch

        from benchmark.building import build_task_model
        from benchmark.lane_rate import measure_lanes

        rate = measure_lanes(
            self.task.arch,
            self.lanes,
            build=lambda seed: build_task_model(self.task, seed),
            picture=self.task.picture,
            classes=self.task.num_classes,
            batch_size=self.task.recipe.batch_size,
            steps=self.steps * _GPU_STEPS,
            epochs=2,
            precision=self.precision,
            kernels=self.kernels,
            device="cuda" if torch.cuda.is_available() else "cpu",
        )
        return work(self.task) * self.lanes / rate.images_per_second

    def _alone(self) -> float:
        import torch

        from benchmark.building import build_task_model
        from benchmark.data import ImageDataset
        from benchmark.hardware import threads
        from benchmark.train import train

        torch.set_num_threads(threads())
        recipe, classes = self.task.recipe, self.task.num_classes
        count = self.steps * recipe.batch_size
        tests = min(8, count // 4)  # so few that there is an evaluation after each epoch
        channels = self.task.picture[0]
        noise = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (count, *self.task.picture), dtype=torch.uint8, generator=noise)
        labels = torch.arange(count) % classes
        fake = ImageDataset(
            "noise",
            images,
            labels,
            images[:tests],
            labels[:tests],
            classes,
            (),
            (0.5,) * channels,
            (0.25,) * channels,
            "noise",
            "",
        )
        ends: list[float] = []

        def note_time(metrics: EpochMetrics) -> None:
            ends.append(time.process_time() / threads() if self.idle else time.perf_counter())

        train(
            build_task_model(self.task, 0),
            fake,
            replace(recipe, epochs=2),
            seed=0,
            precision=self.precision,
            on_epoch=note_time,
        )
        return work(self.task) * (ends[1] - ends[0]) / count


def measure_costs(
    tasks: Sequence[Task], executor: Executor, *, precision: str, kernels: str = "auto", steps: int = 6
) -> dict[Task, float]:
    """Return the seconds of one training of each task. On a GPU one after another, because each fills all lanes.

    Raises InfrastructureError if our own processes fail.
    """
    gpus = gpu_count()
    lanes = max(1, executor.slots // gpus) if gpus else 1
    calls = {task: MeasureCost(task, precision, steps, kernels, lanes) for task in tasks}
    if gpus:
        return {task: executor.submit(call, timeout=_TIMEOUT).result() for task, call in calls.items()}
    futures = {task: executor.submit(call, timeout=_TIMEOUT) for task, call in calls.items()}
    return {task: future.result() for task, future in futures.items()}


def pictures(task: Task) -> tuple[int, int]:
    """Return how many pictures one training of `task` trains on, and at most tests on, over all epochs."""
    recipe, (train_size, test_size) = task.recipe, task.sizes
    train_size = min(train_size, recipe.train_limit or train_size)
    test_size = min(test_size, recipe.test_limit or test_size)
    return recipe.epochs * train_size, recipe.epochs * test_size


def work(task: Task) -> float:
    """Return what one training of `task` costs, tests included, in pictures that are trained on."""
    trained, tested = pictures(task)
    return trained + FORWARD * tested


_PICTURE = {"resnet20": 1.1, "resnet56": 3.1, "vgg16bn": 5.5, "mobilenetv2": 4.6}
"""About how long a network trains on one picture, milliseconds on a CPU core."""


def rough_seconds(task: Task) -> float:
    """Return about how long a training of `task` takes: only good for saying which of two takes longer."""
    return work(task) * _PICTURE.get(task.arch, 2.0) / 1000


class KnownCosts:
    """Keeps measured costs in a folder (None: keeps none). They are rough, so two steps are enough."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def measure(self, tasks: Sequence[Task], executor: Executor, environment: Mapping[str, str]) -> dict[str, float]:
        """Return the seconds of one training by task name. Unknown costs are measured in parallel.

        Raises InfrastructureError if our own processes fail.
        """
        known = {task.name: self._read(task, environment) for task in tasks}
        missing = [task for task in tasks if known[task.name] is None]
        precision, kernels = environment.get("precision", "auto"), environment.get("kernels", "auto")
        measured = measure_costs(missing, executor, precision=precision, kernels=kernels, steps=2)
        for task, seconds in measured.items():
            self._write(task, environment, seconds)
        return {task.name: measured[task] if task in measured else float(known[task.name] or 0) for task in tasks}

    def _path(self, task: Task, environment: Mapping[str, str]) -> Path | None:
        content = json.dumps([HARNESS_VERSION, task.identity(), dict(environment)], sort_keys=True)
        digest = hashlib.sha256(content.encode()).hexdigest()
        return None if self._folder is None else self._folder / f"{digest}.json"

    def _read(self, task: Task, environment: Mapping[str, str]) -> float | None:
        path = self._path(task, environment)
        try:
            seconds = json.loads(path.read_text(encoding="utf-8"))["seconds"] if path else None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return float(seconds) if isinstance(seconds, float | int) and 0 <= seconds < math.inf else None

    def _write(self, task: Task, environment: Mapping[str, str], seconds: float) -> None:
        path = self._path(task, environment)
        if path is None:
            return
        with contextlib.suppress(OSError):  # then the next run measures it again
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps({"task": task.name, "seconds": seconds}).encode())
