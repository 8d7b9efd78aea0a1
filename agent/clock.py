"""Measures wall time in named phases that add up to the total."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Clock:
    """Counts seconds per phase. The rest of the wall time is `other`.

    `bookkeeping` (log, git, results, summary) is measured too. It is not a phase, because it happens inside phases.
    """

    PHASES = ("training", "proposer", "isolation")

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._spent: defaultdict[str, float] = defaultdict(float)
        self._watched: list[tuple[str, Callable[[], float]]] = []

    @property
    def elapsed(self) -> float:
        """Seconds since the clock was made."""
        return time.monotonic() - self._start

    def add(self, phase: str, seconds: float) -> None:
        """Add seconds that were measured elsewhere to a phase."""
        self._spent[phase] += seconds

    def watch(self, phase: str, seconds: Callable[[], float]) -> None:
        """Call `seconds` whenever the clock is read, and add its value to `phase`."""
        self._watched.append((phase, seconds))

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the block's wall time to the phase `name`."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.add(name, time.monotonic() - start)

    def seconds(self) -> dict[str, float]:
        """The total, each phase and the rest (`other`), in seconds."""
        total = self.elapsed
        phases = {name: self._of(name) for name in self.PHASES}
        rest = max(0.0, total - sum(phases.values()))
        return {name: round(value, 3) for name, value in {"total": total, **phases, "other": rest}.items()}

    def overhead(self) -> dict[str, float]:
        """Seconds of isolation (with its start) and of bookkeeping, and their share of the total."""
        spent = {name: self._of(name) for name in ("isolation", "bookkeeping")}
        share = sum(spent.values()) / max(self.elapsed, 1e-9)
        return {**{name: round(value, 3) for name, value in spent.items()}, "share": round(share, 5)}

    def _of(self, phase: str) -> float:
        return self._spent[phase] + sum(seconds() for name, seconds in self._watched if name == phase)
