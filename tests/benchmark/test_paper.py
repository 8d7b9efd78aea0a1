"""The full protocol, a few of its steps, on CIFAR-100 files in the genuine format."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

import benchmark.data.cifar
from benchmark.data import load_dataset
from benchmark.models import build_model
from benchmark.results import EpochMetrics
from benchmark.tasks import PROFILES, Recipe
from benchmark.train import train
from tests.benchmark.data_files import write_cifar


class _Enough(Exception):
    """Two epochs have been seen."""


def test_recipe_is_the_published_one() -> None:
    """200 epochs of SGD at 0.1 with momentum 0.9, weight decay 5e-4, batches of 128, crop and flip; nothing reduced."""
    published = Recipe(epochs=200, lr=0.1, batch_size=128, momentum=0.9, weight_decay=5e-4, crop_padding=4, flip=True)
    paper = PROFILES["paper"]
    assert {task.recipe for task in (*paper.visible, *paper.hidden)} == {published}
    assert [task.name for task in paper.visible] == ["resnet56-cifar100", "vgg16bn-cifar100"]
    assert [task.name for task in paper.hidden] == ["mobilenetv2-fmnist"]
    assert dataclasses.asdict(published)["train_limit"] is None


def test_first_epochs_follow_the_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The paper's ResNet-56 task trains on genuine CIFAR-100 files; the learning rate is the 200-epoch cosine."""
    monkeypatch.setitem(benchmark.data.cifar.CIFAR, "cifar100", write_cifar(tmp_path, "cifar100", train=200))
    dataset = load_dataset("cifar100", data_root=tmp_path)
    task = PROFILES["paper"].visible[0]
    seen: list[EpochMetrics] = []

    def stop_after_two(metrics: EpochMetrics) -> None:
        seen.append(metrics)
        if len(seen) == 2:
            raise _Enough

    with pytest.raises(_Enough):
        train(build_model(task.arch, dataset.num_classes), dataset, task.recipe, seed=0, on_epoch=stop_after_two)
    expected = [0.05 * (1 + math.cos(math.pi * epoch / 200)) for epoch in (1, 2)]
    assert [metrics.lr for metrics in seen] == pytest.approx(expected)
    assert all(math.isfinite(metrics.train_loss) for metrics in seen)
