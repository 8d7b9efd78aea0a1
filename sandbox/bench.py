"""Measure how long a candidate takes in isolation: `python -m sandbox.bench [--arch resnet56] [--rounds 10] [--json]`.

Each round measures every isolation level. Per level it measures one cold start (a process starts, imports torch, runs
one candidate and ends) and several candidates of the running zygote. The measurements alternate, so that other load on
the machine affects all of them alike.
The candidate is the untouched region. Its time covers running it, saving, loading and checking the weights.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from sandbox.isolate import Isolation, Job, Level, Limits, obstacle_to
from sandbox.region import scaffold

WARM_PER_ROUND = 5
CLASSES = 100


def measure(levels: list[Level], arch: str, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Return the seconds of each measurement by level and kind: "cold" includes the canary, "zygote" does not."""
    from benchmark.models import build_model
    from benchmark.weights import load_initial_weights

    model, region = build_model(arch, CLASSES), scaffold().region
    seconds: dict[str, dict[str, list[float]]] = {level: {"cold": [], "zygote": []} for level in levels}
    limits = Limits(wall_seconds=120, cpu_seconds=60)

    def candidate(isolation: Isolation, seed: int, out: Path) -> None:
        result = isolation.initialise(Job(region, arch, CLASSES, seed, out))
        if not result.ok:
            raise RuntimeError(f"the untouched region failed: {result.message}")
        load_initial_weights(out, model)

    with tempfile.TemporaryDirectory(prefix="initsearch-bench-") as folder:
        out = Path(folder) / "weights.safetensors"
        warm = {level: Isolation(level=level, limits=limits) for level in levels}
        try:
            for isolation in warm.values():
                candidate(isolation, 0, out)  # the first candidate also builds the network's template
            for round_number in range(rounds):
                for level, isolation in warm.items():
                    started = time.perf_counter()
                    with Isolation(level=level, limits=limits) as cold:
                        candidate(cold, round_number, out)
                    seconds[level]["cold"].append(time.perf_counter() - started)
                    for _ in range(WARM_PER_ROUND):
                        started = time.perf_counter()
                        candidate(isolation, round_number, out)
                        seconds[level]["zygote"].append(time.perf_counter() - started)
        finally:
            for isolation in warm.values():
                isolation.close()
    return seconds


def summarise(seconds: list[float]) -> dict[str, float]:
    """Return minimum, median and maximum in milliseconds, and the number of measurements."""
    return {
        "min_ms": round(1000 * min(seconds), 1),
        "median_ms": round(1000 * statistics.median(seconds), 1),
        "max_ms": round(1000 * max(seconds), 1),
        "n": len(seconds),
    }


def main() -> None:
    """Measure the levels that work on this machine and print a table, or JSON."""
    parser = argparse.ArgumentParser(description="Time candidates in isolation: cold starts against the zygote.")
    parser.add_argument("--arch", default="resnet56")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--level", choices=["bubblewrap", "landlock", "none"], action="append")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    levels: list[Level] = args.level or [
        level for level in ("bubblewrap", "landlock", "none") if level == "none" or obstacle_to(level) is None
    ]
    table = {
        level: {kind: summarise(values) for kind, values in kinds.items()}
        for level, kinds in measure(levels, args.arch, args.rounds).items()
    }
    if args.json:
        print(json.dumps({"arch": args.arch, "levels": table}))
        return
    print(f"{args.arch}: milliseconds from a region's text to a model with its weights")
    print(f"{'level':<12}{'start':<8}{'min':>9}{'median':>9}{'max':>9}{'n':>5}")
    for level, kinds in table.items():
        for kind, row in kinds.items():
            print(
                f"{level:<12}{kind:<8}"
                + "".join(f"{row[key]:>9}" for key in ("min_ms", "median_ms", "max_ms"))
                + f"{row['n']:>5}"
            )


if __name__ == "__main__":
    main()
