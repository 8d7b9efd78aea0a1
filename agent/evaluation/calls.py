"""Picklable calls that run in a slot: the candidate's tensors are made in isolation, then trained by trusted code.

The parent process owns the isolation. A call asks the parent for tensors by a `Job`; a slot runs no candidate's code.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent.protocol import CandidateFailure
from benchmark.results import EvaluationResult, region_sha256, result_key
from benchmark.tasks import Task
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
    checkpoints: Path | None = None
    """The folder for this training's checkpoint; None: it has none."""

    @property
    def key(self) -> str:
        """The content key of the result; see `benchmark.results.result_key`."""
        return result_key(self.region, self.task, self.seed, environment=dict(self.environment))

    def __call__(self, parent: Parent) -> EvaluationResult | CandidateFailure:
        """Let the parent initialise in isolation, load the tensors, train. Reports the metrics of each epoch."""
        import torch

        from benchmark.checkpoint import Checkpoint
        from benchmark.data import hold_out, load_dataset
        from benchmark.hardware import threads
        from benchmark.train import train

        torch.set_num_threads(threads())
        dataset = load_dataset(self.task.dataset, data_root=self.data_root)
        dataset = hold_out(dataset, self.task.recipe.held_out)
        model, initialised = _initialised(self.region, self.task.arch, dataset.num_classes, self.seed, parent)
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
            training_seconds=outcome.seconds,
            device=environment.get("device", device),
            precision=environment.get("precision", self.precision),
            threads=threads(),
            versions={"torch": torch.__version__},
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
        from benchmark.data import load_dataset
        from benchmark.hardware import threads
        from benchmark.signal_stats import signal_statistics

        torch.set_num_threads(threads())
        dataset = load_dataset(self.task.dataset, data_root=self.data_root)
        model, initialised = _initialised(self.region, self.task.arch, dataset.num_classes, self.seed, parent)
        if not initialised.ok:
            return (f"{initialised.kind}: {initialised.message}",)
        count = self.task.recipe.batch_size
        normalize = Normalizer(dataset.mean, dataset.std, torch.device("cpu"))
        images = normalize(dataset.train_images[:count].contiguous())
        return signal_statistics(model, images, dataset.train_labels[:count]).faults


def _initialised(region: str, arch: str, classes: int, seed: int, parent: Parent) -> tuple[nn.Module, Initialised]:
    """A new network with the weights that the region made in isolation, and the result of the isolation."""
    from benchmark.models import build_model
    from benchmark.weights import load_initial_weights

    model = build_model(arch, classes)
    with tempfile.TemporaryDirectory(prefix="initsearch-") as folder:
        weights = Path(folder) / "weights.safetensors"
        initialised: Initialised = parent.ask(Job(region, arch, classes, seed, weights))
        if initialised.ok:
            # Isolation accepted and wrote this file. If it does not load, that is our fault, so it raises.
            load_initial_weights(weights, model)
    return model, initialised
