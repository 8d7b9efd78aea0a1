"""A job on a Slurm cluster: reads calls from their folders, and writes reports and answers there."""

from __future__ import annotations

import json
import os
import socket
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmark.executors.seam import Call

CALL, TENSORS, REPORTS, ANSWER = "call.json", "weights.safetensors", "reports.jsonl", "answer.json"


class _Folder:
    """See `benchmark.executors.Parent`: reports become lines of a file. There is nobody to ask."""

    def __init__(self, folder: Path) -> None:
        self._reports = folder / REPORTS

    def report(self, content: Any) -> None:
        from benchmark.executors.wire import report_to_json

        with self._reports.open("a", encoding="utf-8") as file:
            file.write(report_to_json(content) + "\n")

    def ask(self, question: Any) -> Any:
        raise RuntimeError("a job has nobody to ask")


def main(folders: Sequence[str], threads: int, modules: tuple[str, ...] = ()) -> None:
    """Carry out the calls of these folders side by side. Slurm runs this again when it requeues the job.

    A folder that has its answer is left alone then.
    """
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "INITSEARCH_THREADS"):  # before torch is imported
        os.environ[name] = str(threads)
    open_folders = [Path(folder) for folder in folders if not (Path(folder) / ANSWER).exists()]
    if len(folders) == 1:
        for folder in open_folders:
            _carry_out(folder, modules, lambda call, reports: call(reports))
        return
    from benchmark.executors.local import LocalExecutor
    from benchmark.hardware import gpu_count

    with (
        LocalExecutor(len(folders), threads=threads, gpus=gpu_count()) as lanes,
        ThreadPoolExecutor(len(folders)) as threads_of_lanes,
    ):

        def in_a_lane(call: Call[Any], reports: _Folder) -> Any:
            return lanes.submit(call, on_report=reports.report).result()

        list(threads_of_lanes.map(lambda folder: _carry_out(folder, modules, in_a_lane), open_folders))


def _carry_out(folder: Path, modules: tuple[str, ...], run: Callable[[Call[Any], _Folder], Any]) -> None:
    from benchmark.executors.probe import facts
    from benchmark.executors.wire import answer_to_json, call_from_json
    from benchmark.files import write_atomically

    (folder / REPORTS).unlink(missing_ok=True)
    found: dict[str, Any] = {"host": socket.gethostname(), "facts": json.loads(facts())}
    try:
        tensors = (folder / TENSORS).read_bytes() if (folder / TENSORS).exists() else b""
        call = call_from_json((folder / CALL).read_bytes(), tensors, *([modules] if modules else []))
        found["answer"] = json.loads(answer_to_json(call, run(call, _Folder(folder))))
    except Exception:  # noqa: BLE001 - the head reads the traceback
        found["error"] = traceback.format_exc()
    write_atomically(folder / ANSWER, json.dumps(found).encode())
