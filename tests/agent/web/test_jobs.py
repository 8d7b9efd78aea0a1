"""The commands that the browser starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agent.web.jobs import Jobs, StartedCommand


def test_a_command_that_is_about_to_end_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search had let go of its run and was ending: its hidden task was refused as `at work already`."""

    def start(self: Jobs, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", "print(1)"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    monkeypatch.setattr(Jobs, "_start", start)
    jobs = Jobs(tmp_path)
    ending = subprocess.Popen(["sleep", "1"], text=True)
    jobs._jobs[tmp_path / "run"] = StartedCommand("the search", ending)
    jobs.submit(tmp_path / "run")
    assert ending.poll() == 0
    assert jobs.view(tmp_path / "run").what == "the hidden task"
    jobs.close()
