"""The live part of a page: its curves and its numbers."""

from __future__ import annotations

import re

from agent.runs.live import LiveState, Training
from agent.runs.state import state_of
from agent.web.live_view import charts, live_html

RUNNING = state_of({"status": "running", "budget": 3}, ({"kind": "test_started", "number": 1},), held=True)


def training(role: str, accuracies: dict[int, float], epochs: int = 8) -> Training:
    """One training with what it measured."""
    return Training(role, "a-task", 0, epochs, max(accuracies), accuracies)


def test_dots_have_the_colour_of_their_line() -> None:
    """In a picture every dot had the colour of its place on the line."""
    live = LiveState()
    live.ended = [training("baseline", {1: 5.0, 2: 6.0}), training("test/1", {1: 7.0, 2: 9.0})]
    drawn = re.findall(r'<(polyline|circle) class="line(\d)', live_html(live, RUNNING, now=1.0))
    assert drawn == [("polyline", "0"), *[("circle", "0")] * 2, ("polyline", "1"), *[("circle", "1")] * 2]


def test_the_baseline_stays_and_the_last_tests_come() -> None:
    """Of many trainings six curves are drawn."""
    some = [training("baseline", {1: 5.0}), *(training(f"test/{number}", {1: 6.0}) for number in range(1, 20))]
    (chart,) = charts(some)
    assert [line.label.split(",")[0] for line in chart.lines] == ["baseline", *(f"test/{n}" for n in range(15, 20))]


def test_an_axis_spans_some_points() -> None:
    """A tenth of a point is noise, and fills no picture; extremes stay in it."""
    (chart,) = charts([training("test/1", {1: 14.0, 2: 14.1})])
    assert float(chart.ticks[-1][1]) - float(chart.ticks[0][1]) >= 5
    (chart,) = charts([training("test/1", {1: -1e300, 2: 1e300, 10**15: 50.0}, epochs=2**52)])
    places = [float(number) for line in chart.lines for pair in line.points.split() for number in pair.split(",")]
    assert all(0 <= place <= 320 for place in places)
    assert len(chart.epochs) < 10


def test_the_numbers() -> None:
    """Tests left of the log, and the time left from what is done."""
    live = LiveState()
    for line in (
        {"ts": 100.0, "kind": "begin", "evaluations": 4, "tests": 3},
        {"ts": 110.0, "kind": "started", "role": "baseline", "task": "t", "seed": 0, "epochs": 2},
        {"ts": 120.0, "kind": "epoch", "role": "baseline", "task": "t", "seed": 0, "epochs": 2, "epoch": 1}
        | {"accuracy": 5.0},
        {"ts": 130.0, "kind": "epoch", "role": "baseline", "task": "t", "seed": 0, "epochs": 2, "epoch": 2}
        | {"accuracy": 6.0},
    ):
        live.add(line)
    html = live_html(live, RUNNING, now=130.0)
    for words in ("2 of 3", "about 2 min", "6.0 epochs a minute", "30 s", 'aria-valuenow="25"'):
        assert words in html, words
    assert live_html(live, state_of({"status": "running"}, (), held=False)) == ""
