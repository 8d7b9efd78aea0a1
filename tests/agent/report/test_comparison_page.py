"""Runs as a shelf: `agent runs` in every form, the index page, and `agent compare`."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from agent.engine.search import SearchOutcome
from agent.report.comparison_page import comparison_page, index_page, members, pairs
from agent.runs.directory import RunDirectory
from agent.runs.reviews import add_review
from tests.agent.conftest import Agent, Main
from tests.agent.report.test_report import Page, rewrite_curves
from tests.agent.report_samples import HOSTILE, change_log, change_summary, copy_run

pytestmark = pytest.mark.usefixtures("drawn_once")


@pytest.fixture
def shelf(finished: SearchOutcome, tmp_path: Path) -> tuple[RunDirectory, RunDirectory]:
    """Two runs in one folder; the second was three points better with every seed."""
    first = copy_run(finished.run, tmp_path / "runs")
    second = RunDirectory(first.path.rename(first.path.with_name("second")))
    first = copy_run(finished.run, tmp_path / "runs")
    better = f"test/{finished.done['submitted_test']}"
    change_log(
        second,
        lambda event: {**event, "accuracy": event["accuracy"] + 3} if event.get("role") == better else event,
    )
    return first, second


def test_runs_as_csv(shelf: tuple[RunDirectory, RunDirectory], agent: Agent) -> None:
    """`agent runs --csv` is a table that a spreadsheet reads: a line per run, numbers unrounded."""
    add_review(shelf[1], "approve", "")
    done = agent("runs", "--runs", str(shelf[0].path.parent), "--csv")
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO(done.stdout))}
    assert set(rows) == {run.path.name for run in shelf}
    assert float(rows["second"]["visible_gain"]) == pytest.approx(
        shelf[1].read_summary()["visible"]["resnet20-tiny"]["gain"], abs=1e-12
    )
    assert (rows["second"]["review"], rows[shelf[0].path.name]["review"]) == ("approve", "")


def test_no_runs_as_csv(agent: Agent) -> None:
    """An empty folder gives the heading alone."""
    assert len(agent("runs", "--csv").stdout.splitlines()) == 1


def test_index_page(shelf: tuple[RunDirectory, RunDirectory], agent: Agent) -> None:
    """`agent runs --html` writes an index that links the pages that exist and shows hostile names as names."""
    (shelf[1].path / "report.html").write_text("x")
    change_summary(shelf[0], profile=HOSTILE, status=HOSTILE)
    runs = shelf[0].path.parent
    done = agent("runs", "--runs", str(runs), "--html")
    assert done.stdout.strip() == str(runs / "index.html")
    page = Page((runs / "index.html").read_text(encoding="utf-8"))
    assert [a["href"] for tag, a in page.tags if tag == "a"] == ["second/report.html"]
    assert "script" not in page.names()
    assert "2 runs, the newest first" in page.text
    assert "There are no runs yet" in Page(index_page([])).text


def test_compare_over_shared_seeds(shelf: tuple[RunDirectory, RunDirectory], main: Main) -> None:
    """`agent compare A B` gives each task's difference with an interval, and a page with all curves."""
    runs = str(shelf[0].path.parent)
    for run in shelf:
        rewrite_curves(run, lambda curve: [{**curve[0], "epoch": 0}, *curve])
    code, out, err = main("compare", shelf[0].path.name, "second", "--runs", runs)
    assert code == 0, err
    assert "B − A, visible resnet20-tiny (seed 0): +3.0 points (95 % interval" in out
    page = Page((shelf[0].path.parent / "comparison.html").read_text(encoding="utf-8"))
    assert sum(tag == "svg" for tag, _ in page.tags) == 2
    assert "B − Aseed 0+3.0 points" in page.text  # "shared seeds: 0" read as "none is shared"
    fields = json.loads(main("compare", shelf[0].path.name, "second", "--runs", runs, "--json")[1])
    assert [pair["comparison"]["gain"] for pair in fields["pairs"]] == pytest.approx([3, 0])
    assert set(fields["runs"]) == {"A", "B"}


def test_compare_says_what_else_differs(shelf: tuple[RunDirectory, RunDirectory]) -> None:
    """Another profile or machine, no shared seed, no submission: each is said."""
    change_summary(shelf[1], profile="pocket", environment={"device": "another"}, submitted_test=None)
    change_log(
        shelf[1],
        lambda event: (
            None if event["kind"] == "submitted" else {**event, "seed": 7} if event["kind"] == "evaluated" else event
        ),
    )
    found = members(shelf)
    text = Page(comparison_page(found)).text
    for expected in ("differ in profile", "differ in environment", "B has submitted nothing"):
        assert expected in text
    assert {pair.seeds for pair in pairs(found)} == {()}


def test_compare_wants_two_to_six(agent: Agent, shelf: tuple[RunDirectory, RunDirectory]) -> None:
    """One run, or seven, is a mistake with its own sentence."""
    runs = str(shelf[0].path.parent)
    for names in (["second"], ["second"] * 7):
        done = agent("compare", *names, "--runs", runs)
        assert done.returncode == 2
        assert "2 to 6 runs" in done.stderr


def test_compare_six_damaged_runs(shelf: tuple[RunDirectory, RunDirectory]) -> None:
    """Six runs without logs have nothing to compare, and the page says so."""
    for run in shelf:
        run.events.unlink()
    assert "no task in common" in Page(comparison_page(members([*shelf] * 3))).text
