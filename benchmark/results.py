"""The stored result of an evaluation, and the key computed from all that determines it."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from benchmark import HARNESS_VERSION
from benchmark.task import Metric, Task

Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
"""A stored result with any other value is not used but computed again."""


class _WithLaterFields(BaseModel):
    """Fields that came later are not written when they are None, so that older results keep their bytes."""

    _later: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _without_none(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = handler(self)
        return {name: value for name, value in found.items() if value is not None or name not in self._later}


class EpochMetrics(_WithLaterFields):
    """One point of the learning curve: accuracies in percent, losses in nats, `seconds` since the start."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=True, ser_json_inf_nan="constants")

    epoch: int
    train_loss: float
    train_acc: float
    test_loss: float
    test_acc: float
    lr: float
    seconds: float
    own: dict[str, float] | None = None
    """What a user's own trainer reported; the accuracies are then NaN."""
    _later: ClassVar[tuple[str, ...]] = ("own",)

    def score(self, metric: Metric) -> float:
        """The test accuracy or, of a user's own trainer, its number of that name, or its last one, or NaN."""
        if self.own is None:
            return self.test_acc
        return self.own.get(metric.name, next(reversed(self.own.values()), math.nan))


class StepZero(BaseModel):
    """The untrained network on the test set. If it is better than chance, the initialiser has trained it."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=True, ser_json_inf_nan="constants")

    accuracy: float
    loss: float
    p_value: float
    """Probability of at least this accuracy without knowledge of the labels; see `benchmark.step_zero`."""
    suspicious: bool


class EvaluationResult(_WithLaterFields):
    """One region trained on one task with one seed."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=True, ser_json_inf_nan="constants")

    key: str
    task: str
    seed: int
    region_sha256: str
    status: Literal["ok", "diverged"]
    """`diverged`: the loss became NaN or infinite, and the accuracies are those measured before."""
    best_test_acc: Percent
    """The protocol's metric: the best test accuracy over all epochs, percent."""
    last_test_acc: Percent
    """Mean test accuracy of the last ten epochs (or of all, if fewer) in percent."""
    test_loss: float
    """Cross-entropy on the test set after the last epoch, nats."""
    curve: tuple[EpochMetrics, ...]
    step_zero: StepZero
    isolation_level: str
    isolation_seconds: float
    training_seconds: float
    device: str
    precision: str
    threads: int
    versions: dict[str, str]
    weights_sha256: str | None = None
    """SHA-256 of the initial parameters (little-endian float32, in the model's order). None in older results."""
    task_sha256: str | None = None
    """`task_sha256` of the task. It tells recipes apart that share a task's name. None in older results."""
    score: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """What a user's own trainer returned; the accuracies are then 0."""
    _later: ClassVar[tuple[str, ...]] = ("score",)

    @property
    def value(self) -> float:
        """The number that is compared: the best test accuracy in percent, or the score of a user's own trainer."""
        return self.best_test_acc if self.score is None else self.score


def region_sha256(region: str) -> str:
    """Return the SHA-256 of the region's UTF-8 bytes, hexadecimal."""
    return hashlib.sha256(region.encode()).hexdigest()


def task_sha256(task: Task) -> str:
    """Return the SHA-256 of a task with its recipe and of the harness, whatever the region, seed and machine are."""
    identity = {"task": task.identity(), "harness": HARNESS_VERSION}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def result_key(region: str, task: Task, seed: int, *, environment: dict[str, str]) -> str:
    """Return the SHA-256 of all that determines an accuracy: region, task, recipe, seed, harness, `environment`.

    `environment` is what else changes the numbers on a machine: device, precision, threads, torch version.
    """
    identity = {
        "region": region,
        "task": task.identity(),
        "seed": seed,
        "harness": HARNESS_VERSION,
        "environment": environment,
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
