"""A call that looks at one task of a task file by training a few steps of it: what `agent task check` found out."""

from __future__ import annotations

import dataclasses
import math
import resource
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.evaluation.calls import initialised_model, job_for
from benchmark.network_look import called_by_place, gives_probabilities, why_untraced
from benchmark.networks import NetworkError, described, users_function
from benchmark.task import Task

if TYPE_CHECKING:
    from torch import nn

    from benchmark.executors import Parent

STEPS = 4
"""Training steps of each task, after two to warm up."""
TRAINER_SECONDS = 600
"""Longest training by a trainer of the user's own, unless more are given."""
_TESTED = 256
_PRINTED = 20
"""Lines of an own trainer that are shown."""


@dataclass(frozen=True)
class TaskFacts:
    """What was found out about one task."""

    parameters: int
    seconds_per_epoch: float
    branches: int
    roles: str
    """Branches, layers on skips and head in words, or that torch.fx cannot trace the network."""
    untraced: str | None
    """What torch.fx says about a network that it cannot trace, with the user's line; None where it can."""
    depthwise: int
    hidden_linear: int
    memory: int
    """Bytes that the training process had at its peak, or on a GPU that its tensors had."""
    device: str
    called: str | None = None
    """How the user's function is called, if it has no argument num_classes."""
    probabilities: bool = False
    """Whether the network gives probabilities, of which the loss takes the softmax again."""
    pixels: tuple[str, ...] = ()
    """Mean and SD of the pictures, and what is wrong with them."""
    placement: str | None = None
    """Where the pictures are, if they find no room on the device."""
    accuracy: float | None = None
    """Test accuracy after the few steps, percent."""
    diverged: bool = False
    """Whether the loss became NaN or infinite in these steps."""
    repeatable: bool | None = None
    """Of an own trainer: whether a second training with the same seed gave the same score."""
    score: float | None = None
    epochs: int = 0
    """Epochs that an own trainer reported."""
    printed: tuple[str, ...] = ()
    """The last lines that an own trainer printed."""


@dataclass(frozen=True)
class CheckCall:
    """A call for an executor that looks at one task.

    A text in the answer says in its first line why the task cannot be used; the others are what its trainer printed.
    """

    task: Task
    region: str
    precision: str
    data_root: Path | None = None
    seconds: float = TRAINER_SECONDS
    """What each training by a trainer of the user's own may take."""

    def __call__(self, parent: Parent) -> TaskFacts | str:
        """Initialise in isolation, train, evaluate."""
        import torch

        from benchmark.hardware import threads

        torch.set_num_threads(threads())
        device = "cuda" if torch.cuda.is_available() else "cpu"
        if self.task.trainer is not None:
            return self._own_trainer(parent, device)
        try:
            model, made = initialised_model(self.region, self.task, 0, parent)
        except NetworkError as error:
            return str(error)
        if not made.ok:
            return f"the baseline fails: {made.message} [{made.kind}]"
        return self._trained(model, device)

    def _trained(self, model: nn.Module, device: str) -> TaskFacts | str:
        import torch

        from benchmark.cost import FORWARD, work
        from benchmark.data.pixels import pixel_lines
        from benchmark.data.prepared import load_task_data
        from benchmark.device_data import placement
        from benchmark.train import train

        network = self.task.network
        data, recipe = load_task_data(self.task.data, self.task.dataset, self.data_root), self.task.recipe
        roles = _roles(model)
        probabilities = network is not None and gives_probabilities(network, model)
        count = min(STEPS * recipe.batch_size, self.task.sizes[0])
        tested = min(_TESTED, self.task.sizes[1])
        placed = placement(data, recipe, torch.device(device))  # before the training takes memory
        few = dataclasses.replace(recipe, epochs=1, warmup_epochs=0.0, train_limit=count, test_limit=tested)
        one = dataclasses.replace(few, train_limit=min(recipe.batch_size, count))
        try:
            _, first, outcome = (
                train(model, data, part, seed=0, device=device, precision=self.precision) for part in (one, one, few)
            )
        except Exception as error:  # noqa: BLE001 - such as no bfloat16, no memory, or a fault in the user's network
            return f"a training step fails: {described(error)}"
        more = count - (one.train_limit or 0)
        per_image = (outcome.seconds - first.seconds) / more if more else 0.0  # without what each training does once
        if per_image <= 0:
            per_image = outcome.seconds / (count + FORWARD * tested)
        memory = torch.cuda.max_memory_allocated() if device == "cuda" else _peak()
        return TaskFacts(
            seconds_per_epoch=per_image * work(self.task) / recipe.epochs,
            memory=memory,
            device=device,
            called=called_by_place(network, users_function(network)) if network and network.sources else None,
            probabilities=probabilities,
            pixels=tuple(pixel_lines(data)),
            placement=placed,
            accuracy=outcome.curve[-1].test_acc,
            diverged="diverged" in (first.status, outcome.status),
            **roles,
        )

    def _own_trainer(self, parent: Parent, device: str) -> TaskFacts | str:
        from benchmark.networks import build
        from benchmark.own_trainer import TrainCall, Trained, last_printed, remember_seconds, run_trainer

        task = self.task
        assert task.trainer is not None
        assert task.network is not None
        scores: list[Trained] = []
        for _ in range(2):
            with tempfile.TemporaryDirectory(prefix="initsearch-") as folder:
                weights = Path(folder) / "weights.safetensors"
                made = parent.ask(job_for(task, self.region, 0, weights))
                if not made.ok:
                    return f"the baseline fails: {made.message} [{made.kind}]"
                output = Path(folder) / "printed.txt"
                call = TrainCall(task.trainer, task.network, weights, 0, device, output)
                trained = run_trainer(call, gpus=1 if device == "cuda" else 0, seconds=self.seconds)
                printed = last_printed(output, _PRINTED)
                if isinstance(trained, str):
                    return "\n".join([trained, *printed])
                if not math.isfinite(trained.score):
                    no_score = f"{trained.score} as {task.metric.name}, which is no score"
                    return "\n".join([f"train {task.trainer.spec} returned {no_score}", *printed])
                remember_seconds(task, trained.seconds)
                scores.append(trained)
        epochs = len(scores[0].curve)
        return TaskFacts(
            seconds_per_epoch=scores[1].seconds / max(1, epochs),
            memory=_peak(),
            device=device,
            repeatable=scores[0].score == scores[1].score,
            score=scores[0].score,
            epochs=epochs,
            printed=tuple(printed),
            **_roles(build(task.network, 0)),
        )


def _peak() -> int:
    return 1024 * max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def _roles(model: nn.Module) -> dict[str, Any]:
    """The parts of the network that the built-in search space knows."""
    from benchmark.roles import hidden_weights, is_depthwise, network_roles, roles_in_words

    found = network_roles(model)
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "branches": len(found["branches"]),
        "roles": roles_in_words(model, found),
        "untraced": None if found["traced"] else why_untraced(model),
        "depthwise": sum(map(is_depthwise, model.modules())),
        "hidden_linear": len(hidden_weights(model, found["head"])),
    }
