"""Picklable calls that run in a slot: the candidate's tensors are made in isolation, then trained by trusted code.

The parent process owns the isolation. A call asks the parent for tensors by a `Job`; a slot runs no candidate's code.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent.protocol import CandidateFailure
from benchmark.results import EvaluationResult, region_sha256, result_key
from benchmark.task import Task
from sandbox.isolate import Initialised, Job

if TYPE_CHECKING:
    from torch import nn

    from benchmark.executor import Parent


@dataclass(frozen=True)
class EvaluationCall:
    """Trains `region` on `task` with `seed`."""

    region: str
    task: Task
    seed: int
    environment: tuple[tuple[str, str], ...]
    """The value of `benchmark.hardware.environment`, which is part of the key."""
    precision: str = "auto"
    data_root: Path | None = None

    @property
    def key(self) -> str:
        """The content key of the result; see `benchmark.results.result_key`."""
        return result_key(self.region, self.task, self.seed, environment=dict(self.environment))

    def __call__(self, parent: Parent) -> EvaluationResult | CandidateFailure:
        """Let the parent initialise in isolation, load the tensors, train. Reports the metrics of each epoch."""
        import torch

        from benchmark.data import hold_out
        from benchmark.data.prepared import load_task_data
        from benchmark.hardware import threads
        from benchmark.train import train

        torch.set_num_threads(threads())
        if self.task.trainer is not None:
            return self._with_own_trainer(parent)
        dataset = load_task_data(self.task.data, self.task.dataset, self.data_root)
        dataset = hold_out(dataset, self.task.recipe.held_out)
        model, initialised = initialised_model(self.region, self.task, self.seed, parent)
        if not initialised.ok:
            return CandidateFailure(initialised.kind or "isolation", initialised.message)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        outcome = train(
            model,
            dataset,
            self.task.recipe,
            seed=self.seed,
            device=device,
            precision=self.precision,
            on_epoch=parent.report,
        )
        if outcome.step_zero.suspicious:
            zero = outcome.step_zero
            return CandidateFailure(
                "suspicious",
                f"before any training the network was right on {zero.accuracy:.1f} % with a loss of {zero.loss:.3f}, "
                f"beyond luck (p = {zero.p_value:.1g}): it was trained beforehand, so its accuracy does not count",
            )
        environment = dict(self.environment)
        tail = outcome.curve[-10:]
        return EvaluationResult(
            key=self.key,
            task=self.task.name,
            seed=self.seed,
            region_sha256=region_sha256(self.region),
            status=outcome.status,
            best_test_acc=max(epoch.test_acc for epoch in outcome.curve),
            last_test_acc=sum(epoch.test_acc for epoch in tail) / len(tail),
            test_loss=outcome.curve[-1].test_loss,
            curve=outcome.curve,
            step_zero=outcome.step_zero,
            isolation_level=initialised.level,
            isolation_seconds=initialised.seconds,
            weights_sha256=initialised.sha256,
            training_seconds=outcome.seconds,
            device=environment.get("device", device),
            precision=environment.get("precision", self.precision),
            threads=threads(),
            versions={"torch": torch.__version__},
        )

    def _with_own_trainer(self, parent: Parent) -> EvaluationResult | CandidateFailure:
        """Initialise, then let the user's own trainer train in a fresh process."""
        import torch

        from benchmark.executor import LocalExecutor
        from benchmark.hardware import threads
        from benchmark.own_trainer import TrainCall, remember_seconds
        from benchmark.results import StepZero

        task = self.task
        assert task.trainer is not None
        assert task.network is not None
        device = "cuda" if torch.cuda.is_available() else "cpu"
        with tempfile.TemporaryDirectory(prefix="initsearch-") as folder:
            weights = Path(folder) / "weights.safetensors"
            initialised: Initialised = parent.ask(job_for(task, self.region, self.seed, weights))
            if not initialised.ok:
                return CandidateFailure(initialised.kind or "isolation", initialised.message)
            call = TrainCall(task.trainer, task.network, weights, self.seed, device)
            gpus = 1 if device == "cuda" else 0
            with LocalExecutor(1, threads=threads(), gpus=gpus) as executor:
                trained = executor.submit(call, on_report=parent.report).result()
        if isinstance(trained, str):
            return CandidateFailure("trainer", trained)
        remember_seconds(task, trained.seconds)
        if not math.isfinite(trained.score):
            return CandidateFailure("not_finite", f"{task.trainer.spec} returned {trained.score} as {task.metric.name}")
        environment = dict(self.environment)
        return EvaluationResult(
            key=self.key,
            task=task.name,
            seed=self.seed,
            region_sha256=region_sha256(self.region),
            status="ok",
            best_test_acc=0.0,
            last_test_acc=0.0,
            test_loss=math.nan,
            curve=trained.curve,
            step_zero=StepZero(accuracy=0.0, loss=math.nan, p_value=1.0, suspicious=False),
            isolation_level=initialised.level,
            isolation_seconds=initialised.seconds,
            weights_sha256=initialised.sha256,
            training_seconds=trained.seconds,
            device=environment.get("device", device),
            precision=environment.get("precision", self.precision),
            threads=threads(),
            versions={"torch": torch.__version__},
            score=trained.score,
        )


@dataclass(frozen=True)
class SignalCall:
    """Finds faults at step 0, on training pictures, that keep `region` from learning `task`. Returns sentences."""

    region: str
    task: Task
    seed: int
    data_root: Path | None = None

    def __call__(self, parent: Parent) -> tuple[str, ...]:
        """Let the parent initialise in isolation, then run one batch forwards and backwards."""
        import torch

        from benchmark.augment import Normalizer
        from benchmark.data.prepared import load_task_data
        from benchmark.hardware import threads
        from benchmark.signal_stats import signal_statistics

        torch.set_num_threads(threads())
        dataset = load_task_data(self.task.data, self.task.dataset, self.data_root)
        model, initialised = initialised_model(self.region, self.task, self.seed, parent)
        if not initialised.ok:
            return (f"{initialised.kind}: {initialised.message}",)
        count = self.task.recipe.batch_size
        normalize = Normalizer(dataset.mean, dataset.std, torch.device("cpu"))
        images = normalize(dataset.train_images[:count].contiguous())
        return signal_statistics(model, images, dataset.train_labels[:count]).faults


def job_for(task: Task, region: str, seed: int, out: Path | None = None) -> Job:
    """The initialisation of the task's network by `region`."""
    return Job(region, task.arch, task.num_classes, seed, out, task.network_for(region))


def initialised_model(region: str, task: Task, seed: int, parent: Parent) -> tuple[nn.Module, Initialised]:
    """A new network with the weights that the region made in isolation, and the result of the isolation.

    The result is a failure if the constructors of a user's network made something else in isolation.
    """
    from benchmark.building import build_task_model
    from benchmark.networks import constructed_sha256
    from benchmark.task_loading import random_otherwise
    from benchmark.weights import load_initial_weights

    model = build_task_model(task, seed)
    made = constructed_sha256(model) if task.network_for(region) is not None else None
    with tempfile.TemporaryDirectory(prefix="initsearch-") as folder:
        weights = Path(folder) / "weights.safetensors"
        initialised: Initialised = parent.ask(job_for(task, region, seed, weights))
        if initialised.ok and made != initialised.constructed:
            message = random_otherwise(task.network.spec if task.network else task.arch)
            return model, dataclasses.replace(initialised, ok=False, kind="network", message=message)
        if initialised.ok:
            # Isolation accepted and wrote this file. If it does not load, that is our fault, so it raises.
            load_initial_weights(weights, model)
    return model, initialised
