"""Visible gain against hidden gain: one run's line, and the correlation over runs."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from agent.analysis.generalisation import RunGains, as_json, carry_over, of_run, over_runs, runs_as_json
from agent.engine.search import SearchOutcome
from benchmark.statistics import Comparison, NoisePrior, StatisticsError, combine, compare, correlate, in_noise_units
from tests.agent.conftest import Main, json_lines

pytestmark = pytest.mark.usefixtures("processes_shared")

LOUD, QUIET = NoisePrior(4.0, 14), NoisePrior(0.5, 14)


def _gain(units: float, prior: NoisePrior) -> Comparison:
    return compare({1: 50.0, 2: 50.0}, {1: 50 + units * prior.sd, 2: 50 + units * prior.sd}, prior)


def _run(name: str, visible: float, hidden: float, *, null: bool = False, profile: str = "pocket") -> RunGains:
    return RunGains(name, profile, carry_over({"a": _gain(visible, LOUD)}, {"b": _gain(hidden, QUIET)}), null=null)


def test_gains_are_put_together_in_units_of_noise() -> None:
    """Two tasks of different scale count alike; a single task's interval is its own, divided by its unit."""
    both = in_noise_units({"a": _gain(3.0, LOUD), "b": _gain(1.0, QUIET)})
    assert both.gain == pytest.approx(2.0)
    one = _gain(3.0, LOUD)
    assert in_noise_units({"a": one}).ci == pytest.approx([bound / 4.0 for bound in combine({"a": one}).ci])
    assert in_noise_units({"a": None, "b": one}).failed == ("a",)


def test_one_run_says_what_was_lost() -> None:
    """Visible +3, hidden +1 in units of noise: a loss of 2 with an interval wider than either side's."""
    found = carry_over({"a": _gain(3.0, LOUD)}, {"b": _gain(1.0, QUIET)})
    assert found is not None
    assert found.loss == pytest.approx(2.0)
    width = found.loss_ci[1] - found.loss_ci[0]
    assert width == pytest.approx(math.hypot(*(side.ci[1] - side.ci[0] for side in (found.visible, found.hidden))))
    (line,) = of_run({"a": _gain(3.0, LOUD)}, {"b": _gain(1.0, QUIET)})
    assert line.startswith("in units of seed noise: visible +3.0 (")
    assert "visible minus hidden +2.0 (" in line
    assert line.endswith("not resolved")
    assert of_run({"a": _gain(9.0, LOUD)}, {"b": _gain(-9.0, QUIET)})[0].endswith(": resolved")


def test_a_missing_side_is_no_gain_of_zero() -> None:
    """A hidden task that was not run or failed gives no line and null in JSON."""
    assert of_run({"a": _gain(1.0, LOUD)}, {}) == []
    assert carry_over({"a": _gain(1.0, LOUD)}, {"b": None}) is None
    assert as_json(None) is None


@pytest.mark.parametrize("n", [4, 6])
def test_the_interval_of_a_correlation_covers(n: int) -> None:
    """Fisher's interval holds the true correlation in 93–97 % of samples, from four runs on."""
    rng = np.random.default_rng(n)
    held = 0
    for _ in range(1500):
        x, noise = rng.normal(size=(2, n))
        low, high = correlate(list(zip(x, 0.6 * x + 0.8 * noise, strict=True)))[1]
        held += low <= 0.6 <= high
    assert 0.93 <= held / 1500 <= 0.97


def test_three_runs_resolve_nothing() -> None:
    """Three points on a line look perfect and show nothing; with five the correlation is resolved."""
    three = [_run("A", 1, 2), _run("B", 2, 4), _run("C", 3, 6)]
    assert runs_as_json(three)["correlation"]["ci"] == [-1.0, 1.0]
    assert "not resolved" in over_runs(three)[-1]
    five = [*three, _run("D", 4, 8.1), _run("E", 5, 9.9)]
    found = runs_as_json(five)["correlation"]
    assert found["resolved"]
    assert found["r"] > 0.99
    assert len(over_runs(five)) == 6


def test_what_says_nothing_is_not_counted() -> None:
    """Repeated results, A/A runs, one profile beside another, and gains that do not vary: said, not computed."""
    runs = [_run("A", 1, 2), _run("B", 1, 2), _run("C", 2, 1), _run("D", 3, 3, null=True)]
    assert runs_as_json(runs)["correlation"]["runs"] == 2
    assert "needs at least 3" in over_runs(runs)[-1]
    assert "different profiles" in over_runs([_run("A", 1, 2), _run("B", 3, 1, profile="paper")])[-1]
    assert "one side is the same" in over_runs([_run("A", 1, 2), _run("B", 2, 2), _run("C", 3, 2)])[-1]
    assert over_runs([RunGains("A", "pocket", None)]) == []
    with pytest.raises(StatisticsError, match="three pairs of finite numbers"):
        correlate([(1.0, 2.0), (math.nan, 1.0), (0.0, 1.0)])


def test_a_search_ends_with_its_generalisation(finished: SearchOutcome) -> None:
    """The summary's line and the JSON of a real run agree."""
    (line,) = [line for line in finished.words if line.startswith("in units of seed noise")]
    shown = finished.done["generalisation"]
    assert f"visible {shown['visible']['gain']:+.1f}".replace("-", "−") in line
    assert shown["loss"]["gain"] == pytest.approx(shown["visible"]["gain"] - shown["hidden"]["gain"])


def test_compare_shows_it(finished: SearchOutcome, main: Main, tmp_path: Path) -> None:
    """`agent compare` has a line for each run and says why there is no correlation; `--json` has the same as data."""
    words = ("compare", str(finished.run), str(finished.run), "-o", str(tmp_path / "page.html"))
    _, out, err = main(*words)
    assert "B, in units of seed noise: visible" in out, err
    assert "1 distinct result(s)" in out
    (data,) = json_lines(main(*words, "--json")[1])
    assert data["generalisation"]["runs"]["A"] == finished.done["generalisation"]
