"""`agent verify`."""

from __future__ import annotations

import sys
from pathlib import Path

from agent.cli.output import print_json
from agent.progress import make_progress
from agent.runs.directory import RunDirectory
from agent.runs.log import chain
from agent.safe_text import spelt
from agent.studies.verify import verify


def run_verify(run: str, runs: Path, *, execute: bool, as_json: bool, allowed_signers: Path | None = None) -> int:
    """Print what fits, what does not and what nothing can show; 3 when something does not fit, else 0."""
    directory = RunDirectory.find(run, runs)
    progress = make_progress(quiet=not execute)
    try:
        checks = verify(directory, execute=execute, progress=progress, allowed_signers=allowed_signers)
    finally:
        progress.close()
    intact = all(check.fault is None for check in checks)
    log = chain(directory.events)
    if as_json:
        found = [
            {
                "name": check.what,
                "verdict": check.verdict,
                "detail": check.detail,
                "check": check.what,
                "ok": check.verdict == "ok",
                "fault": check.fault,
            }
            for check in checks
        ]
        head = log[-1] if log else None
        print_json({"run": str(directory.path), "intact": intact, "log_sha256": head, "checks": found})
    else:
        for check in checks:
            mark = {"ok": "ok   ", "differs": "FAULT", "not_verifiable": "-    "}[check.verdict]
            said = "not verifiable: " if check.verdict == "not_verifiable" else ""
            print(f"{mark} {check.what}{f': {said}{spelt(check.detail)}' if check.detail else ''}")
        hint = "agent replay" if intact else "agent show"
        print(f"next: {hint} {directory.path.name}", file=sys.stderr)
    return 0 if intact else 3
