"""Which training seeds serve what. The ranges of one search never meet, so no candidate is judged by what picked it."""

from __future__ import annotations

from collections.abc import Iterable

MOST = 50
"""Seeds that a test, or a confirmation, may have at the most."""
LOOK_STEP = 100
"""The distance between the seeds of two lengths of looks."""
TOURNAMENT_STEP = 1000
"""The distance between the seeds of two repeats in `agent compare --proposers`."""
FRESH_FROM = 1_000_000_000
"""No search in such a comparison uses seeds from here on: the winners are measured on them."""


def evaluation_seeds(seed: int, count: int) -> range:
    """The seeds of tests, of the baseline and of the hidden task in a search that begins at `seed`: at most `MOST`."""
    return range(seed, seed + count)


def confirmation_seeds(seed: int, count: int) -> range:
    """The seeds that no test uses, for the finalists and the baseline: at most `MOST`."""
    return range(seed + MOST, seed + MOST + count)


def look_seed(seed: int, rung: int) -> int:
    """The one seed of all looks of a length; `rung` counts the lengths from 0, shortest first."""
    return seed + LOOK_STEP * (rung + 1)


def unused_seeds(used: Iterable[int], count: int, *, default: int) -> range:
    """`count` seeds above all that were used, for an ablation; above `default` where none was."""
    first = 1 + max(used, default=default)
    return range(first, first + count)


def tournament_seed(seed: int, repeat: int) -> int:
    """Where the search of a repeat begins; `repeat` counts from 1."""
    return seed + TOURNAMENT_STEP * (repeat - 1)


def winners_seeds(repeat: int, count: int) -> range:
    """The seeds on which the winners of a repeat are measured again, `count` for each repeat."""
    first = FRESH_FROM + count * (repeat - 1)
    return range(first, first + count)
