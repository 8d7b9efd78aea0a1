"""The order of the pictures and their random crops, epoch by epoch."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmark.augment import send


class DataStream:
    """Draws an epoch's order and crops on the CPU and sends both to the device once, so all devices see one stream.

    `take` reads the next batch at a position that is kept on the device. So a captured CUDA graph of a step needs no
    argument: each replay takes the batch after the last one.
    """

    def __init__(self, count: int, batch_size: int, generator: torch.Generator, device: torch.device) -> None:
        self._count, self._batch_size = count, batch_size
        self._generator = generator
        self._order = torch.empty(count, dtype=torch.int64, device=device)
        self._draws = torch.empty(3, count, 1, device=device)
        self._offsets = torch.arange(count, device=device)
        self.position = torch.zeros(1, dtype=torch.int64, device=device)
        """Number of pictures that were taken in this epoch."""

    def begin_epoch(self) -> list[int]:
        """Draw the next epoch. Return the sizes of its batches, which `take` wants in this order."""
        batches = split_into_batches(self._count, self._batch_size, self._generator)
        draws = [torch.rand(3, len(batch), 1, generator=self._generator) for batch in batches]
        send(torch.cat(batches), self._order)
        send(torch.cat(draws, dim=1), self._draws)
        self.position.zero_()
        return [len(batch) for batch in batches]

    def take(self, size: int) -> tuple[Tensor, Tensor]:
        """Return the next `size` indices, int64 (size,), and the draws of their crops, float32 (3, size, 1)."""
        rows = self.position + self._offsets[:size]
        self.position += size
        return self._order[rows], self._draws[:, rows]


def split_into_batches(count: int, batch_size: int, generator: torch.Generator) -> list[Tensor]:
    """Return a random permutation of `count` indices in batches.

    The last, incomplete batch is used, as in the public protocol. A single left-over image joins the previous batch,
    because batch normalisation needs at least two.
    """
    batches = list(torch.split(torch.randperm(count, generator=generator), batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches
