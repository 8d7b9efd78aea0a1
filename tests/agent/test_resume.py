"""A search with all its processes, killed or stopped: it goes on to the same end, and nothing is left running.

Thirty kills at moments all over a search are in test_crashes.py, where a start costs less.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.agent.conftest import Agent, agent_command, agent_environment, json_lines
from tests.agent.harm import Process, family, left_running, outcome

COMMAND = ("search", "--profile", "smoke", "--budget", "1", "--json", "--no-cache", "--seed", "3")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], float]:
    """The outcome to compare with, and how many seconds it took."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    start = time.monotonic()
    result = subprocess.run(
        agent_command(*COMMAND),
        cwd=folder,
        env=agent_environment(folder / "cache"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    return outcome(Path(json_lines(result.stdout)[0]["run"])), time.monotonic() - start


def _start(folder: Path, *words: str, stderr: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
    return subprocess.Popen(
        agent_command(*words),
        cwd=folder,
        env=agent_environment(folder / "cache"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("round_number", range(int(os.environ.get("INITSEARCH_TEST_KILLS", "1"))))
def test_killed_search_resumes_to_the_same_outcome(
    uninterrupted: tuple[dict[str, Any], float], tmp_path: Path, round_number: int
) -> None:
    """kill -9 at random moments, then `agent search --resume`: same tests, regions, accuracies and submission.

    INITSEARCH_TEST_KILLS sets the number of rounds.
    """
    expected, seconds = uninterrupted
    moments = random.Random(round_number)
    started: set[Process] = set()
    process = _start(tmp_path, *COMMAND)
    assert process.stdout is not None
    run = Path(json.loads(process.stdout.readline())["run"])
    for _ in range(2):
        try:
            process.wait(timeout=moments.uniform(0, seconds))
        except subprocess.TimeoutExpired:
            started |= family(process.pid)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        if json.loads((run / "run.json").read_text())["status"] == "submitted":
            break
        process = _start(tmp_path, "search", "--resume", str(run), "--json")
    process.communicate()
    if json.loads((run / "run.json").read_text())["status"] != "submitted":
        subprocess.run(
            agent_command("search", "--resume", str(run), "--json"),
            cwd=tmp_path,
            env=agent_environment(tmp_path / "cache"),
            capture_output=True,
            check=True,
        )
    assert outcome(run) == expected
    assert left_running(started) == set()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_stops_with_its_code_and_says_how_to_go_on(
    uninterrupted: tuple[dict[str, Any], float], agent: Agent, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """Ctrl-C during training: exit 130 (SIGTERM: 143), the run says `interrupted`, resuming gives the same end."""
    expected, _ = uninterrupted
    process = _start(tmp_path, *COMMAND, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    run = Path(json.loads(process.stdout.readline())["run"])
    for line in process.stderr:
        if "test/1" in line:
            break
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert f"agent search --resume {run}" in errors
    assert json.loads((run / "run.json").read_text())["status"] == "interrupted"
    result = agent("search", "--resume", str(run), "--json")
    assert result.returncode == 0, result.stderr
    assert outcome(run) == expected
    again = agent("search", "--resume", str(run))
    assert again.returncode == 2
    assert "complete" in again.stderr
