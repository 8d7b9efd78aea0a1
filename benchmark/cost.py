"""Estimate the time of a training on this machine from a few real steps on random pictures."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmark import HARNESS_VERSION
from benchmark.executors import Executor, Parent
from benchmark.files import write_atomically
from benchmark.tasks import Task

SIZES: dict[str, tuple[int, int]] = {
    "cifar10": (50_000, 10_000),
    "cifar100": (50_000, 10_000),
    "fmnist": (60_000, 10_000),
    "openclipart100": (2_340, 1_164),
    "fmnist_pocket": (5_000, 2_000),
    "tiny": (200, 100),
}
"""Number of training and test pictures of each data set, known without loading it."""


@dataclass(frozen=True)
class MeasureCost:
    """A call for an executor that estimates the seconds of one full training of `task`. Reads no data set."""

    task: Task
    precision: str = "auto"
    steps: int = 6

    def __call__(self, parent: Parent) -> float:
        """Train a few steps twice, first as a warm-up. The cost of a step does not depend on the pictures."""
        import torch

        from benchmark.data import NUM_CLASSES, ImageDataset
        from benchmark.hardware import threads
        from benchmark.models import build_model
        from benchmark.train import train

        torch.set_num_threads(threads())
        recipe, classes = self.task.recipe, NUM_CLASSES[self.task.dataset]
        device = "cuda" if torch.cuda.is_available() else "cpu"
        count = self.steps * recipe.batch_size
        noise = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=noise)
        labels = torch.arange(count) % classes
        fake = ImageDataset(
            "noise", images, labels, images[:8], labels[:8], classes, (), (0.5,) * 3, (0.25,) * 3, "noise", ""
        )
        seconds = 0.0
        for _ in range(2):
            model = build_model(self.task.arch, classes)
            outcome = train(model, fake, replace(recipe, epochs=1), seed=0, device=device, precision=self.precision)
            seconds = outcome.seconds
        per_image = seconds / count
        # A forward pass costs about a third of a training step.
        return per_image * sum(size / share for size, share in zip(pictures(self.task), (1, 3), strict=True))


def pictures(task: Task) -> tuple[int, int]:
    """Return how many pictures one training of `task` trains on, and at most tests on, over all epochs."""
    recipe, (train_size, test_size) = task.recipe, SIZES[task.dataset]
    train_size = min(train_size, recipe.train_limit or train_size)
    test_size = min(test_size, recipe.test_limit or test_size)
    return recipe.epochs * train_size, recipe.epochs * test_size


_PICTURE = {"resnet20": 1.1, "resnet56": 3.1, "vgg16bn": 5.5, "mobilenetv2": 4.6}
"""About how long a network trains on one picture, milliseconds on a CPU core."""


def rough_seconds(task: Task) -> float:
    """Return about how long a training of `task` takes: only good for saying which of two takes longer."""
    trained, tested = pictures(task)
    return (trained + tested / 3) * _PICTURE.get(task.arch, 2.0) / 1000


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
        precision = environment.get("precision", "auto")
        futures = {task: executor.submit(MeasureCost(task, precision, steps=2), timeout=600) for task in missing}
        measured = {task: future.result() for task, future in futures.items()}
        for task, seconds in measured.items():
            self._write(task, environment, seconds)
        return {task.name: measured[task] if task in measured else float(known[task.name] or 0) for task in tasks}

    def _path(self, task: Task, environment: Mapping[str, str]) -> Path | None:
        content = json.dumps([HARNESS_VERSION, asdict(task), dict(environment)], sort_keys=True)
        digest = hashlib.sha256(content.encode()).hexdigest()
        return None if self._folder is None else self._folder / f"{digest}.json"

    def _read(self, task: Task, environment: Mapping[str, str]) -> float | None:
        path = self._path(task, environment)
        try:
            seconds = json.loads(path.read_text(encoding="utf-8"))["seconds"] if path else None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return float(seconds) if isinstance(seconds, float | int) and 0 < seconds < math.inf else None

    def _write(self, task: Task, environment: Mapping[str, str], seconds: float) -> None:
        path = self._path(task, environment)
        if path is None:
            return
        with contextlib.suppress(OSError):  # then the next run measures it again
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps({"task": task.name, "seconds": seconds}).encode())
