"""Makes the figures of the page, each with a text alternative."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from agent.analysis.choosing import NONE_BETTER, none_better
from agent.report.findings import Findings, TestRow
from agent.report.plotting import LEAST_POINTS, Drawing, Line, best_so_far, curves
from agent.runs.record import RunRecord
from agent.runs.untrusted import text
from benchmark.results import EvaluationResult
from benchmark.task import SEED_SD, common_metric
from benchmark.tasks import ACCURACY, Metric

_LONG = 40
"""From so many epochs on, the last quarter has its own figure: in the whole, a difference of a point is invisible."""


def learning_curves(record: RunRecord, findings: Findings) -> list[Drawing]:
    """Test accuracy over epochs of baseline and submission, one figure per task, or two. A band spans the seeds."""
    pairs = [("visible", "baseline", f"test/{findings.subject}"), ("hidden", "hidden/baseline", "hidden/submission")]
    figures = []
    for kind, before, after in pairs:
        for task in record.tasks(kind):
            name = text(task["name"])
            metric = record.metrics.get(name, ACCURACY)
            lines = [
                line
                for line in (
                    curve_line("baseline", record.curves(before, name), baseline=True, metric=metric),
                    curve_line(f"test {findings.subject}", record.curves(after, name), metric=metric),
                )
                if line is not None
            ]
            if any(len(line.x) > 1 for line in lines):  # one epoch is a number of the table, and no curve
                title = name if kind == "visible" else f"{name} (hidden)"
                figures.append(curve_figure(title, lines, metric))
                last = round(max(line.x[-1] for line in lines))
                if last >= _LONG:
                    first = last - last // 4 + 1
                    ends = [_from(line, first) for line in lines]
                    figures.append(curve_figure(f"{title}, epochs {first} to {last}", ends, metric))
    return figures


def _from(line: Line, first: int) -> Line:
    """The part of a line from the epoch `first` on."""
    kept = [index for index, epoch in enumerate(line.x) if epoch >= first]
    x, y, low, high = (
        [values[index] for index in kept] if values else () for values in (line.x, line.y, line.low, line.high)
    )
    return dataclasses.replace(line, x=x, y=y, low=low, high=high)


def curve_line(
    label: str,
    results: Sequence[EvaluationResult],
    *,
    baseline: bool = False,
    series: int = 0,
    metric: Metric = ACCURACY,
) -> Line | None:
    """Mean, lowest and highest test accuracy, or value of another `metric`, over the seeds at each
    epoch that at least one seed reached.
    """
    by_epoch: dict[int, list[float]] = {}
    for result in results:
        for point in result.curve:
            value = point.score(metric)
            by_epoch.setdefault(point.epoch, []).extend([value] if math.isfinite(value) else [])
    if not by_epoch:
        return None
    epochs = sorted(by_epoch)
    values = [by_epoch[epoch] or [math.nan] for epoch in epochs]
    several = len(results) > 1
    return Line(
        label=label + (f", {len(results)} seeds" if several else ""),
        x=epochs,
        y=[sum(accuracies) / len(accuracies) for accuracies in values],
        low=[min(accuracies) for accuracies in values] if several else (),
        high=[max(accuracies) for accuracies in values] if several else (),
        baseline=baseline,
        series=series,
    )


def curve_figure(title: str, lines: Sequence[Line], metric: Metric = ACCURACY, *, alt: str = "") -> Drawing:
    """The curves of one task. `alt` describes them (default: where each begins, ends and is best)."""
    described = alt or "; ".join(f"{line.label} {_ends(line, metric)}" for line in lines)
    what = "test accuracy" if metric.is_accuracy else metric.name
    note = (
        "Some values are not finite and leave a gap." if any(not math.isfinite(y) for o in lines for y in o.y) else ""
    )
    return curves(
        title,
        lines,
        x="epoch",
        y="test accuracy, %" if metric.is_accuracy else metric.name,
        alt=f"{what[0].upper()}{what[1:]} over epochs on {title}: {described}",
        note=note,
        least_span=LEAST_POINTS if metric.is_accuracy else 0.0,
    )


def _ends(line: Line, metric: Metric = ACCURACY) -> str:
    known = [value for value in line.y if math.isfinite(value)]
    if not known:
        return "has no finite value"
    if not metric.is_accuracy:
        best = max(known) if metric.sign > 0 else min(known)
        return f"from {metric.text(known[0])} to {metric.text(known[-1])}, best {metric.text(best)}"
    return f"from {known[0]:.1f} to {known[-1]:.1f} %, best {max(known):.1f} %"


def search_progress(findings: Findings) -> Drawing | None:
    """A figure of the mean visible score of each test, and the best so far; None before the first test ended.

    None as well where the tasks' metrics differ: they have no common axis.
    """
    tests = [test for test in findings.tests if test.finished]
    metric = common_metric(findings.metrics)
    if not tests or metric == SEED_SD:
        return None
    scores = [(test.number, test.mean, test.submitted) for test in tests]
    described = ", ".join(_score(test, metric) for test in tests[:12]) + (" …" if len(tests) > 12 else "")
    before = "unknown" if findings.baseline is None else _shown(findings.baseline, metric)
    alt = f"Mean visible {metric.name} by test; baseline {before}; {described}"
    if findings.looks:
        kept = sum(look.kept for look in findings.looks)
        alt += f"; screened between tests: {kept} kept, {len(findings.looks) - kept} dropped"
    looks = [(look.place, look.kept) for look in findings.looks]
    note = NONE_BETTER if none_better(test.overall for test in tests if test.overall is not None) else ""
    return best_so_far("Best so far", scores, findings.baseline, alt=alt, looks=looks, note=note, metric=metric)


def _score(test: TestRow, metric: Metric) -> str:
    chosen = " (submitted)" if test.submitted else ""
    return f"test {test.number} {'failed' if test.mean is None else _shown(test.mean, metric)}{chosen}"


def _shown(value: float, metric: Metric) -> str:
    return f"{value:.1f} %" if metric.is_accuracy else metric.text(value)
