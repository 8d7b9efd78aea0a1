"""One list of statuses for all commands: what can be resumed, what waits, what is finished."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from agent.cli.show import run_list, run_show
from agent.engine.loop import EndStatus
from agent.engine.search import Search
from agent.errors import UsageError
from agent.runs.directory import RunDirectory
from agent.runs.status import RunStatus


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
def test_show_offers_to_resume_what_can_be_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], status: str
) -> None:
    """After a run that ended with `infra`, `agent show` did not say that --resume goes on with it."""
    run = run_with(tmp_path, status=status)
    run_show(str(run.path), tmp_path, as_json=False)
    assert f"next: agent search --resume {run.path}" in capsys.readouterr().err


@pytest.mark.parametrize("fields", [{}, {"status": None}, {"status": ["submitted"]}, {"status": "of the future"}])
def test_a_strange_status_stops_no_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fields: dict[str, Any]
) -> None:
    """A run.json without a status, or with one that nobody knows, is shown and listed; resuming it is a usage error."""
    run = run_with(tmp_path, **fields)
    assert RunStatus.of(fields) is RunStatus.UNKNOWN
    run_show(str(run.path), tmp_path, as_json=False)
    run_list(tmp_path, style="json")
    assert "--resume" not in capsys.readouterr().err
    with pytest.raises(UsageError, match="has the status"):
        Search.resume(run)
