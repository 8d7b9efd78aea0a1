"""`agent report`."""

from __future__ import annotations

import sys
from pathlib import Path

from agent.cli.output import print_json
from agent.report import write_report
from agent.runs.directory import RunDirectory


def run_report(run: str, runs: Path, output: Path | None, *, measure: bool, as_json: bool) -> int:
    """Write the page of a run and say where it is. Raises UsageError, RunDamaged."""
    directory = RunDirectory.find(run, runs)
    page = write_report(directory, measure=measure, output=output)
    if as_json:
        print_json({"run": str(directory.path), "report": str(page), "bytes": page.stat().st_size})
        return 0
    print(page)
    print(f"next: open it in a browser, or agent review {directory.path.name}", file=sys.stderr)
    return 0
