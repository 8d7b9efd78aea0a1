"""The terminal views as people have them: at 80 and 120 columns, with colour, with NO_COLOR, and in a pipe."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.engine.search import SearchOutcome
from tests.agent.conftest import Agent, Terminal
from tests.agent.report_samples import change_summary, copy_run

VIEWS = {
    "runs": ("runs",),
    "show": ("show", "RUN"),
    "review": ("review", "RUN"),
    "compare": ("compare", "RUN", "RUN", "-o", "page.html"),
    "baselines": ("baselines", "--show", "fixup"),
}
TABLES = {"runs": "picked", "review": "detectable"}
"""Views with a table, and the last words of its head that must not be cut."""


def words(view: str, run: Path) -> list[str]:
    """The command line of a view of one run."""
    return [str(run) if word == "RUN" else word for word in VIEWS[view]]


@pytest.mark.parametrize(("columns", "colour"), [(80, True), (120, False)])
@pytest.mark.parametrize("view", VIEWS)
def test_on_a_terminal(
    finished: SearchOutcome, terminal: Terminal, monkeypatch: pytest.MonkeyPatch, view: str, columns: int, colour: bool
) -> None:
    """Colour where it means something, none with NO_COLOR; tables fit the width, their heads and names whole."""
    extra = {"COLUMNS": str(columns), "TERM": "xterm-256color", "INITSEARCH_RUNS": str(finished.run.parent)}
    monkeypatch.delenv("NO_COLOR", raising=False)
    extra |= {} if colour else {"NO_COLOR": "1"}
    screen, code = terminal(*words(view, finished.run), env=extra, script=[("[q]uit? ", "q\n")])
    assert code == 0, screen
    assert bool(re.search(r"\x1b\[(?:1;)?3[0-7]m", screen)) == (colour and view == "review")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", screen)
    if view in TABLES:
        head = next(line for line in plain.splitlines() if TABLES[view] in line)
        rows = [head, *(line for line in plain.splitlines() if line.startswith((finished.run.name, "  resnet20-tiny")))]
        assert len(rows) >= 2
        assert all(len(line) <= columns for line in rows)


@pytest.mark.parametrize("view", VIEWS)
def test_in_a_pipe(agent: Agent, finished: SearchOutcome, view: str) -> None:
    """No escape sequence, no question, nothing cut, and the hint where to go next is on stderr."""
    result = agent(*words(view, finished.run), env={"INITSEARCH_RUNS": str(finished.run.parent), "COLUMNS": "40"})
    assert result.returncode == 0, result.stderr
    assert "\x1b" not in result.stdout + result.stderr
    assert "next: " in result.stderr
    assert "next: " not in result.stdout
    if view in TABLES:
        assert TABLES[view] in result.stdout
    if view != "baselines":
        assert finished.run.name in result.stdout


def test_names_of_any_length_stay_whole(agent: Agent, finished: SearchOutcome, tmp_path: Path) -> None:
    """A long status folds instead of being cut, and a hostile one cannot steer the terminal."""
    run = copy_run(finished.run, tmp_path / "runs")
    change_summary(run, status="waiting_for_\x1b[31mreview", words=["\x1b]0;owned\x07"])
    listed = agent("runs", env={"COLUMNS": "60"})
    assert "waiting_for_\\x1b[31mreview" in listed.stdout
    shown = agent("show", run.path.name)
    assert "\x1b" not in listed.stdout + shown.stdout
    assert "\\x1b]0;owned" in shown.stdout
