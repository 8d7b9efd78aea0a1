"""The job of one evaluation on a Slurm cluster: reads the call from its folder, and writes reports and answer there."""

from __future__ import annotations

import json
import os
import socket
import traceback
from pathlib import Path
from typing import Any

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


def main(folder: str, threads: int, modules: tuple[str, ...] = ()) -> None:
    """Carry out the call of this folder. Slurm runs this again from the start when it requeues the job."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "INITSEARCH_THREADS"):  # before torch is imported
        os.environ[name] = str(threads)
    from benchmark.executors.probe import facts
    from benchmark.executors.wire import answer_to_json, call_from_json
    from benchmark.files import write_atomically

    place = Path(folder)
    (place / REPORTS).unlink(missing_ok=True)
    found: dict[str, Any] = {"host": socket.gethostname(), "facts": json.loads(facts())}
    try:
        tensors = (place / TENSORS).read_bytes() if (place / TENSORS).exists() else b""
        call = call_from_json((place / CALL).read_bytes(), tensors, *([modules] if modules else []))
        found["answer"] = json.loads(answer_to_json(call, call(_Folder(place))))
    except Exception:  # noqa: BLE001 - the head reads the traceback
        found["error"] = traceback.format_exc()
    write_atomically(place / ANSWER, json.dumps(found).encode())
