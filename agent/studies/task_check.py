"""Looks at each task of a task file, by training a few steps of it on this machine: `agent task check`."""

from __future__ import annotations

import dataclasses
import math
import resource
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.clock import Clock
from agent.config import SearchConfig
from agent.errors import UsageError
from agent.evaluation.batches import Candidate
from agent.evaluation.calls import initialised_model, job_for
from agent.evaluation.workbench import open_workbench
from agent.profiles import baseline_region
from agent.progress import Progress
from agent.protocol import CandidateFailure
from agent.spaces.base import BuiltIn
from benchmark.executors import ProcessDied
from benchmark.networks import NetworkError, described
from benchmark.recipes import asks_for_blocks
from benchmark.results import EvaluationResult
from benchmark.store import LayeredStore, ResultStore
from benchmark.task import Profile, Task
from benchmark.task_loading import trainer_sees

if TYPE_CHECKING:
    from torch import nn

    from benchmark.executors import Parent

STEPS = 4
"""Training steps of each task, after two to warm up."""
TRAINER_SECONDS = 600
"""Longest training by a trainer of the user's own, unless more are given."""
_TESTED = 256
_SHORT_EPOCHS = 3
"""Epochs of a training that measures the noise, at most."""


@dataclass(frozen=True)
class TaskFacts:
    """What was found out about one task."""

    parameters: int
    seconds_per_epoch: float
    branches: int
    roles: str
    """Branches, layers on skips and head in words, or that torch.fx cannot trace the network."""
    depthwise: int
    hidden_linear: int
    memory: int
    """Bytes that the training process had at its peak, or on a GPU that its tensors had."""
    device: str
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


@dataclass(frozen=True)
class CheckCall:
    """A call for an executor that looks at one task. A text in the answer says why the task cannot be used."""

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
        from benchmark.data.prepared import load_task_data
        from benchmark.device_data import placement
        from benchmark.train import train

        data, recipe = load_task_data(self.task.data, self.task.dataset, self.data_root), self.task.recipe
        roles = _roles(model)
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
            placement=placed,
            accuracy=outcome.curve[-1].test_acc,
            diverged="diverged" in (first.status, outcome.status),
            **roles,
        )

    def _own_trainer(self, parent: Parent, device: str) -> TaskFacts | str:
        from benchmark.networks import build
        from benchmark.own_trainer import TrainCall, Trained, remember_seconds, run_trainer

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
                call = TrainCall(task.trainer, task.network, weights, 0, device)
                trained = run_trainer(call, gpus=1 if device == "cuda" else 0, seconds=self.seconds)
                if isinstance(trained, str):
                    return trained
                if not math.isfinite(trained.score):
                    return (
                        f"train {task.trainer.spec} returned {trained.score} as {task.metric.name}, which is no score"
                    )
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
        "depthwise": sum(map(is_depthwise, model.modules())),
        "hidden_linear": len(hidden_weights(model, found["head"])),
    }


@dataclass(frozen=True)
class CheckedTasks:
    """The result of a check: task → what was found, and with noise task → scores of the short trainings."""

    profile: Profile
    facts: Mapping[str, TaskFacts]
    noise: Mapping[str, Sequence[float]]

    def as_json(self) -> dict[str, Any]:
        """The `agent task check --json` object."""
        return {
            "ok": True,
            "name": self.profile.name,
            "tasks": [
                self._task_json(task, role)
                for role, tasks in (("visible", self.profile.visible), ("hidden", self.profile.hidden))
                for task in tasks
            ],
            "numbers": {"searched": self.searched, "without_effect": self.without_effect},
        }

    @property
    def searched(self) -> list[str]:
        """The numbers of the built-in search space that act on a visible network."""
        return list(BuiltIn.of(self.profile.visible).distributions())

    @property
    def without_effect(self) -> list[str]:
        """The numbers that act on none, and are not searched."""
        return list(BuiltIn.of(self.profile.visible).without_effect())

    def _task_json(self, task: Task, role: str) -> dict[str, Any]:
        facts = self.facts[task.name]
        found: dict[str, Any] = {
            "name": task.name,
            "role": role,
            "parameters": facts.parameters,
            "classes": task.num_classes,
            "train_images": task.sizes[0],
            "test_images": task.sizes[1],
            "seconds_per_epoch": round(facts.seconds_per_epoch, 3),
            "branches": facts.branches,
        }
        if facts.repeatable is not None:
            found |= {"metric": task.metric.name, "direction": task.metric.direction, "repeatable": facts.repeatable}
        if scores := self.noise.get(task.name):
            found["noise"] = {"sd": sd_of(scores), "scores": list(scores), "epochs": _short(task).recipe.epochs}
        return found

    def seconds(self, task: Task) -> float:
        """Seconds of one whole training."""
        facts = self.facts[task.name]
        return facts.seconds_per_epoch * (facts.epochs or task.recipe.epochs)

    def in_words(self) -> list[str]:
        """Lines for a person."""
        lines = []
        for role, tasks in (("visible", self.profile.visible), ("hidden", self.profile.hidden)):
            for task in tasks:
                lines += [f"{role} {task.name}", *(f"  {line}" for line in self._about(task))]
        if asks_for_blocks(baseline_region(self.profile)) and not all(task.strict for task in self.profile.tasks):
            lines.append(
                f"baseline {self.profile.baseline_name}: it knows residual blocks by the classes of this project's own "
                "networks, so what it does to blocks is left out in yours"
            )
        lines.append(f"numbers that are searched (docs/search-space.md): {', '.join(self.searched) or 'none'}")
        if self.without_effect:
            lines.append(f"not searched, no visible network has what they act on: {', '.join(self.without_effect)}")
        return lines

    def _about(self, task: Task) -> list[str]:
        facts = self.facts[task.name]
        lines = [f"network {task.network.spec if task.network else task.arch}: {facts.parameters:,} parameters"]
        if task.trainer is None:
            channels, height, width = task.picture
            lines.append(
                f"data {task.dataset}: {task.sizes[0]:,} training and {task.sizes[1]:,} test pictures of "
                f"{channels}×{height}×{width}, {task.num_classes} classes"
            )
            lines += list(task.data.notes) if task.data else []
        else:
            value = task.metric.text(facts.score or 0.0)
            lines.append(f"trainer {task.trainer.spec}: {task.metric.name} {value}, {task.metric.direction}")
            if task.metric.is_accuracy and 0 < (facts.score or 0.0) <= 1:
                lines.append("accuracy counts in percent, and this looks like a fraction: 93 % is 93, not 0.93")
            again = "the same" if facts.repeatable else "another score, so equal code can differ"
            lines.append(f"a second training with the same seed gave {again}")
            lines.append("the chance-level check of untrained networks knows classes only, so it is left out")
            for file in trainer_sees(task):
                lines.append(f"{file} holds network and trainer, so the candidate can read the trainer")
        more = f"{facts.depthwise} depthwise convolutions, {facts.hidden_linear} hidden Linear layers"
        lines.append(f"roles: {facts.roles}; {more}")
        lines += [facts.placement] if facts.placement else []
        if facts.accuracy is not None:
            fault = "; the loss became NaN or infinite (a lower lr may help)" if facts.diverged else ""
            lines.append(f"after {STEPS + 2} steps: test accuracy {facts.accuracy:.1f} %{fault}")
        lines.append(
            f"about {facts.seconds_per_epoch:.1f} s an epoch, {self.seconds(task):.0f} s a training on {facts.device}; "
            f"memory {facts.memory / 2**20:,.0f} MiB"
        )
        if scores := self.noise.get(task.name):
            lines.append(
                f"SD of one seed over {len(scores)} short trainings: {sd_of(scores):.3g} {task.metric.points} "
                f"([noise] in the task file takes such a number)"
            )
        return lines


def sd_of(scores: Sequence[float]) -> float | None:
    """The sample standard deviation; None for a single score."""
    return statistics.stdev(scores) if len(scores) > 1 else None


def check_task_file(
    profile: Profile, config: SearchConfig, progress: Progress, *, noise: int = 0, seconds: float = TRAINER_SECONDS
) -> CheckedTasks:
    """Look at every task. `noise` is the number of short trainings of the baseline. Raises UsageError.

    `seconds`: the longest training by a trainer of the user's own.
    """
    region = baseline_region(profile)
    with open_workbench(config, Clock(), progress, evaluations=max(1, noise)) as workbench:
        calls = [CheckCall(task, region, config.precision, config.data_root, seconds) for task in profile.tasks]
        facts: dict[str, TaskFacts] = {}
        for call in calls:
            name, own = call.task.name, call.task.trainer is not None
            few = f"trains {STEPS + 2} steps, then evaluates"
            progress.message(f"{name}: {f'trains twice, for at most {seconds:g} s each (--seconds)' if own else few}")
            try:
                found = workbench.executor.submit(call, on_ask=workbench.isolation.initialise).result()
            except ProcessDied as error:
                found = f"{call.task.network.spec if call.task.network else name}: {error.how()}"
            if isinstance(found, str):
                raise UsageError(f"--profile {profile.file or profile.name}: task {name}: {found}")
            facts[name] = found
        scores: dict[str, Sequence[float]] = {}
        if noise:
            tasks = [_short(task) for task in profile.tasks]
            progress.begin(noise * len(tasks))
            with tempfile.TemporaryDirectory(prefix="initsearch-noise-") as folder:
                outcomes = workbench.evaluator.evaluate(
                    [Candidate("baseline", region)],
                    tasks,
                    config.evaluation_seeds[:1] if noise == 1 else tuple(range(config.seed, config.seed + noise)),
                    results=LayeredStore(ResultStore(Path(folder))),
                )
            for (_, name, seed), outcome in outcomes.items():
                if isinstance(outcome, CandidateFailure):
                    raise UsageError(f"task {name} with seed {seed}: {outcome.message} [{outcome.kind}]")
            for task in tasks:
                scores[task.name] = [
                    outcome.value
                    for (_, name, _), outcome in outcomes.items()
                    if name == task.name and isinstance(outcome, EvaluationResult)
                ]
    return CheckedTasks(profile, facts, scores)


def _short(task: Task) -> Task:
    """The task with a short training; one with a trainer of its own stays as it is."""
    if task.trainer is not None:
        return task
    epochs = min(task.recipe.epochs, _SHORT_EPOCHS)
    warmup = min(task.recipe.warmup_epochs, epochs - 1)
    return dataclasses.replace(task, recipe=dataclasses.replace(task.recipe, epochs=epochs, warmup_epochs=warmup))
