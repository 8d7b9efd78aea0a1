"""A search with all its processes, killed or stopped: it goes on to the same end, and nothing is left running.

Kills at moments all over a search are in test_crashes.py, where a start costs less.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from benchmark.hardware import cpu_count
from tests.agent.conftest import Agent, agent_command, agent_environment, json_lines
from tests.agent.harm import Server, family, left_running, outcome

COMMAND = (
    *("search", "--profile", "smoke", "--budget", "1", "--json", "--no-cache"),
    *("--workers", str(cpu_count())),  # with one thread each, as the undisturbed search in one process
)


@pytest.fixture(scope="module")
def uninterrupted(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run to compare with: by one process that nobody disturbed."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    code, _ = server.run(folder, *COMMAND)
    assert code == 0, (folder / "stderr").read_text()
    return Path(json_lines((folder / "stdout").read_text())[0]["run"])


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


def _events(run: Path) -> int:
    """How many events the log holds."""
    try:
        return (run / "events.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


@pytest.mark.parametrize("round_number", range(int(os.environ.get("INITSEARCH_TEST_KILLS", "1"))))
def test_stopped_and_killed_search_resumes_to_the_same_outcome(
    uninterrupted: Path, agent: Agent, tmp_path: Path, round_number: int
) -> None:
    """Ctrl-C during training: exit 130 (in odd rounds SIGTERM: 143), the run says `interrupted` and how to go on. Then
    kill -9 of the resumed search at a random moment. The next one has the same tests, regions, accuracies, submission.

    INITSEARCH_TEST_KILLS sets the number of rounds.
    """
    number, code = ((signal.SIGINT, 130), (signal.SIGTERM, 143))[round_number % 2]
    stopped = _start(tmp_path, *COMMAND, stderr=subprocess.PIPE)
    assert stopped.stdout is not None
    assert stopped.stderr is not None
    run = Path(json.loads(stopped.stdout.readline())["run"])
    for line in stopped.stderr:
        if "test/1" in line:
            break
    started = family(stopped.pid)
    stopped.send_signal(number)
    _, errors = stopped.communicate(timeout=60)
    assert stopped.returncode == code
    assert f"agent search --resume {run}" in errors
    assert json.loads((run / "run.json").read_text())["status"] == "interrupted"
    assert left_running(started) == set()

    words = ("search", "--resume", str(run), "--json")
    moments = random.Random(round_number)
    # While the hidden task is trained at the latest.
    moment = moments.choice(range(_events(run) + 1, _events(uninterrupted) - 2))
    killed = _start(tmp_path, *words)
    while _events(run) < moment:
        assert killed.poll() is None
        time.sleep(0.01)
    time.sleep(moments.uniform(0, 0.2))
    started = family(killed.pid)
    killed.kill()
    killed.communicate()
    assert json.loads((run / "run.json").read_text())["status"] == "running"

    result = agent(*words)
    assert result.returncode == 0, result.stderr
    assert outcome(run) == outcome(uninterrupted)
    assert left_running(started) == set()
    again = agent(*words)
    assert again.returncode == 0, again.stderr
    assert json_lines(again.stdout)[-1] == json_lines(result.stdout)[-1]
