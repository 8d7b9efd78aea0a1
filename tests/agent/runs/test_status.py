"""One list of statuses for all commands: what can be resumed, what waits, what is finished."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from agent.engine.loop import EndStatus
from agent.engine.search import Search
from agent.errors import UsageError
from agent.runs.directory import RunDirectory
from agent.runs.status import RunStatus
from tests.agent.conftest import Main


def run_with(folder: Path, **fields: Any) -> RunDirectory:
    path = folder / "20260101-000000-smoke-random-0000"
    path.mkdir()
    (path / "run.json").write_text(json.dumps(fields))
    return RunDirectory(path)


def test_every_end_of_the_loop_is_a_status() -> None:
    """Each known status is exactly one of resumable, waiting and finished."""
    assert set(get_args(EndStatus)) <= set(RunStatus)
    for status in set(RunStatus) - {RunStatus.UNKNOWN}:
        assert [status.resumable, status.waiting, status.finished].count(True) == 1, status


@pytest.mark.parametrize("status", ["running", "interrupted", "failed", "infra"])
def test_show_offers_to_resume_what_can_be_resumed(tmp_path: Path, main: Main, status: str) -> None:
    """After a run that ended with `infra`, `agent show` did not say that --resume goes on with it."""
    run = run_with(tmp_path, status=status)
    assert f"next: agent search --resume {run.path}" in main("show", str(run.path))[2]


@pytest.mark.parametrize("fields", [{}, {"status": None}, {"status": "of the future"}])
def test_a_strange_status_stops_no_command(tmp_path: Path, main: Main, fields: dict[str, Any]) -> None:
    """A run.json without a status, or with one that nobody knows, is shown and listed; resuming it is a usage error."""
    run = run_with(tmp_path, **fields)
    assert RunStatus.of(fields) is RunStatus.UNKNOWN
    for words in (("show", str(run.path)), ("runs", "--runs", str(tmp_path), "--json")):
        code, _, errors = main(*words)
        assert code == 0
        assert "--resume" not in errors
    with pytest.raises(UsageError, match="has the status"):
        Search.resume(run)
