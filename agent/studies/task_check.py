"""Looks at each task of a task file, by training a few steps of it on this machine: `agent task check`."""

from __future__ import annotations

import dataclasses
import re
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.clock import Clock
from agent.config import SearchConfig
from agent.errors import UsageError
from agent.evaluation.batches import Candidate
from agent.evaluation.workbench import open_workbench
from agent.profiles import baseline_region
from agent.progress import Progress
from agent.protocol import CandidateFailure
from agent.spaces.base import BuiltIn
from agent.spaces.builtin import KNOBS
from agent.studies.task_facts import STEPS, TRAINER_SECONDS, CheckCall, TaskFacts
from benchmark.executors import ProcessDied
from benchmark.recipes import asks_for_blocks
from benchmark.results import EvaluationResult
from benchmark.store import LayeredStore, ResultStore
from benchmark.task import Profile, Task
from benchmark.task_loading import trainer_sees

_SHORT_EPOCHS = 3
"""Epochs of a training that measures the noise, at most."""


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

    def noise_table(self) -> list[str]:
        """The [noise] table of a task file with what was measured; [] where nothing scattered."""
        found = {name: sd for name, scores in self.noise.items() if (sd := sd_of(scores))}
        keys = {name: name if re.fullmatch("[A-Za-z0-9_-]+", name) else f'"{name}"' for name in found}
        return ["[noise]", *(f"{keys[name]} = {sd:.3g}" for name, sd in found.items())] if found else []

    def _trained(self, task: Task, count: int) -> str:
        short, whole = _short(task).recipe.epochs, task.recipe.epochs
        epochs = "" if task.trainer else f" of {short} epoch{'s' if short > 1 else ''}"
        return f"{count} training{'s' if count > 1 else ''}{epochs}{f' (a test has {whole})' if short < whole else ''}"

    def _about(self, task: Task) -> list[str]:
        facts = self.facts[task.name]
        lines = [f"network {task.network.spec if task.network else task.arch}: {facts.parameters:,} parameters"]
        lines += [facts.called] if facts.called else []
        if facts.probabilities:
            lines.append(
                "warning: it gives probabilities, but the loss, cross-entropy, takes logits: leave softmax out"
            )
        if task.trainer is None:
            channels, height, width = task.picture
            lines.append(
                f"data {task.dataset}: {task.sizes[0]:,} training and {task.sizes[1]:,} test pictures of "
                f"{channels}×{height}×{width}, {task.num_classes} classes"
            )
            lines += [*(task.data.notes if task.data else ()), *facts.pixels]
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
        if facts.untraced:
            unknown = ", ".join(knob.name for knob in KNOBS if knob.role in ("branch", "gain", "skip_conv"))
            lines.append(f"torch.fx: {facts.untraced}")
            lines.append(f"until it can, these numbers change nothing in this network: {unknown}")
        lines += [facts.placement] if facts.placement else []
        if facts.accuracy is not None:
            fault = "; the loss became NaN or infinite (a lower lr may help)" if facts.diverged else ""
            lines.append(f"after {STEPS + 2} steps: test accuracy {facts.accuracy:.1f} %{fault}")
        lines.append(
            f"about {facts.seconds_per_epoch:.1f} s an epoch, {self.seconds(task):.0f} s a training on {facts.device}; "
            f"memory {facts.memory / 2**20:,.0f} MiB"
        )
        if scores := self.noise.get(task.name):
            sd = (
                f"{found:.3g} {task.metric.points}"
                if (found := sd_of(scores)) is not None
                else "one training shows none"
            )
            lines.append(f"SD of one seed over {self._trained(task, len(scores))}: {sd}")
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
            fault, *printed = found.split("\n") if isinstance(found, str) else ("", *found.printed)
            for line in ([f"{name}: the trainer printed, at last:"] if printed else []) + printed:
                progress.message(line)
            if isinstance(found, str):
                raise UsageError(f"--profile {profile.file or profile.name}: task {name}: {fault}")
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
