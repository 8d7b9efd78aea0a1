"""`agent replay` and `agent audit`: a file is taken as it is, anything else is looked up among the runs."""

from __future__ import annotations

import sys
from pathlib import Path

from agent import transcripts
from agent.run import RunDirectory


def run_replay(source: str, runs: Path, *, as_json: bool) -> int:
    """Replay; 0, or 3 when anything differs. Raises UsageError."""
    return transcripts.run_replay(_find(source, runs), as_json=as_json, out=sys.stdout)


def run_audit(source: str, runs: Path, *, as_json: bool) -> int:
    """Audit; 0, or 3 when something hidden showed. Raises UsageError."""
    return transcripts.run_audit(_find(source, runs), as_json=as_json, out=sys.stdout)


def _find(source: str, runs: Path) -> Path:
    if Path(source).exists() or source.endswith((".json", ".jsonl")):
        return Path(source)
    return RunDirectory.find(source, runs).path
