"""What starting the isolation costs a search: python docs/isolation_start_measured.py (half a minute, idle machine).

A search starts its isolation beside the processes that train. Both ways in turn, six times; the first round warms up.
"""

from __future__ import annotations

import statistics
import time

from agent.config import SearchConfig
from agent.evaluation.slot_plan import plan_slots
from benchmark.executors import LocalExecutor
from benchmark.hardware import DescribeEnvironment
from sandbox.isolate import Isolation


def start(slots: int, threads: int, *, isolated: bool) -> float:
    """Seconds until everything has started."""
    begun = time.monotonic()
    with LocalExecutor(slots, threads=threads) as executor:
        described = [executor.submit(DescribeEnvironment()) for _ in range(slots)]
        isolation = Isolation() if isolated else None
        for future in described:
            future.result()
        seconds = time.monotonic() - begun
    if isolation is not None:
        isolation.close()
    return seconds


if __name__ == "__main__":
    slots, threads, _ = plan_slots(SearchConfig())
    rounds = [[start(slots, threads, isolated=isolated) for isolated in (True, False)] for _ in range(6)]
    both, without = (statistics.median(times) for times in zip(*rounds[1:], strict=True))
    print(f"{slots} slots: with isolation {both:.2f} s, without {without:.2f} s, so it costs {both - without:.2f} s")
