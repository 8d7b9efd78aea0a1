"""What an engine costs for an evaluation beyond a call of its own: `python -m docs.scale_overhead ENGINE`.

ENGINE: local, ray, slurm, or memory (of a search's process that trains on Ray).

For Slurm its commands must be here (`python -m tests.cluster.slurm_server FOLDER` starts one and prints its variable).
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmark.executors import LocalExecutor, Parent
from benchmark.hardware import DescribeEnvironment


@dataclass(frozen=True)
class Nothing:
    """A call that does nothing; for Ray, an actor that does nothing, too."""

    weights: bytes = b""

    def __call__(self, parent: Parent) -> str:
        return ""

    def at_all(self) -> bytes:
        """Return at once."""
        return b""


def echo(connection: Connection[Any, Any]) -> None:
    """Answer each message with itself: what a process of this machine costs without an executor."""
    while True:
        connection.send(connection.recv())


def each(call: Callable[[], object], calls: int) -> float:
    """Median seconds of a call, one after the other. The first one is not counted."""
    call()
    seconds = []
    for _ in range(calls):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def local(calls: int = 1000) -> tuple[float, float]:
    """A message to a process and back, and a call of the executor."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=echo, args=(theirs,), daemon=True)
    process.start()

    def there_and_back() -> object:
        ours.send(Nothing())
        return ours.recv()

    own = each(there_and_back, calls)
    process.kill()
    with LocalExecutor(1, threads=1) as executor:
        return own, each(lambda: executor.submit(Nothing()).result(), calls)


def ray(calls: int = 200) -> tuple[float, float]:
    """A call of an actor that does nothing, and a call of the executor."""
    import ray

    from benchmark.executors.ray import RayExecutor
    from benchmark.executors.ray_cluster import connected

    with connected("local", cpus=2):
        actor = ray.remote(num_cpus=0)(Nothing).remote()
        own = each(lambda: ray.get(actor.at_all.remote()), calls)
        with RayExecutor(slots=1, threads=1, describe=DescribeEnvironment("fp32")) as executor:
            return own, each(lambda: executor.submit(Nothing()).result(), calls)


def slurm(calls: int = 4) -> tuple[float, float]:
    """A job of submitit that does nothing, seen by its file, and a call of the executor.

    The difference is that of two waits for Slurm, so it also prints how late an answer in a job's folder is seen.
    """
    import submitit

    from benchmark.executors.slurm import SlurmExecutor

    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix="overhead-") as name:
        folder = Path(name)
        engine = submitit.SlurmExecutor(folder=folder / "own")
        engine.update_parameters(cpus_per_task=1, job_name="nothing")

        def job() -> object:
            sent = engine.submit(str)
            while not sent.paths.result_pickle.exists():
                time.sleep(0.005)
            return sent.result()

        own = each(job, calls)
        modules = ("docs.scale_overhead", "benchmark.hardware")
        describe = DescribeEnvironment("fp32")
        late: list[float] = []
        with SlurmExecutor(folder / "ours", {}, slots=1, describe=describe, modules=modules) as executor:

            def ours() -> None:
                executor.submit(Nothing()).result()
                now = time.time()
                late.append(now - max(path.stat().st_mtime for path in (folder / "ours").glob("*/answer.json")))

            both = own, each(ours, calls)
        print(json.dumps({"answer_seen_after_ms": round(1000 * statistics.median(late), 2)}))
        return both


def memory(calls: int = 1000, weights: int = 3_400_000) -> None:
    """Print the peak memory of this process after so many calls on Ray, each with the weights of a ResNet-56."""
    from benchmark.executors.ray import RayExecutor
    from benchmark.executors.ray_cluster import connected

    def peak() -> int:
        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)

    describe = DescribeEnvironment("fp32")
    with connected("local", cpus=2), RayExecutor(slots=2, threads=1, describe=describe) as executor:
        before = peak()
        for future in [executor.submit(Nothing(os.urandom(weights))) for _ in range(4)]:
            future.result()
        few = peak()
        for begin in range(0, calls, 4):
            for future in [executor.submit(Nothing(os.urandom(weights))) for _ in range(begin, begin + 4)]:
                future.result()
        print(json.dumps({"calls": calls, "peak_mb": {"at the start": before, "after 4": few, "after all": peak()}}))


def main() -> None:
    """Print one line of JSON."""
    engine = sys.argv[1]
    if engine == "memory":
        memory()
        return
    own, ours = {"local": local, "ray": ray, "slurm": slurm}[engine]()
    found = {"own_no_op_ms": own, "executor_ms": ours, "beyond_ms": ours - own}
    print(json.dumps({"engine": engine, **{name: round(1000 * seconds, 2) for name, seconds in found.items()}}))


if __name__ == "__main__":
    importlib.import_module("docs.scale_overhead").main()  # other processes find the calls under this name
