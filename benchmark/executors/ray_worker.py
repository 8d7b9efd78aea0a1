"""The actor that holds the slots of one GPU, or one slot of CPUs, on a node of a Ray cluster."""

from __future__ import annotations

import json
import os
import queue
import re
import traceback
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from typing import Any

from benchmark.executors.local import LocalExecutor
from benchmark.executors.probe import facts
from benchmark.executors.seam import Call, InfrastructureError, TookTooLong
from benchmark.executors.wire import answer_to_json, report_to_json

_ALLOWED = re.compile(
    r"PATH|HOME|USER|LANG|LC_\w+|TZ|TMPDIR|PYTHONPATH|VIRTUAL_ENV|LD_LIBRARY_PATH|XDG_CACHE_HOME|(CUDA|NVIDIA|NCCL)_\w+"
    r"|(OMP|MKL|KMP|TORCH)_\w+|INITSEARCH_\w+"
)
_SECRET = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS)$", re.IGNORECASE)


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that a training needs, and none that could hold a key."""
    return {name: value for name, value in environ.items() if _ALLOWED.fullmatch(name) and not _SECRET.search(name)}


class Worker:
    """Runs calls in processes of its own, as on this machine. All that it returns is bytes: a letter and JSON."""

    def __init__(self, slots: int, threads: int, gpus: int) -> None:
        self._gpu = os.environ.get("CUDA_VISIBLE_DEVICES") if gpus else None
        self._executor = LocalExecutor(slots, threads=threads, gpus=gpus, environ=clean_environment(os.environ))

    def facts(self) -> bytes:
        """What is installed here, as JSON; and which GPU this worker has."""
        return json.dumps({**json.loads(facts()), "gpu": self._gpu}).encode()

    def run(self, call: Call[Any], timeout: float | None) -> Iterator[bytes]:
        """S each time the call begins; R and a report, any number of times; then A and the answer, or E and why not.

        T in place of E where the call took too long.
        """
        messages: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

        def report(content: Any) -> None:
            messages.put(b"R" + report_to_json(content).encode())

        def done(_: Future[Any]) -> None:
            messages.put(None)

        def begun(_: str) -> None:
            messages.put(b"S")

        future = self._executor.submit(call, timeout=timeout, on_report=report, on_start=begun)
        future.add_done_callback(done)
        while (message := messages.get()) is not None:
            yield message
        try:
            yield b"A" + answer_to_json(call, future.result()).encode()
        except TookTooLong as error:
            yield b"T" + str(error).encode()
        except InfrastructureError as error:
            yield b"E" + str(error).encode(errors="replace")
        except Exception:  # noqa: BLE001 - the head reads the traceback as text, and unpickles no exception
            yield b"E" + traceback.format_exc().encode(errors="replace")

    def close(self) -> None:
        """End the processes."""
        self._executor.close()
