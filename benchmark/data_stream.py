"""The order of the pictures and the random draws for their crops, epoch by epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from benchmark.augment import send


class DataStream:
    """Draws an epoch's order and crops on the CPU and sends both to the device once, so all devices see one stream.

    `take` reads the next batch at a position that is kept on the device. So a captured CUDA graph of a step needs no
    argument: each replay takes the batch after the last one.

    With `fetch` the device has room for `block` pictures only. Then an index is the place of a picture in its block,
    and `fetch` gets the pictures of the next block before their first batch is handed out.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        generator: torch.Generator,
        device: torch.device,
        *,
        fetch: Callable[[Tensor], None] | None = None,
        block: int = 0,
    ) -> None:
        self._count, self._batch_size = count, batch_size
        self._generator = generator
        self._fetch, self._block = fetch, block
        self._order = torch.empty(count, dtype=torch.int64, device=device)
        self._draws = torch.empty(3, count, 1, device=device)
        self._offsets = torch.arange(count, device=device)
        self.position = torch.zeros(1, dtype=torch.int64, device=device)
        """Number of pictures that were taken in this epoch."""

    def begin_epoch(self) -> Iterable[int]:
        """Draw the next epoch. Return the sizes of its batches, which `take` wants in this order."""
        batches = split_into_batches(self._count, self._batch_size, self._generator)
        draws = [torch.rand(3, len(batch), 1, generator=self._generator) for batch in batches]
        send(torch.cat(draws, dim=1), self._draws)
        self.position.zero_()
        if self._fetch is None:
            send(torch.cat(batches), self._order)
            return [len(batch) for batch in batches]
        blocks = in_blocks(batches, self._block)
        send(torch.cat([torch.arange(sum(map(len, block))) for block in blocks]), self._order)
        return self._fetched(self._fetch, blocks)

    def _fetched(self, fetch: Callable[[Tensor], None], blocks: list[list[Tensor]]) -> Iterator[int]:
        for block in blocks:
            fetch(torch.cat(block))
            yield from map(len, block)

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


def in_blocks(batches: list[Tensor], most: int) -> list[list[Tensor]]:
    """Group batches in their order, with at most `most` pictures in a group unless one batch has more."""
    blocks: list[list[Tensor]] = []
    held = 0
    for batch in batches:
        if not blocks or held + len(batch) > most:
            blocks.append([])
            held = 0
        blocks[-1].append(batch)
        held += len(batch)
    return blocks
