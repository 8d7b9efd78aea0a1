"""What readers of the page stumbled over; each made from the sample run, without training."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

import pytest

from agent.analysis.against_baseline import compare_tasks
from agent.analysis.planning import Overhead, with_overhead
from agent.evaluation.batches import require_baseline
from agent.protocol import CandidateFailure
from agent.report.comparison_page import comparison_page, members
from agent.report.diff import changed_lines, side_by_side
from agent.report.findings import Findings, TestRow, find
from agent.report.flags import raise_flags
from agent.report.plotting import Line, curves
from agent.report.run_figures import search_progress
from agent.runs.directory import RunDirectory
from agent.runs.record import read_run
from agent.spaces.builtin import Parameters
from agent.spaces.rendering import render
from benchmark.executors import InfrastructureError
from benchmark.statistics import combine
from benchmark.tasks import ACCURACY, Metric
from tests.agent.conftest import Main
from tests.agent.report_samples import copy_run
from tests.sample import SAMPLE, restore


@pytest.fixture
def sample(tmp_path: Path) -> RunDirectory:
    """The kept run, whole."""
    (tmp_path / "runs").mkdir()
    return restore(SAMPLE, tmp_path / "runs" / "sample")


def test_a_rewrite_stands_in_one_column() -> None:
    """Half of the side-by-side diff of a total rewrite was grey; a change of single lines stays side by side."""
    old = "".join(f"old_{n} = {n}\n" for n in range(10))
    assert side_by_side(old, "".join(f"new_{n} = {n * n}\n" for n in range(60))).one_column
    assert not side_by_side(old, old.replace("old_3", "new_3")).one_column


def test_the_complexity_flag_counts_as_the_diff_does(sample: RunDirectory) -> None:
    """The flag said 46 lines where the diff above it had 54."""
    record = read_run(sample)
    shown = side_by_side(record.baseline_region, record.regions[1])
    assert changed_lines(record.baseline_region, record.regions[1]) == (shown.added, shown.removed)
    assert raise_flags(record, find(record), None)


def test_our_own_helpers_are_no_complexity(sample: RunDirectory) -> None:
    """A head × 0.1 in a user's network was "105 lines came": all but 20 were functions that this project puts there."""
    record = read_run(sample)
    region = render(Parameters(head_scale=0.1), ["theirs"])
    baseline = "def initialize_weights(model, config):\n    pass\n"

    def flagged(region: str) -> list[str]:
        changed = dataclasses.replace(record, regions={1: region}, baseline_region=baseline)
        return [flag.message for flag in raise_flags(changed, find(record), None) if flag.kind == "complexity"]

    assert flagged(region) == []
    (message,) = flagged(region + "\n".join(f"    x{n} = {n}" for n in range(40)))
    assert "of them in the built-in space's own helper functions) and" in message


def _searched(metric: Metric, baseline: float, *scores: float | None) -> Findings:
    """The findings of a search whose tests had these scores."""

    def row(number: int, score: float | None) -> TestRow:
        sides = ({"task": {0: baseline}}, {"task": {0: score}})
        overall = combine(compare_tasks("smoke", *sides, metrics={"task": metric}))
        return TestRow(number, "", {}, None if score is None else {metric: score}, overall, (), False, True)

    tests = tuple(row(number, score) for number, score in enumerate(scores, 1))
    return Findings({}, {}, tests, (), None, {metric: baseline}, "", "open", "", ())


@pytest.mark.parametrize(
    ("metric", "baseline", "scores", "said"),
    [
        (ACCURACY, 75.0, (70.0, 74.0, None), True),
        (ACCURACY, 75.0, (70.0, 76.0), False),
        (Metric("val_loss", "minimize"), 1.5, (1.6, 1.7), True),
        (Metric("val_loss", "minimize"), 1.5, (1.4, 1.7), False),
    ],
)
def test_the_best_so_far_may_be_below_the_baseline(
    metric: Metric, baseline: float, scores: tuple[float | None, ...], said: bool
) -> None:
    """ "Best so far" rose below the baseline's line, and nothing said that no test had beaten it; other metrics had no
    figure."""
    drawing = search_progress(_searched(metric, baseline, *scores))
    assert drawing is not None
    assert drawing.note == ("No test beat the baseline." if said else "")
    assert f"mean visible {metric.name}" in drawing.svg


def test_unlike_metrics_have_no_common_axis() -> None:
    found = dataclasses.replace(_searched(ACCURACY, 75.0, 76.0), baseline_scores={ACCURACY: 75.0, Metric("f1"): 0.5})
    assert search_progress(found) is None


def test_an_axis_of_accuracies_is_no_magnifying_glass() -> None:
    """Around 14.00 % the axis went from 13.25 to 14.75, and noise looked like a landscape."""
    line = Line("test 1", [1, 2, 3], [14.0, 14.1, 13.9])
    svg = curves("title", [line], x="epoch", y="accuracy", alt="accuracy", least_span=5.0).svg
    ticks = [float(text) for text in re.findall(r">(\d+\.?\d*)</text>", svg) if float(text) > 3]
    assert max(ticks) - min(ticks) >= 3


def test_layers_of_one_kind_are_dots() -> None:
    """Network figures joined unlike layers into zigzags: with a marker no path joins the points."""
    line = Line("baseline", [1, 2, 3], [1.0, 0.1, 1.0], baseline=True, marker="o")
    with_zero = Line("test 1", [1, 2, 3], [0.0, math.nan, 2.0], marker="^")
    dots = curves("t", [line, with_zero], x="layer", y="std", alt="std", log=True).svg
    joined = curves("t", [Line("a", [1, 2, 3], [1.0, 0.1, 1.0])], x="layer", y="std", alt="std", log=True).svg
    solid = "stroke: var(--submission); stroke-width: 1.6"
    assert solid in joined
    assert solid not in dots


def test_compare_says_a_verdict(sample: RunDirectory, tmp_path: Path) -> None:
    """The page of a comparison had differences task by task and no sentence that says what they come to."""
    other = copy_run(sample.path, tmp_path / "other")
    page = comparison_page(members([sample, other]))
    assert "On the visible tasks B cannot be told from A (0.0 points" in page


def test_an_unset_parameter_is_the_networks_and_not_the_machines() -> None:
    """A network of a user had a parameter that the baseline does not set: "agent doctor looks at this machine"."""
    failure = CandidateFailure("unset_parameter", "not or not wholly set: scale")
    with pytest.raises(InfrastructureError, match="does not set every parameter") as raised:
        require_baseline({("baseline", "mine-tiny", 0): failure}, "baseline")
    assert "doctor" not in str(raised.value)


def test_hints_fit_the_run(main: Main, sample: RunDirectory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """After --approve only `git am` was named, after --reject the profile and the folder were lost."""
    monkeypatch.chdir(tmp_path / "runs")
    code, _, err = main("review", str(sample.path), "--approve")
    assert code == 0, err
    assert "initialize_weights.py" in err
    _, _, err = main("review", str(sample.path), "--reject", "-m", "why")
    again = err.splitlines()[-1]
    assert "--profile pocket" in again or ("--profile" not in again and "auto" in str(sample.read_summary()["config"]))
    assert f"--runs {sample.path.parent}" in again


def test_show_fits_a_screen(main: Main, sample: RunDirectory) -> None:
    """Sentences of 173 characters ran over the edge."""
    _, out, _ = main("show", str(sample.path))
    words = out.partition("\nFrom ")[0]
    assert max(map(len, words.splitlines()[1:])) <= 100


def test_the_list_has_profile_proposer_and_review(main: Main, sample: RunDirectory) -> None:
    """`agent runs` left out what tells runs apart, and whether anybody approved one."""
    _, out, _ = main("runs", "--runs", str(sample.path.parent))
    head, row = out.splitlines()[:2]
    assert {"profile", "proposer"} <= set(head.split())
    assert {"pocket", "optuna"} <= set(row.split())


def test_overhead_counts_in_every_design() -> None:
    """plan said "about 13 s in all" for a search that took 119 s."""
    plan = {"seconds": 13.0, "budget": 2, "instead": [{"seconds": 5.0, "budget": 1}]}
    found = with_overhead(plan, Overhead(start=20.0, test=1.5, page=10.0))
    assert (found["seconds"], found["instead"][0]["seconds"]) == (46.0, 36.5)
    assert found["overhead"] == {"start": 20.0, "checks": 3.0, "page": 10.0}


def test_the_kept_module_means_the_kept_region(sample: RunDirectory) -> None:
    """Modules that were exported before can be checked and started from, too."""
    from sandbox.region import region_of

    text = (sample.path / "initialize_weights.py").read_text(encoding="utf-8")
    assert region_of(text) == read_run(sample).regions[1]


def test_resume_of_a_complete_run_makes_the_trajectory(main: Main, sample: RunDirectory) -> None:
    """The contract's trajectory.json was not written; a run that lacks it gets it, with the same done line."""
    code, out, err = main("search", "--resume", str(sample.path), "--no-page")
    assert code == 0, err
    assert out
    assert '"schema_version"' in (sample.path / "trajectory.json").read_text(encoding="utf-8")
    assert not (sample.path / "report.html").exists()
