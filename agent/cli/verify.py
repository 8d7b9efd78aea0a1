"""`agent verify`."""

from __future__ import annotations

import sys
from pathlib import Path

from agent.cli.output import print_json
from agent.progress import make_progress
from agent.runs.directory import RunDirectory
from agent.studies.verify import verify


def run_verify(run: str, runs: Path, *, execute: bool, as_json: bool) -> int:
    """Print what fits and what does not; 0, or 3 when something does not fit."""
    directory = RunDirectory.find(run, runs)
    progress = make_progress(quiet=not execute)
    try:
        checks = verify(directory, execute=execute, progress=progress)
    finally:
        progress.close()
    intact = all(check.fault is None for check in checks)
    if as_json:
        found = [{"check": check.what, "ok": check.fault is None, "fault": check.fault} for check in checks]
        print_json({"run": str(directory.path), "intact": intact, "checks": found})
    else:
        for check in checks:
            print(
                f"{'ok   ' if check.fault is None else 'FAULT'} {check.what}"
                + (f": {check.fault}" if check.fault else "")
            )
        hint = "agent replay" if intact else "agent show"
        print(f"next: {hint} {directory.path.name}", file=sys.stderr)
    return 0 if intact else 3
