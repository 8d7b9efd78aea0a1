"""Where the wall time went: named phases that add up to the total."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Seconds per phase; whatever no phase claims is `other`."""

    PHASES = ("training", "proposer", "isolation")

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._spent: defaultdict[str, float] = defaultdict(float)

    @property
    def elapsed(self) -> float:
        """Seconds since the clock was made."""
        return time.monotonic() - self._start

    def add(self, phase: str, seconds: float) -> None:
        """Book seconds that were measured elsewhere."""
        self._spent[phase] += seconds

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
        phases = {name: self._spent[name] for name in self.PHASES}
        rest = max(0.0, total - sum(phases.values()))
        return {name: round(value, 3) for name, value in {"total": total, **phases, "other": rest}.items()}
