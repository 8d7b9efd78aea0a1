"""A run that is under way says the same in every view, from its log."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.report import write_report
from agent.runs.directory import RunDirectory
from agent.runs.state import state_of
from tests.agent.conftest import ROOT, Main, json_lines
from tests.agent.report_samples import Fields, change_log, change_summary, copy_run

HOLD = """
import sys
from pathlib import Path
from agent.runs.directory import RunDirectory
with RunDirectory(Path(sys.argv[1])).held():
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(run: RunDirectory) -> Iterator[None]:
    """Another process that holds the run."""
    command = [sys.executable, "-c", HOLD, str(run.path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield


@pytest.fixture
def training_hidden(tmp_path: Path) -> RunDirectory:
    """The sample as it was while its hidden task was trained: submitted, and run.json without results."""
    run = copy_run(ROOT / "tests" / "data" / "sample-run", tmp_path / "runs")
    results = ("visible", "hidden", "generalisation", "tests", "tests_used", "submitted_test", "words", "seconds")
    change_summary(run, status="running", overhead=None, **dict.fromkeys(results))
    change_log(run, _before_hidden)
    return run


def _before_hidden(event: Fields) -> Fields | None:
    late = event["kind"] == "ended" or str(event.get("role")).startswith("hidden/")
    return None if late else event


def test_show_and_page_agree_on_a_running_run(main: Main, training_hidden: RunDirectory) -> None:
    """show said tests 0 of 1 and "has not ended", the page 1 of 1 and "Hidden task not run", and next: --resume."""
    run = training_hidden
    with holder(run):
        assert run.is_held
        page = write_report(run, measure=False).read_text(encoding="utf-8")
        _, out, err = main("show", str(run.path))
        _, shown, _ = main("show", str(run.path), "--json")
        _, listed, _ = main("runs", "--json")
    assert "status     running (a process works on it)" in out
    assert "tests      3 of 3\n" in out
    assert "test 1 was submitted, and the hidden task is being trained." in " ".join(out.split())
    assert "--resume" not in err
    assert ">Running<" not in page
    assert "◆ Running" in page
    assert "<dd>3 of 3</dd>" in page
    assert "the hidden task is being trained." in page
    assert "not run" not in page.partition('<section id="flags">')[0]
    assert (json_lines(shown)[0]["tests_used"], json_lines(shown)[0]["held"]) == (3, True)
    assert json_lines(listed)[0]["runs"][0]["tests_used"] == 3


def test_a_killed_run_is_to_be_resumed(main: Main, training_hidden: RunDirectory) -> None:
    """Without a process the same files mean that it was killed."""
    _, out, err = main("show", str(training_hidden.path))
    assert "This search was killed, its process is gone." in " ".join(out.split())
    assert "agent search --resume" in err
    assert not training_hidden.is_held
    assert "Unfinished" in write_report(training_hidden, measure=False).read_text(encoding="utf-8")


def test_the_fold_says_which_test_is_trained() -> None:
    """Also before the first test, between two, and with a log that holds nonsense."""
    events: list[dict[str, object]] = [{"kind": "test_started", "number": 1}]
    summary = {"status": "running", "budget": 2}
    assert state_of(summary, [], held=True).words.endswith("the first test has not begun.")
    assert state_of(summary, events, held=True).tests == "0 of 2 (test 1 is being trained)"
    assert state_of(summary, events, held=False).tests == "0 of 2 (test 1 was begun)"
    events += [{"kind": "test_finished", "number": 1}, {"kind": "test_finished", "number": None}, {}]
    assert state_of(summary, events, held=True).words.endswith("between two tests.")
