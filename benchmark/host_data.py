"""Pictures that do not fit on the device: they stay in host memory, and a block of them at a time is sent.

A block holds whole batches in the order of the epoch. It always lies at the same place on the device, so a captured
step reads every block. What is trained is the same, bit for bit, as with all pictures on the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from benchmark.augment import Normalizer, pad_images
from benchmark.task import Recipe

BLOCK_BYTES = 256 * 2**20
"""Size of a block of training pictures on the device, and of one of test pictures."""
EVAL_BATCH = 256
"""Pictures of a forward pass in an evaluation. A block of test pictures holds whole ones."""


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


class HostData:
    """Has the attributes of `benchmark.device_data.DeviceData`; its pictures and training labels are one block."""

    def __init__(self, dataset: ImageData, recipe: Recipe, device: torch.device) -> None:
        self.normalize = Normalizer(dataset.mean, dataset.std, device)
        self._train = dataset.train_images[: recipe.train_limit], dataset.train_labels[: recipe.train_limit]
        self._test = dataset.test_images[: recipe.test_limit]
        self._padding = recipe.crop_padding
        self.count, self.tested = len(self._train[1]), len(self._test)
        self.test_labels = dataset.test_labels[: recipe.test_limit].to(device)
        _, channels, height, width = self._test.shape
        tall, wide = height + 2 * self._padding, width + 2 * self._padding
        self.block = block_length(self._train[0], recipe)
        """Most pictures in a block."""
        tested = max(1, BLOCK_BYTES // (4 * channels * height * width * EVAL_BATCH)) * EVAL_BATCH
        self.train_images = torch.empty(self.block, tall, wide, channels, dtype=self._train[0].dtype, device=device)
        self.train_labels = torch.empty(self.block, dtype=torch.int64, device=device)
        self.test_images = torch.empty(
            min(tested, self.tested), channels, height, width, device=device, memory_format=torch.channels_last
        )
        self._images, self._labels = _Sender(device), _Sender(device)

    def fetch(self, picks: Tensor) -> None:
        """Send the training pictures `picks`, int64 on the CPU, and their labels: they are the block from now on."""
        images, labels = self._train
        self.train_images[: len(picks)] = pad_images(self._images.send(images, picks), self._padding)
        self.train_labels[: len(picks)] = self._labels.send(labels, picks)

    def test_blocks(self) -> Iterator[int]:
        """Send the test pictures block by block; each time the number of pictures that are there now."""
        for start in range(0, self.tested, len(self.test_images)):
            count = min(len(self.test_images), self.tested - start)
            sent = self._images.send(self._test, torch.arange(start, start + count))
            self.test_images[:count] = self.normalize(sent.contiguous(memory_format=torch.channels_last))
            yield count


class _Sender:
    """A pinned buffer. On a CPU it is plain memory."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._cuda = device.type == "cuda"
        self._buffer = torch.empty(0, dtype=torch.uint8, pin_memory=self._cuda)
        self._copied = torch.cuda.Event() if self._cuda else None  # type: ignore[no-untyped-call]

    def send(self, tensor: Tensor, picks: Tensor) -> Tensor:
        """The rows `picks` of a tensor on the CPU, on the device, which works on the block before meanwhile."""
        if self._copied is not None:
            self._copied.synchronize()  # of the last copy
        shape = (len(picks), *tensor.shape[1:])
        size = tensor[:1].numel() * len(picks) * tensor.element_size()
        if len(self._buffer) < size:
            self._buffer = torch.empty(size, dtype=torch.uint8, pin_memory=self._cuda)
        rows = self._buffer[:size].view(tensor.dtype).view(shape)
        torch.index_select(tensor, 0, picks, out=rows)
        sent = rows.to(self._device, non_blocking=True)
        if self._copied is not None:
            self._copied.record()
        return sent


def block_length(images: Tensor, recipe: Recipe) -> int:
    """Most training pictures in a block: at least the largest batch, at most all."""
    _, channels, height, width = images.shape
    padded = channels * (height + 2 * recipe.crop_padding) * (width + 2 * recipe.crop_padding) * images.element_size()
    return min(len(images), max(recipe.batch_size + 1, BLOCK_BYTES // padded))
