"""Fuzz for a given time and count: `python -m tests.fuzz 600`. Every find is printed with the seed that makes it."""

from __future__ import annotations

import argparse
import random
import time
import traceback
from collections import Counter

from tests.fuzz.targets import TARGETS


def main() -> int:
    """Try inputs for each reader in turn until the time is over. Returns 1 when something was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--slow", type=float, default=2.0, help="processor seconds from which an input is a find")
    options = parser.parse_args()
    end = time.monotonic() + options.seconds
    inputs, finds, seen = 0, 0, Counter[str]()
    while time.monotonic() < end:
        seed = f"{options.seed}.{inputs}"
        for target in TARGETS:
            inputs += 1
            started = time.process_time()
            try:
                target.once(random.Random(seed))
            except Exception as error:  # noqa: BLE001 - this is what is looked for
                where = traceback.extract_tb(error.__traceback__)[-1]
                problem = f"{target.name}: {type(error).__name__} in {where.filename}:{where.lineno}"
            else:
                seconds = time.process_time() - started
                problem = f"{target.name}: {seconds:.0f} s" if seconds > options.slow else ""
            if problem:
                finds += 1
                seen[problem] += 1
                if seen[problem] == 1:
                    print(f"{problem}, seed {seed!r}", flush=True)
    print(f"{inputs:,} inputs, {finds:,} finds of {len(seen)} kinds")
    return int(bool(finds))


if __name__ == "__main__":
    raise SystemExit(main())
