"""trajectory.json: the conversation of a run in ATIF, as a search leaves it at its end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from agent.runs.directory import RunDirectory
from agent.transcripts.atif import write_atif
from agent.transcripts.loading import load_transcript
from benchmark.files import write_atomically

TRAJECTORY = "trajectory.json"


def write_trajectory(run: RunDirectory) -> None:
    """Write the trajectory into the run directory. Raises TranscriptError when the log cannot be read, OSError."""
    write_atomically(run.path / TRAJECTORY, trajectory(run).encode())


def trajectory(run: RunDirectory) -> str:
    """The run's conversation as the text of an ATIF file. Raises TranscriptError when the log cannot be read."""
    return as_text(write_atif(load_transcript(run.path), agent_name="initsearch", agent_version=_version()))


def as_text(document: Mapping[str, Any]) -> str:
    """JSON for a file. Half of a surrogate pair, which no file can take, becomes JSON's own escape."""
    return json.dumps(document, indent=1, ensure_ascii=False).encode(errors="backslashreplace").decode() + "\n"


def _version() -> str:
    try:
        return version("initsearch")
    except PackageNotFoundError:
        return "from a checkout"
