"""The seeds of each kind of training. Their ranges do not overlap, so a choice and its check use different seeds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

MOST = 50
"""Most seeds of a test, and of a confirmation."""
LOOK_STEP = 100
"""Distance between the seeds of two lengths of looks."""
TOURNAMENT_STEP = 1000
"""Distance between the seeds of two repeats in `agent compare --proposers`."""
FRESH_FROM = 1_000_000_000
"""First seed for measuring the winners of such a comparison. Its searches use only smaller seeds."""


def evaluation_seeds(seed: int, count: int) -> range:
    """Return the seeds of tests, baseline and hidden task of a search that begins at `seed`: at most `MOST`."""
    return range(seed, seed + count)


def confirmation_seeds(seed: int, count: int) -> range:
    """Return the seeds that confirm finalists and baseline, at most `MOST`. No test uses them."""
    return range(seed + MOST, seed + MOST + count)


def look_seed(seed: int, rung: int) -> int:
    """Return the seed that all looks of a length share. `rung` counts the lengths from 0, shortest first."""
    return seed + LOOK_STEP * (rung + 1)


def unused_seeds(used: Iterable[int], count: int, *, default: int) -> range:
    """Return `count` seeds above all used ones, or above `default` if none was used. An ablation uses them."""
    first = 1 + max(used, default=default)
    return range(first, first + count)


def tournament_seed(seed: int, repeat: int) -> int:
    """Return the first seed of a repeat's search. `repeat` counts from 1."""
    return seed + TOURNAMENT_STEP * (repeat - 1)


def winners_seeds(repeat: int, count: int) -> range:
    """Return the `count` seeds on which the winners of a repeat are measured again."""
    first = FRESH_FROM + count * (repeat - 1)
    return range(first, first + count)


def stream_seed(label: str, seed: int) -> int:
    """Return a 63-bit seed for the random stream called `label`: SHA-256 of "label|seed".

    Streams with different labels are independent for the same seed: the numbers that an initialiser draws after
    `torch.manual_seed(seed)` do not reveal the order of the data.
    """
    return int.from_bytes(hashlib.sha256(f"{label}|{seed}".encode()).digest()[:8], "big") >> 1
