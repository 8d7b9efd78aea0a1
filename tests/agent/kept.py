"""One isolation and one process that forks slots, for tests that run searches and checks in the test's own process.

To start them takes seconds of work, most of it imports of torch. All else is a user's: real slots, real isolation.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmark.executors import local
from benchmark.slot_process import SlotProcess
from sandbox.isolate import DEFAULT_LIMITS, Isolation, Level, Limits


class Kept:
    """The isolation and the process that forks; see `used`.

    `cache`: the user's folder of results and prepared data, as the slots see it.
    """

    def __init__(self, cache: Path) -> None:
        # All are started here: the kernel ends them when the thread that started them ends.
        self.isolation = Isolation(at_once=True)
        self.forks = local.fork_server(1, {**os.environ, "INITSEARCH_CACHE_DIR": str(cache)})
        self.forks.begin()

    def close(self) -> None:
        """End them."""
        self.isolation.close()
        self.forks.close()


@contextmanager
def used(processes: Kept) -> Iterator[None]:
    """While this lasts, each `Isolation` of level "auto" and each slot of a `LocalExecutor` uses them."""
    kept = processes.isolation
    start, close = Isolation.__init__, Isolation.close

    def take(
        isolation: Isolation, *, level: Level = "auto", limits: Limits = DEFAULT_LIMITS, at_once: bool = False
    ) -> None:
        if level != "auto":
            start(isolation, level=level, limits=limits, at_once=at_once)
            return
        vars(isolation).update(vars(kept), limits=limits, _with_packages={}, seconds=0.0)  # it was there

    def give_back(isolation: Isolation) -> None:
        if isolation._first is not kept._first:
            close(isolation)
        for pair in isolation._with_packages.values():
            for interpreter in pair:
                interpreter.close()

    def slot(environment: Mapping[str, str], log: Path | None, *, lanes: int, forks: object) -> SlotProcess:
        return SlotProcess(environment, log, lanes=lanes, forks=processes.forks)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Isolation, "__init__", take)
        patch.setattr(Isolation, "close", give_back)
        patch.setattr(local, "SlotProcess", slot)
        yield
