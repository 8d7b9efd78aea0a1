"""The pictures of a training as it uses them: padded, normalised, and on the device."""

from __future__ import annotations

import math
import threading
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from benchmark.augment import Normalizer, pad_images
from benchmark.host_data import HostData, ImageData, block_length
from benchmark.task import Recipe


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
    fetch: ClassVar[None] = None
    """Nothing has to be fetched, because all pictures are there."""

    @property
    def count(self) -> int:
        """Number of training pictures."""
        return len(self.train_labels)

    @property
    def block(self) -> int:
        """Number of training pictures that are there at once: all."""
        return self.count

    @property
    def tested(self) -> int:
        """Number of test pictures."""
        return len(self.test_labels)

    def test_blocks(self) -> Iterator[int]:
        """All test pictures are there at once."""
        yield self.tested


_KEPT = 4
"""Data sets that stay on a GPU, with their variants: FashionMNIST and CIFAR-100 have 0.4 GB each."""
_on_gpu: dict[Hashable, DeviceData] = {}
_lock = threading.Lock()


def on_device(dataset: ImageData, recipe: Recipe, device: torch.device) -> DeviceData | HostData:
    """Return the part of `dataset` that `recipe` uses. On a GPU, all trainings of the process share one copy.

    Where the device has no room for it, the pictures stay in host memory.
    """
    sha256 = getattr(dataset, "sha256", None)
    if device.type != "cuda" or sha256 is None:
        return _prepare(dataset, recipe, device) if fits(dataset, recipe, device) else HostData(dataset, recipe, device)
    # Looks hold out different numbers of pictures, so their sets differ in length.
    lengths = len(dataset.train_labels), len(dataset.test_labels)
    key = (device, sha256, lengths, recipe.train_limit, recipe.test_limit, recipe.crop_padding)
    with _lock:
        if key not in _on_gpu:
            while len(_on_gpu) >= _KEPT:
                del _on_gpu[next(iter(_on_gpu))]
            if not fits(dataset, recipe, device):
                return HostData(dataset, recipe, device)
            made = _prepare(dataset, recipe, device)
            torch.cuda.current_stream(device).synchronize()  # other trainings read it in other streams
            _on_gpu[key] = made
        return _on_gpu[key]


def room_for_data(device: torch.device) -> float:
    """Bytes of a device that pictures may take: half of what is free on a GPU. The network needs memory as well."""
    return torch.cuda.mem_get_info(device)[0] / 2 if device.type == "cuda" else math.inf


def needed(dataset: ImageData, recipe: Recipe) -> int:
    """Bytes that the pictures of a training take on a device: padded training pictures, test pictures as float32."""
    train, test = dataset.train_images[: recipe.train_limit], dataset.test_images[: recipe.test_limit]
    count, channels, height, width = train.shape
    padded = (height + 2 * recipe.crop_padding) * (width + 2 * recipe.crop_padding)
    return count * channels * padded * train.element_size() + 4 * test.numel()


def fits(dataset: ImageData, recipe: Recipe, device: torch.device) -> bool:
    """Whether the pictures of a training find room on the device."""
    return needed(dataset, recipe) <= room_for_data(device)


def placement(dataset: ImageData, recipe: Recipe, device: torch.device) -> str | None:
    """One sentence where the pictures stay in host memory; None where they lie on the device."""
    if fits(dataset, recipe, device):
        return None
    block = block_length(dataset.train_images[: recipe.train_limit], recipe)
    size, room = needed(dataset, recipe) / 2**30, room_for_data(device) / 2**30
    return (
        f"the pictures ({size:.2g} GB) stay in host memory and are sent in blocks of at most {block:,}: the device has "
        f"room for {room:.2g} GB of them"
    )


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
