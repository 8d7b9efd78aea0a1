"""What an evaluation leaves behind, and the key that ties it to the code that made it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from benchmark import HARNESS_VERSION
from benchmark.tasks import Task

Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
"""A stored result with anything else is not believed, and is computed again."""


class EpochMetrics(BaseModel):
    """One line of the learning curve. Accuracies in percent, losses in nats, `seconds` since training began."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=True, ser_json_inf_nan="constants")

    epoch: int
    train_loss: float
    train_acc: float
    test_loss: float
    test_acc: float
    lr: float
    seconds: float


class StepZero(BaseModel):
    """The untrained network on the test set: it must be at chance, or something trained it beforehand."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=True, ser_json_inf_nan="constants")

    accuracy: float
    loss: float
    p_value: float
    """Probability of at least this many correct answers without knowing a label; see `benchmark.step_zero`."""
    suspicious: bool


class EvaluationResult(BaseModel):
    """One region trained on one task with one seed."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=True, ser_json_inf_nan="constants")

    key: str
    task: str
    seed: int
    region_sha256: str
    status: Literal["ok", "diverged"]
    """`diverged`: the loss became NaN or infinite; the accuracies are those measured until then."""
    best_test_acc: Percent
    """The protocol's metric: the best test accuracy over all epochs, percent."""
    last_test_acc: Percent
    """Mean test accuracy of the last ten epochs (or of all, if fewer), percent."""
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
    """SHA-256 of the initial parameters (little-endian float32, in the model's order); None in older results."""


def region_sha256(region: str) -> str:
    """SHA-256 of the region's UTF-8 bytes, hexadecimal."""
    return hashlib.sha256(region.encode()).hexdigest()


def result_key(region: str, task: Task, seed: int, *, environment: dict[str, str]) -> str:
    """SHA-256 over everything that determines an accuracy: code, task with recipe, seed, harness, `environment`.

    `environment` names what else changes the numbers on a machine: device, precision, threads, torch version.
    """
    identity = {
        "region": region,
        "task": dataclasses.asdict(task),
        "seed": seed,
        "harness": HARNESS_VERSION,
        "environment": environment,
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
