"""Our own runs replay: every edit again, by the log alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from agent.engine.search import SearchOutcome
from tests.agent.conftest import Agent, json_lines


def test_every_edit_of_a_run_replays_exactly(agent: Agent, finished: SearchOutcome) -> None:
    """`agent replay RUN --json`: edits are exact, tests unverifiable with the reason, nothing differs; exit 0."""
    result = agent("replay", str(finished.run), "--json")
    *calls, done = json_lines(result.stdout)
    assert result.returncode == 0
    assert (done["event"], done["differs"]) == ("done", 0)
    assert {call["verdict"] for call in calls if call["tool"] == "edit"} == {"exact"}
    tests = [call for call in calls if call["tool"] in ("test", "submit")]
    assert tests
    assert all(call["verdict"] == "unverifiable" and "budget line agrees" in call["reason"] for call in tests)


def test_log_alone_is_enough(agent: Agent, finished: SearchOutcome, tmp_path: Path) -> None:
    """A log sent by mail replays without the run's other files, whatever it is called."""
    log = tmp_path / "a run of mine.jsonl"
    shutil.copy(finished.run / "events.jsonl", log)
    assert agent("replay", str(log)).returncode == 0
    assert agent("audit", str(log)).returncode == 0


def test_own_run_shows_nothing_hidden(agent: Agent, finished: SearchOutcome) -> None:
    """`agent audit RUN --json`: no leaks, exit 0."""
    result = agent("audit", str(finished.run), "--json")
    (found,) = json_lines(result.stdout)
    assert (result.returncode, found["leaks"]) == (0, [])
    assert found["calls"] >= 5


def test_changed_reply_is_noticed(agent: Agent, finished: SearchOutcome, tmp_path: Path) -> None:
    """A log whose reply was edited does not pass for the original: the chain is broken, exit 2 says where."""
    log = tmp_path / "events.jsonl"
    lines = (finished.run / "events.jsonl").read_text(encoding="utf-8").splitlines()
    number = next(n for n, line in enumerate(lines) if json.loads(line)["kind"] == "tool_replied")
    lines[number] = lines[number].replace("OK: Replaced", "OK: Rewrote")
    log.write_text("\n".join(lines) + "\n", encoding="utf-8")
    result = agent("replay", str(log))
    assert result.returncode == 2
    assert f"line {number + 2}" in result.stderr
