"""How busy two slots are in a pocket search, from the durations of a recorded run: `python docs/scale_busy.py [RUN]`.

The order is the search's own: the longest of what waits begins first, a test begins when the one K before it was told.
"""

from __future__ import annotations

import heapq
import sys
from pathlib import Path

from agent.runs.events import Evaluated
from agent.runs.log import read_events

SLOTS = 2
Batch = list[float]


def share(
    baseline: Batch, tests: list[Batch], hidden: Batch, parallel: int, *, alone: bool = False
) -> tuple[float, float]:
    """Seconds of wall time, and the share of the slots' time that is training. `alone`: the baseline is waited for."""
    free = [0.0] * SLOTS
    heapq.heapify(free)
    busy, ends = 0.0, []

    def run(batch: Batch, begin: float) -> float:
        nonlocal busy
        end = begin
        for seconds in sorted(batch, reverse=True):
            start = max(begin, heapq.heappop(free))
            heapq.heappush(free, start + seconds)
            busy, end = busy + seconds, max(end, start + seconds)
        return end

    after = run(baseline, 0.0)
    for number, test in enumerate(tests):
        begin = ends[number - parallel] if number >= parallel else (after if alone else 0.0)
        ends.append(run(test, max(begin, after if number >= parallel else 0.0)))
    end = run(hidden, max(after, *ends))
    return end, busy / (SLOTS * end)


def main() -> None:
    """Print one line for each way."""
    run = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("tests/data/sample-run")
    batches: dict[str, Batch] = {}
    for record in read_events(run / "events.jsonl"):
        if isinstance(event := record.event, Evaluated):
            batches.setdefault(event.role.partition("/")[0] if "hidden" in event.role else event.role, []).append(
                event.seconds
            )
    tests = [batch for role, batch in batches.items() if role.startswith("test/")]
    for words, parallel, alone in (
        ("baseline alone, then one test at a time", 1, True),
        ("baseline beside the first test (--parallel 1)", 1, False),
        ("--parallel 2", 2, False),
        ("--parallel 3", 3, False),
    ):
        wall, busy = share(batches["baseline"], tests, batches["hidden"], parallel, alone=alone)
        print(f"{words:48} {wall:4.0f} s, slots busy {100 * busy:.0f} %")


if __name__ == "__main__":
    main()
