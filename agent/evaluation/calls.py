"""Picklable calls that run in a slot: the candidate's tensors are made in isolation, then trained by trusted code.

The parent process owns the isolation. A call asks the parent for tensors by a `Job`; a slot runs no candidate's code.
A call for another machine takes the tensors with it (`prepared`), because a worker there cannot ask.
"""

from __future__ import annotations

import math
import socket
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from agent.protocol import CandidateFailure
from benchmark.networks import NetworkError
from benchmark.results import EpochMetrics, EvaluationResult, region_sha256, result_key, task_sha256
from benchmark.task import Task
from sandbox.isolate import Initialised, Job

if TYPE_CHECKING:
    from torch import nn

    from benchmark.executors import Parent


@dataclass(frozen=True)
class Made:
    """What the isolation made of a region, for a call that runs on another machine."""

    ok: bool
    kind: str | None
    message: str
    level: str
    seconds: float
    sha256: str | None
    constructed: str | None
    """See `sandbox.isolate.Initialised`."""
    tensors: bytes = b""
    """A safetensors file with the network's parameters; empty for a region that failed."""


@dataclass(frozen=True)
class _InitialisedCall:
    """A call that needs the network of `task` as `region` initialises it with `seed`."""

    region: str
    task: Task
    seed: int
    made: Made | None = field(default=None, kw_only=True)
    """None: the call asks its parent. A call for another machine has it."""

    def prepared(self, ask: Callable[[Job], Initialised]) -> Self:
        """The same call with the tensors inside."""
        return replace(self, made=_make(self.region, self.task, self.seed, ask))

    def without_tensors(self) -> tuple[Self, bytes]:
        """The call without its tensors, which can be JSON, and the tensors."""
        made = self.made or Made(False, None, "", "", 0.0, None, None)
        return replace(self, made=replace(made, tensors=b"")), made.tensors

    def with_tensors(self, tensors: bytes) -> Self:
        """The call with these tensors."""
        return self if self.made is None else replace(self, made=replace(self.made, tensors=tensors))


@dataclass(frozen=True)
class EvaluationCall(_InitialisedCall):
    """Trains `region` on `task` with `seed`. Where it was `made` already, it trains only in its own environment."""

    environment: tuple[tuple[str, str], ...]
    """The value of `benchmark.hardware.environment`, which is part of the key."""
    precision: str = "auto"
    data_root: Path | None = None
    checkpoints: Path | None = None
    """The folder for this training's checkpoint; None: it has none."""
    reports: ClassVar[type[EpochMetrics]] = EpochMetrics

    @property
    def key(self) -> str:
        """The content key of the result; see `benchmark.results.result_key`."""
        return result_key(self.region, self.task, self.seed, environment=dict(self.environment))

    def __call__(self, parent: Parent) -> EvaluationResult | CandidateFailure:
        """Let the parent initialise in isolation, load the tensors, train. Reports the metrics of each epoch."""
        import torch

        from benchmark.checkpoint import Checkpoint
        from benchmark.data import hold_out
        from benchmark.data.prepared import load_task_data
        from benchmark.hardware import threads
        from benchmark.train import train

        torch.set_num_threads(threads())
        if self.made is not None or torch.cuda.is_available():  # the cards of one machine may differ, too
            _require_environment(dict(self.environment), self.precision)
        if self.task.trainer is not None:
            return self._with_own_trainer(parent)
        dataset = load_task_data(self.task.data, self.task.dataset, self.data_root)
        dataset = hold_out(dataset, self.task.recipe.held_out)
        try:
            model, initialised = initialised_model(self.region, self.task, self.seed, parent, self.made)
        except NetworkError as error:
            return CandidateFailure("network", str(error))
        if not initialised.ok:
            return CandidateFailure(initialised.kind or "isolation", initialised.message)
        checkpoint = None
        if self.checkpoints is not None:
            identity = f"{self.key} from {initialised.sha256}"
            checkpoint = Checkpoint(self.checkpoints / f"{self.key}.safetensors", identity)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        outcome = train(
            model,
            dataset,
            self.task.recipe,
            seed=self.seed,
            device=device,
            precision=self.precision,
            kernels=dict(self.environment).get("kernels", "auto"),
            on_epoch=parent.report,
            checkpoint=checkpoint,
        )
        if checkpoint is not None:
            checkpoint.remove()
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
            task_sha256=task_sha256(self.task),
            training_seconds=outcome.seconds,
            device=environment.get("device", device),
            precision=environment.get("precision", self.precision),
            threads=threads(),
            versions={"torch": str(torch.__version__)},
        )

    def _with_own_trainer(self, parent: Parent) -> EvaluationResult | CandidateFailure:
        """Initialise, then let the user's own trainer train in a fresh process."""
        import torch

        from benchmark.hardware import threads
        from benchmark.own_trainer import TrainCall, last_printed, remember_seconds, run_trainer
        from benchmark.results import StepZero

        task = self.task
        assert task.trainer is not None
        assert task.network is not None
        device = "cuda" if torch.cuda.is_available() else "cpu"
        with tempfile.TemporaryDirectory(prefix="initsearch-") as folder:
            weights = Path(folder) / "weights.safetensors"
            initialised = _weights(weights, self.region, task, self.seed, parent, self.made)
            if not initialised.ok:
                return CandidateFailure(initialised.kind or "isolation", initialised.message)
            output = Path(folder) / "printed.txt"
            call = TrainCall(task.trainer, task.network, weights, self.seed, device, output)
            trained = run_trainer(call, gpus=1 if device == "cuda" else 0, on_report=parent.report)
            printed = last_printed(output, 1)
        if isinstance(trained, str):
            return CandidateFailure("trainer", f"{trained}; it last printed {printed[0]!r}" if printed else trained)
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
            task_sha256=task_sha256(task),
            training_seconds=trained.seconds,
            device=environment.get("device", device),
            precision=environment.get("precision", self.precision),
            threads=threads(),
            versions={"torch": str(torch.__version__)},
            score=trained.score,
        )


@dataclass(frozen=True)
class SignalCall(_InitialisedCall):
    """Finds faults at step 0, on training pictures, that keep `region` from learning `task`. Returns sentences."""

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
        model, initialised = initialised_model(self.region, self.task, self.seed, parent, self.made)
        if not initialised.ok:
            return (f"{initialised.kind}: {initialised.message}",)
        count = self.task.recipe.batch_size
        normalize = Normalizer(dataset.mean, dataset.std, torch.device("cpu"))
        images = normalize(dataset.train_images[:count].contiguous())
        return signal_statistics(model, images, dataset.train_labels[:count]).faults


def job_for(task: Task, region: str, seed: int, out: Path | None = None) -> Job:
    """The initialisation of the task's network by `region`."""
    return Job(region, task.arch, task.num_classes, seed, out, task.network_for(region))


def initialised_model(
    region: str, task: Task, seed: int, parent: Parent, made: Made | None = None
) -> tuple[nn.Module, Made | Initialised]:
    """A new network with the weights that the region made in isolation, and the result of the isolation.

    The result is a failure if the constructors of a user's network made something else in isolation.
    """
    from benchmark.building import build_task_model
    from benchmark.networks import constructed_sha256
    from benchmark.task_loading import random_otherwise
    from benchmark.weights import load_initial_weights

    model = build_task_model(task, seed)
    here = constructed_sha256(model) if task.network_for(region) is not None else None
    with tempfile.TemporaryDirectory(prefix="initsearch-") as folder:
        weights = Path(folder) / "weights.safetensors"
        initialised = _weights(weights, region, task, seed, parent, made)
        if initialised.ok and here != initialised.constructed:
            message = random_otherwise(task.network.spec if task.network else task.arch)
            return model, replace(initialised, ok=False, kind="network", message=message)
        if initialised.ok:
            # Isolation accepted and wrote this file. If it does not load, that is our fault, so it raises.
            load_initial_weights(weights, model)
    return model, initialised


def _weights(out: Path, region: str, task: Task, seed: int, parent: Parent, made: Made | None) -> Made | Initialised:
    """Write the tensors that the region made in isolation to `out`, and return the result of the isolation."""
    if made is None:
        found: Initialised = parent.ask(job_for(task, region, seed, out))
        return found
    out.write_bytes(made.tensors)
    return made


def _make(region: str, task: Task, seed: int, ask: Callable[[Job], Initialised]) -> Made:
    """Let the isolation of this machine run the region once, and keep the tensors."""
    with tempfile.TemporaryDirectory(prefix="initsearch-") as folder:
        weights = Path(folder) / "weights.safetensors"
        found = ask(job_for(task, region, seed, weights))
        tensors = weights.read_bytes() if found.ok else b""
    return Made(
        found.ok, found.kind, found.message, found.level, found.seconds, found.sha256, found.constructed, tensors
    )


def _require_environment(wanted: dict[str, str], precision: str) -> None:
    """Raise WrongMachine if this process would give other accuracies than those that the call's key names."""
    from benchmark.executors import WrongMachine
    from benchmark.hardware import environment

    here = environment(precision, wanted.get("kernels", "auto"))
    unequal = [f"{name} {here.get(name)!r}, not {wanted[name]!r}" for name in wanted if here.get(name) != wanted[name]]
    if unequal:
        raise WrongMachine(f"{socket.gethostname()} has {', '.join(unequal)}")
