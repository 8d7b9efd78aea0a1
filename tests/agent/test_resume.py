"""A search that is killed at any moment goes on to the same end, with nothing lost, paid twice or left running."""

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

from agent.events import Evaluated, Submitted, TestFinished, TestStarted, ToolReplied, read_events
from tests.agent.conftest import Agent, agent_command, agent_environment, json_lines

COMMAND = ("search", "--profile", "smoke", "--budget", "1", "--json", "--no-cache", "--seed", "3")


def _outcome(run: Path) -> dict[str, Any]:
    """What must be equal whether or not a search was interrupted."""
    events = [record.event for record in read_events(run / "events.jsonl")]
    return {
        "regions": [event.region_sha256 for event in events if isinstance(event, ToolReplied)],
        "accuracies": [(e.role, e.task, e.seed, e.accuracy) for e in events if isinstance(e, Evaluated)],
        "tests": [event.number for event in events if isinstance(event, TestStarted)],
        "results": [event.accuracies for event in events if isinstance(event, TestFinished)],
        "submitted": [event.number for event in events if isinstance(event, Submitted)],
    }


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
    return _outcome(Path(json_lines(result.stdout)[0]["run"])), time.monotonic() - start


def _start(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        agent_command(*words),
        cwd=folder,
        env=agent_environment(folder / "cache"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def _descendants_in(folder: Path) -> list[int]:
    """Processes whose working directory or environment names this test's folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if str(folder).encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


@pytest.mark.parametrize("round_number", range(int(os.environ.get("INITSEARCH_TEST_KILLS", "1"))))
def test_killed_search_resumes_to_the_same_outcome(
    uninterrupted: tuple[dict[str, Any], float], tmp_path: Path, round_number: int
) -> None:
    """kill -9 at random moments, then `agent search --resume`: same tests, regions, accuracies and submission.

    INITSEARCH_TEST_KILLS sets the number of rounds.
    """
    expected, seconds = uninterrupted
    moments = random.Random(round_number)
    process = _start(tmp_path, *COMMAND)
    assert process.stdout is not None
    run = Path(json.loads(process.stdout.readline())["run"])
    for _ in range(2):
        try:
            process.wait(timeout=moments.uniform(0, seconds))
        except subprocess.TimeoutExpired:
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
    assert _outcome(run) == expected
    deadline = time.monotonic() + 10
    while (left := _descendants_in(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_stops_with_its_code_and_says_how_to_go_on(
    uninterrupted: tuple[dict[str, Any], float], agent: Agent, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """Ctrl-C during training: exit 130 (SIGTERM: 143), the run says `interrupted`, resuming gives the same end."""
    expected, _ = uninterrupted
    process = subprocess.Popen(
        agent_command(*COMMAND),
        cwd=tmp_path,
        env=agent_environment(tmp_path / "cache"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
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
    assert _outcome(run) == expected
    again = agent("search", "--resume", str(run))
    assert again.returncode == 2
    assert "complete" in again.stderr
