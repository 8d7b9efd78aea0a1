"""The pictures of a training as it uses them: padded, normalised, and on the device."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from benchmark.augment import Normalizer, pad_images
from benchmark.task import Recipe


class ImageData(Protocol):
    """The part of a data set that training uses, such as `benchmark.data.ImageDataset`."""

    @property
    def train_images(self) -> Tensor: ...
    @property
    def train_labels(self) -> Tensor: ...
    @property
    def test_images(self) -> Tensor: ...
    @property
    def test_labels(self) -> Tensor: ...
    @property
    def num_classes(self) -> int: ...
    @property
    def mean(self) -> tuple[float, ...]: ...
    @property
    def std(self) -> tuple[float, ...]: ...


@dataclass(frozen=True)
class DeviceData:
    """What all trainings of a data set on a device share. They do not change it."""

    train_images: Tensor
    """uint8 (N, H + 2·padding, W + 2·padding, 3), for `benchmark.augment.crop`."""
    train_labels: Tensor
    test_images: Tensor
    """float32 (N, 3, H, W), normalised, channels_last."""
    test_labels: Tensor
    normalize: Normalizer


_KEPT = 4
"""Data sets that stay on a GPU, with their variants: FashionMNIST and CIFAR-100 have 0.4 GB each."""
_on_gpu: dict[Hashable, DeviceData] = {}
_lock = threading.Lock()


def on_device(dataset: ImageData, recipe: Recipe, device: torch.device) -> DeviceData:
    """Return the part of `dataset` that `recipe` uses. On a GPU, all trainings of the process share one copy."""
    sha256 = getattr(dataset, "sha256", None)
    if device.type != "cuda" or sha256 is None:
        return _prepare(dataset, recipe, device)
    # Looks hold out different numbers of pictures, so their sets differ in length.
    lengths = len(dataset.train_labels), len(dataset.test_labels)
    key = (device, sha256, lengths, recipe.train_limit, recipe.test_limit, recipe.crop_padding)
    with _lock:
        if key not in _on_gpu:
            made = _prepare(dataset, recipe, device)
            torch.cuda.current_stream(device).synchronize()  # other trainings read it in other streams
            while len(_on_gpu) >= _KEPT:
                del _on_gpu[next(iter(_on_gpu))]
            _on_gpu[key] = made
        return _on_gpu[key]


def _prepare(dataset: ImageData, recipe: Recipe, device: torch.device) -> DeviceData:
    normalize = Normalizer(dataset.mean, dataset.std, device)
    test_images = dataset.test_images[: recipe.test_limit].to(device)
    return DeviceData(
        train_images=pad_images(dataset.train_images[: recipe.train_limit].to(device), recipe.crop_padding),
        train_labels=dataset.train_labels[: recipe.train_limit].to(device),
        test_images=normalize(test_images.contiguous(memory_format=torch.channels_last)),
        test_labels=dataset.test_labels[: recipe.test_limit].to(device),
        normalize=normalize,
    )
