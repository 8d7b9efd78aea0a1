"""The speed of one and several lanes against the plain loop on the same device, measured in turn."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmark.floors import floor
from benchmark.lane_rate import LaneRate, measure_lanes, noise
from benchmark.lanes import free_memory
from benchmark.models import build_model
from benchmark.plain_loop import plain_loop
from benchmark.precision import resolve_precision
from benchmark.steps import resolve_kernels
from benchmark.tasks import Recipe

_STEPS, _PLAIN_STEPS = 60, 40
"""Batches of an epoch. The first epoch of each loop is not counted."""


@dataclass(frozen=True)
class LaneSpeed:
    """Medians over the rounds for one number of lanes. What could not be measured is None; `note` says why."""

    arch: str
    lanes: int
    images_per_second: float | None
    plain_images_per_second: float | None
    ratio: float | None
    setup_seconds: float | None
    """Of the first round, when kernels are used for the first time."""
    memory_gb: float | None
    floor_images_per_second: float | None
    """What bytes and operations allow, see `benchmark.floors`; None for a card without numbers."""
    floor_share: float | None
    batch_size: int
    precision: str
    kernels: str
    device: str
    note: str

    def in_words(self) -> str:
        """One line."""
        line = f"{self.arch:12} lanes={self.lanes}"
        if self.images_per_second is None:
            return f"{line} {self.note}"
        line += f" images_per_second={self.images_per_second:.0f}"
        if self.ratio is not None:
            line += f" plain={self.plain_images_per_second:.0f} ratio={self.ratio:.2f}"
        if self.floor_share is not None:
            line += f" floor={self.floor_images_per_second:.0f} share={100 * self.floor_share:.0f}%"
        line += f" setup={self.setup_seconds:.1f}s memory={self.memory_gb:.2f}GB"
        return f"{line} ({self.precision}, {self.kernels}, batch {self.batch_size})"


def measure_lane_speeds(
    arch: str,
    counts: Sequence[int],
    *,
    only_ours: bool = False,
    rounds: int = 3,
    batch_size: int = 128,
    precision: str = "auto",
    kernels: str = "auto",
    device: str = "cuda",
) -> Iterator[LaneSpeed]:
    """Measure the plain loop and each number of lanes in turn, `rounds` times. Yields in the order of `counts`.

    A number of lanes that does not fit into the memory has only a note.
    """
    ours: dict[int, list[LaneRate]] = {count: [] for count in counts}
    too_many: set[int] = set()
    plain: list[float] = []
    for round_ in range(rounds):
        if not only_ours:
            data, recipe = noise(_PLAIN_STEPS * batch_size, 8), Recipe(epochs=2, lr=0.01, batch_size=batch_size)
            rates = plain_loop(build_model(arch, data.num_classes), data, recipe, seed=round_, device=device)
            plain.append([rate for rate, _ in rates][-1])
        where: dict[str, Any] = {"precision": precision, "kernels": kernels, "device": device}
        for count in (count for count in counts if count not in too_many):
            try:
                ours[count].append(measure_lanes(arch, count, batch_size=batch_size, steps=_STEPS, **where))
            except torch.OutOfMemoryError:
                too_many.add(count)
            free_memory()
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    resolved = resolve_precision(precision, device)
    most = floor(arch, name, resolved)
    plain_rate = statistics.median(plain) if plain else None
    for count in counts:
        found = ours[count]
        rate = statistics.median(one.images_per_second for one in found) if found else None
        yield LaneSpeed(
            arch=arch,
            lanes=count,
            images_per_second=_rounded(rate, 1),
            plain_images_per_second=_rounded(plain_rate, 1),
            ratio=_rounded(rate / plain_rate, 3) if rate and plain_rate else None,
            setup_seconds=_rounded(found[0].setup_seconds, 1) if found else None,
            memory_gb=_rounded(max(one.memory_bytes for one in found) / 1e9, 2) if found else None,
            floor_images_per_second=_rounded(most, 0),
            floor_share=_rounded(rate / most, 3) if rate and most else None,
            batch_size=batch_size,
            precision=resolved,
            kernels=resolve_kernels(kernels, device),
            device=name,
            note="does not fit into the memory" if count in too_many else "",
        )


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
