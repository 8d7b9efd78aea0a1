"""Measure what a device gives: images per second of one or more lanes, with their set-up and memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import nn

from benchmark.data import ImageDataset
from benchmark.executors import Parent
from benchmark.lanes import free_memory
from benchmark.models import build_model
from benchmark.results import EpochMetrics
from benchmark.tasks import Recipe
from benchmark.train import train

_CLASSES = 100
_WITHIN = 0.95
"""Fewer lanes are taken if they give this share of the most images per second: each lane costs memory."""


@dataclass(frozen=True)
class LaneRate:
    """What `lanes` trainings of one network gave side by side."""

    arch: str
    lanes: int
    images_per_second: float
    """Of all lanes together."""
    setup_seconds: float
    """Until all lanes had trained their first epoch: first use of kernels, capture, and compilation."""
    memory_bytes: int
    """Most memory of the GPU that tensors had, data and graphs included; 0 on a CPU."""


def noise(
    train_count: int, test_count: int, picture: tuple[int, int, int] = (3, 32, 32), classes: int = _CLASSES
) -> ImageDataset:
    """Return random pictures. The time of a step does not depend on them."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (train_count + test_count, *picture), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, classes, (train_count + test_count,), generator=generator)
    return ImageDataset(
        name="noise",
        train_images=images[:train_count],
        train_labels=labels[:train_count],
        test_images=images[train_count:],
        test_labels=labels[train_count:],
        num_classes=classes,
        class_names=(),
        mean=(0.5,) * picture[0],
        std=(0.25,) * picture[0],
        sha256="noise",
        provenance="",
    )


def measure_lanes(
    arch: str,
    lanes: int,
    *,
    batch_size: int = 128,
    steps: int = 60,
    epochs: int = 3,
    precision: str = "auto",
    kernels: str = "auto",
    device: str = "cuda",
    build: Callable[[int], nn.Module] | None = None,
    picture: tuple[int, int, int] = (3, 32, 32),
    classes: int = _CLASSES,
) -> LaneRate:
    """Train `lanes` networks side by side on random pictures: a first epoch to set up, and `epochs` that count.

    `build` makes a network from a seed; without it, it is our own network `arch`.
    An epoch has `steps` batches. Raises torch.OutOfMemoryError if the lanes do not fit.
    """
    tests = min(8, steps * batch_size // 4)  # few, so that each epoch has an evaluation
    data = noise(steps * batch_size, tests, picture, classes)
    models = [build_model(arch, classes) if build is None else build(seed) for seed in range(lanes)]
    recipe = Recipe(epochs=1 + epochs, lr=0.01, batch_size=batch_size)
    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    started = time.perf_counter()
    began: list[float] = []
    ready = threading.Barrier(lanes, action=lambda: began.append(time.perf_counter()))

    def one(seed: int) -> None:
        def wait_for_all(metrics: EpochMetrics) -> None:
            if metrics.epoch == 1:
                ready.wait()

        try:
            train(
                models[seed],
                data,
                recipe,
                seed=seed,
                device=device,
                precision=precision,
                kernels=kernels,
                on_epoch=wait_for_all,
            )
        except BaseException:
            ready.abort()  # the others must not wait for this one
            raise

    with ThreadPoolExecutor(lanes) as pool:
        trainings = [pool.submit(one, seed) for seed in range(lanes)]
    ended = time.perf_counter()
    errors = [error for training in trainings if (error := training.exception()) is not None]
    if errors:
        raise next((error for error in errors if not isinstance(error, threading.BrokenBarrierError)), errors[0])
    memory = torch.cuda.max_memory_allocated(device) if cuda else 0
    return LaneRate(
        arch, lanes, lanes * epochs * len(data.train_labels) / (ended - began[0]), began[0] - started, memory
    )


@dataclass(frozen=True)
class MeasureLanes:
    """A call for an executor that measures networks with several numbers of lanes, for `best_lanes`."""

    archs: tuple[str, ...]
    counts: tuple[int, ...] = (1, 2, 4, 8)
    precision: str = "auto"
    kernels: str = "auto"
    batch_size: int = 128
    steps: int = 40
    epochs: int = 1

    def __call__(self, parent: Parent) -> dict[int, float]:
        """Return for each number of lanes that fits: the seconds for one picture of each network, one after another."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        found: dict[int, float] = {}
        for count in self.counts:
            try:
                rates = [
                    measure_lanes(
                        arch,
                        count,
                        batch_size=self.batch_size,
                        steps=self.steps,
                        epochs=self.epochs,
                        precision=self.precision,
                        kernels=self.kernels,
                        device=device,
                    )
                    for arch in self.archs
                ]
            except torch.OutOfMemoryError:
                free_memory()
                break
            found[count] = sum(1 / rate.images_per_second for rate in rates)
        return found


def best_lanes(seconds: dict[int, float]) -> int:
    """Return the fewest lanes that are about as fast as the fastest number; 1 if nothing was measured."""
    if not seconds:
        return 1
    fastest = min(seconds.values())
    return min(count for count, needed in seconds.items() if fastest >= _WITHIN * needed)
