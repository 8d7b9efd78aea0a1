"""What the Ray executor costs for a call, beyond a call of Ray's own: `python docs/scale_overhead.py`."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable

from benchmark.executors.ray import RayExecutor, connected
from benchmark.hardware import DescribeEnvironment

CALLS = 200


class Nothing:
    """An actor that does nothing."""

    def at_all(self) -> bytes:
        """Return at once."""
        return b""


def each(call: Callable[[], object]) -> float:
    """Median seconds of a call, one after the other."""
    seconds = []
    for _ in range(CALLS):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def main() -> None:
    """Print one line of JSON."""
    import ray

    with connected("local", cpus=2):
        actor = ray.remote(num_cpus=0)(Nothing).remote()
        own = each(lambda: ray.get(actor.at_all.remote()))
        with RayExecutor(slots=1, threads=1, describe=DescribeEnvironment("fp32")) as executor:
            describe = DescribeEnvironment("fp32")
            ours = each(lambda: executor.submit(describe).result())
    found = {"ray_no_op_ms": own, "executor_ms": ours, "beyond_ms": ours - own}
    print(json.dumps({name: round(1000 * seconds, 1) for name, seconds in found.items()}))


if __name__ == "__main__":
    main()
