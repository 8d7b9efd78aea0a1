"""Where the wall time went: named phases that add up to the total."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Clock:
    """Seconds per phase; whatever no phase claims is `other`.

    `bookkeeping` (log, git, results, summary) is measured too. It is no phase, because it happens within them.
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
        """Book seconds that were measured elsewhere."""
        self._spent[phase] += seconds

    def watch(self, phase: str, seconds: Callable[[], float]) -> None:
        """Count what something else measures of itself, whenever the clock is read."""
        self._watched.append((phase, seconds))

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Book the block's wall time."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.add(name, time.monotonic() - start)

    def seconds(self) -> dict[str, float]:
        """Total, each phase and the rest, in seconds."""
        total = self.elapsed
        phases = {name: self._of(name) for name in self.PHASES}
        rest = max(0.0, total - sum(phases.values()))
        return {name: round(value, 3) for name, value in {"total": total, **phases, "other": rest}.items()}

    def overhead(self) -> dict[str, float]:
        """What distrust costs: seconds of isolation (its start included) and bookkeeping, and their share of all."""
        spent = {name: self._of(name) for name in ("isolation", "bookkeeping")}
        share = sum(spent.values()) / max(self.elapsed, 1e-9)
        return {**{name: round(value, 3) for name, value in spent.items()}, "share": round(share, 5)}

    def _of(self, phase: str) -> float:
        return self._spent[phase] + sum(seconds() for name, seconds in self._watched if name == phase)
