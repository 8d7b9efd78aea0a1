"""What a training costs on this machine: a few real steps on pictures of noise, extrapolated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from benchmark.tasks import Task

SIZES: dict[str, tuple[int, int]] = {
    "cifar10": (50_000, 10_000),
    "cifar100": (50_000, 10_000),
    "fmnist": (60_000, 10_000),
    "openclipart100": (2_340, 1_164),
    "fmnist_pocket": (5_000, 2_000),
    "tiny": (200, 100),
}
"""Training and test pictures of each data set; needs no loading."""

_STEPS = 6


@dataclass(frozen=True)
class MeasureCost:
    """A call for an executor: estimated seconds of one full training of `task`. Needs no data set on the disk."""

    task: Task
    precision: str = "auto"

    def __call__(self, report: Callable[[Any], None]) -> float:
        """Train a few steps twice, the first time to warm up; a step's cost does not depend on what is in a picture."""
        import torch

        from benchmark.data import NUM_CLASSES, ImageDataset
        from benchmark.hardware import threads
        from benchmark.models import build_model
        from benchmark.train import train

        torch.set_num_threads(threads())
        recipe, classes = self.task.recipe, NUM_CLASSES[self.task.dataset]
        device = "cuda" if torch.cuda.is_available() else "cpu"
        count = _STEPS * recipe.batch_size
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
        train_size, test_size = SIZES[self.task.dataset]
        train_size = min(train_size, recipe.train_limit or train_size)
        test_size = min(test_size, recipe.test_limit or test_size)
        # A forward pass costs about a third of a training step.
        return recipe.epochs * per_image * (train_size + test_size / 3)
