"""Builds the network of a task in a trusted process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmark.task import Task

if TYPE_CHECKING:
    from torch import nn


def build_task_model(task: Task, seed: int) -> nn.Module:
    """The network as its own constructors initialise it, on the CPU: one of a task file under `seed`.

    Raises NetworkError for a user's network.
    """
    from benchmark.models import build_model
    from benchmark.networks import build

    return build_model(task.arch, task.num_classes) if task.network is None else build(task.network, seed)
