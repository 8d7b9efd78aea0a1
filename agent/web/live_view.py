"""The live part of a run's page: how far the trainings are, with their curves so far, as HTML."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from agent.analysis.planning import duration
from agent.report.page import template
from agent.runs.live import LiveState, Training
from agent.runs.state import RunState

_LEFT, _RIGHT, _TOP, _BOTTOM = 38.0, 312.0, 10.0, 140.0
_LARGEST = 1e12
"""Scores beyond it are drawn at the edge."""
_MOST_CHARTS = 4
_MOST_LINES = 6
_MOST_BASELINES = 2
_LEAST_SPAN = 5.0
"""Points of accuracy that the axis spans at least, as in the page's other curves."""


@dataclass(frozen=True)
class ChartLine:
    """One curve: SVG's `points`, and its dots where there are few."""

    label: str
    points: str
    dots: Sequence[tuple[float, float]]
    baseline: bool


@dataclass(frozen=True)
class Chart:
    """The curves of the trainings that run on one task. `ticks` and `epochs`: (place, label)."""

    title: str
    alt: str
    what: str
    """What the curves show, with its unit."""
    lines: Sequence[ChartLine]
    ticks: Sequence[tuple[float, str]]
    epochs: Sequence[tuple[float, str]]


def live_html(live: LiveState, state: RunState, *, now: float | None = None) -> str:
    """The live part of a run that a process works on; "" for any other."""
    if not state.running:
        return ""
    now = time.time() if now is None else now
    left = live.seconds_left(now)
    rate = live.epochs_per_minute(now)
    trainings = sorted(live.trainings.values(), key=lambda one: (one.role, one.task, one.seed))
    budget = state.budget or live.tests
    html: str = template("web_live.html.j2").render(
        words=state.words,
        live=live,
        share=live.share,
        tests_left=f"{max(0, budget - len(state.begun))} of {budget}" if budget else "unknown",
        time_left="not known yet" if left is None else f"about {duration(left)}",
        rate="not known yet" if rate is None else f"{rate:.1f} epochs a minute",
        elapsed="–" if live.begun is None else duration(max(0.0, now - live.begun)),
        bests=[(task, live.metrics[task].shown(best)) for task, best in sorted(live.best.items())[:6]],
        trainings=trainings,
        percent=all(one.metric.is_accuracy for one in trainings),
        charts=charts([*live.ended, *trainings]),
        messages=[(time.strftime("%H:%M:%S", time.gmtime(when)), line) for when, line in live.messages if _sane(when)],
    )
    return html


def charts(trainings: Sequence[Training]) -> list[Chart]:
    """A chart for each task with a training that has measured something: the baseline's curves and the last others."""
    by_task: dict[str, list[Training]] = {}
    for one in trainings:
        if one.accuracies:
            by_task.setdefault(one.task, []).append(one)
    chosen = {}
    for task, some in list(by_task.items())[-_MOST_CHARTS:]:
        baselines = [one for one in some if one.role.endswith("baseline")][:_MOST_BASELINES]
        others = [one for one in some if not one.role.endswith("baseline")]
        chosen[task] = [*baselines, *others[-(_MOST_LINES - len(baselines)) :]]
    return [_chart(task, some) for task, some in chosen.items()]


def _chart(task: str, trainings: Sequence[Training]) -> Chart:
    last = max(1, *(min(one.epochs, 10_000) for one in trainings))
    metric = trainings[-1].metric
    least, bounds = (_LEAST_SPAN, (0.0, 100.0)) if metric.is_accuracy else (0.0, (-_LARGEST, _LARGEST))

    def clipped(value: float) -> float:
        return min(bounds[1], max(bounds[0], value))

    values = [clipped(value) for one in trainings for value in one.accuracies.values()]
    low, high = min(values), max(values)
    least = least or max(abs(low), abs(high), 1e-9) / 1000
    if high - low < least:
        low = max(bounds[0], (low + high - least) / 2)
        high = low + least
    step = _step(high - low)
    low, high = math.floor(low / step) * step, math.ceil(high / step) * step

    def x(epoch: int) -> float:
        return round(_LEFT + (_RIGHT - _LEFT) * min(epoch, last) / last, 1)

    def y(accuracy: float) -> float:
        share = (clipped(accuracy) - low) / (high - low)
        return round(_BOTTOM - (_BOTTOM - _TOP) * share, 1)

    lines = []
    for one in trainings:
        points = [(x(epoch), y(accuracy)) for epoch, accuracy in sorted(one.accuracies.items())]
        label = f"{one.role}, seed {one.seed}"
        drawn = " ".join(f"{at},{height}" for at, height in points)
        lines.append(ChartLine(label, drawn, points if len(points) <= 24 else (), one.role.endswith("baseline")))
    count = round((high - low) / step)
    ticks = [(y(low + step * index), f"{low + step * index:g}") for index in range(count + 1)]
    every = max(1, math.ceil(last / 6))
    epochs = [(x(epoch), str(epoch)) for epoch in range(0, last + 1, every)]
    what = "test accuracy, %" if metric.is_accuracy else metric.name
    ends = "; ".join(f"{line.label} at {_last(one)}" for line, one in zip(lines, trainings, strict=True))
    said = "Test accuracy" if metric.is_accuracy else metric.name
    return Chart(task, f"{said} so far on {task}: {ends}", what, lines, ticks, epochs)


def _last(one: Training) -> str:
    if one.metric.is_accuracy:
        return f"{one.accuracy or 0:.1f} %"
    return "no score" if one.accuracy is None else one.metric.shown(one.accuracy)


def _step(span: float) -> float:
    """A round distance between ticks, so that there are about four."""
    rough = span / 4
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)


def _sane(when: float) -> bool:
    return 0 <= when < 1e11
