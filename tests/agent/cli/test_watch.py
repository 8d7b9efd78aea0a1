"""`agent watch`: another process works on the run, this one looks on."""

from __future__ import annotations

import json
import subprocess
import time
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from agent.progress import Progress
from agent.runs.directory import RunDirectory
from agent.runs.live import LiveFile
from tests.agent.conftest import Main, Terminal, agent_command, agent_environment, json_lines
from tests.agent.report_samples import change_summary
from tests.agent.runs.test_live import metrics
from tests.agent.runs.test_state import holder
from tests.sample import SAMPLE, restore


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """The sample run, as if it had not ended."""
    run = restore(SAMPLE, tmp_path / "runs" / "20261101-120000-pocket-optuna-aaaa")
    change_summary(run, status="running")
    return run


@pytest.mark.parametrize("as_json", [False, True])
def test_it_follows_until_the_process_ends(run: RunDirectory, cache: Path, as_json: bool) -> None:
    """What was said before it came, what is said while it looks, and the verdict at the end."""
    words = ["watch", str(run.path), *(["--json"] if as_json else [])]
    with holder(run), closing(LiveFile(run.path, Progress())) as progress:
        progress.begin(8, 3)
        progress.message("measuring the baseline")
        watching = subprocess.Popen(
            agent_command(*words),
            env=agent_environment(cache),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        read = watching.stdout if as_json else watching.stderr
        assert read is not None
        first = [read.readline() for _ in range(2 if as_json else 1)]
        assert "measuring the baseline" in first[-1]
        progress.started("test/1", "a-task", 0, 4)
        progress.epoch("test/1", "a-task", 0, metrics(2, 12.5), 4)
    out, err = watching.communicate(timeout=60)
    assert watching.returncode == 0
    if as_json:
        lines = json_lines(out)
        assert [line["kind"] for line in lines[:-1]] == ["started", "epoch"]
        assert (lines[-1]["event"], lines[-1]["run"], lines[-1]["status"]) == ("done", str(run.path), "running")
        assert "Traceback" not in err
    else:
        assert "test/1 a-task seed 0: epoch 2/4, test accuracy 12.50 %" in err
        assert "tests 3 of 3" in out
        assert "next: agent show" in err


def test_on_a_terminal(run: RunDirectory, terminal: Terminal) -> None:
    """A table of what is being trained, and the tests that are left, until the process that works on the run ends."""
    table = ("2/4", "12.50 %", "0 of 3 tests left")
    with ExitStack() as work:
        work.enter_context(holder(run))
        progress = work.enter_context(closing(LiveFile(run.path, Progress())))
        progress.begin(8, 3)
        progress.started("test/1", "a-task", 0, 4)
        progress.epoch("test/1", "a-task", 0, metrics(2, 12.5), 4)

        def end_the_work(shown: str) -> None:
            if all(text in shown for text in table):
                work.close()

        shown, code = terminal("watch", str(run.path), env={"COLUMNS": "100"}, look=end_the_work)
    assert code == 0
    assert all(text in shown for text in table)
    assert "no difference to the baseline" in shown


def test_nothing_to_watch(run: RunDirectory, main: Main) -> None:
    """A run that nothing works on is told at once; one that is not there is a usage error."""
    started = time.monotonic()
    code, out, err = main("watch", str(run.path))
    assert (code, "status running; tests 3 of 3" in out, "next: agent show" in err) == (0, True, True)
    assert time.monotonic() - started < 10
    assert main("watch", "nothing")[0] == 2
    code, out, _ = main("watch", str(run.path), "--json")
    assert (code, json.loads(out)["event"]) == (0, "done")
