"""Whoever reads a run computes with the noise that its log recorded, whatever the store holds by then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.engine.search import SearchOutcome
from agent.report.findings import find
from agent.runs.record import read_run
from agent.studies.verify import verify
from tests.agent.report_samples import change_log, copy_run

TASK, HIDDEN = "resnet20-tiny", "mobilenetv2-tiny"


def test_report_and_verify_follow_the_recorded_noise(finished: SearchOutcome, tmp_path: Path) -> None:
    """A run says what its intervals rely on. Other noise in its log gives other intervals, and verify notices."""
    run = copy_run(finished.run, tmp_path / "runs")
    found = find(read_run(run))
    assert found.visible[TASK].ci == pytest.approx(tuple(finished.done["visible"][TASK]["ci"]))  # type: ignore[union-attr]
    (line,) = (line for line in finished.words if line.startswith("noise "))
    assert line == (
        "noise not measured on this machine: intervals use a prior SD, and allow for it being 1.5 times too small "
        f"[{TASK}, {HIDDEN}]"
    )
    assert found.noise == (line,)
    assert line[1:] in (finished.run / "report.html").read_text(encoding="utf-8")

    def measured(event: dict[str, Any]) -> dict[str, Any]:
        if event["kind"] != "launch":
            return event
        noise = {**event["noise"], TASK: {**event["noise"][TASK], "squares": 14 * 9.0, "measured_df": 14, "groups": 3}}
        return {**event, "noise": noise}

    change_log(run, measured)
    other = find(read_run(run))
    assert other.noise[0] == f"noise measured on this machine, 14 degrees of freedom (SD 4.4) [{TASK}]"
    assert other.visible[TASK].ci[1] < found.visible[TASK].ci[1]  # type: ignore[union-attr]
    assert other.hidden == found.hidden
    faults = {check.what: check.fault or "" for check in verify(run)}
    assert f"visible.{TASK}.ci" in faults["run.json agrees with the log"]


def test_a_log_without_noise_is_read_by_the_rule_of_its_time(finished: SearchOutcome, tmp_path: Path) -> None:
    """Runs of older versions keep their intervals: the profile's prior as it is in the table."""
    run = copy_run(finished.run, tmp_path / "runs")
    change_log(run, lambda event: {name: value for name, value in event.items() if name != "noise"})
    old = find(read_run(run))
    assert old.noise == ()
    comparison = old.visible[TASK]
    assert comparison is not None
    assert (comparison.df, comparison.doubted) == (5 + comparison.n_baseline + comparison.n_candidate - 2, False)


def test_noise_that_is_none_is_a_problem_on_the_page(finished: SearchOutcome, tmp_path: Path) -> None:
    """A log of somebody else may hold anything; the page still opens."""
    run = copy_run(finished.run, tmp_path / "runs")
    change_log(run, lambda event: event | {"noise": {TASK: "loud"}} if event["kind"] == "launch" else event)
    assert any("the recorded noise cannot be read" in problem for problem in find(read_run(run)).problems)
