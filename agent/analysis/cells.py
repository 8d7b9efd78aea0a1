"""A comparison as the cells of a table, on a terminal and on pages."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from benchmark.comparison import Comparison, Overall, as_text
from benchmark.task import ACCURACY, Metric


@dataclass(frozen=True)
class Cells:
    """The numbers of one row as text. `baseline` and `candidate` are "" for a mean over tasks."""

    baseline: str
    candidate: str
    gain: str
    interval: str
    shrunk: str
    smallest: str
    """"–" where no noise is known."""


def need_units(metrics: Iterable[Metric]) -> bool:
    """Whether the cells of a table must name their units: accuracies alone have theirs in the heading."""
    return any(metric != ACCURACY for metric in metrics)


def cells(one: Comparison | Overall, *, units: bool) -> Cells:
    """The cells of one comparison. With `units`, scores and gains name theirs."""
    baseline = candidate = ""
    if isinstance(one, Comparison):
        baseline, candidate = (
            one.metric.shown(mean) if units else one.metric.text(mean)
            for mean in (one.baseline_mean, one.candidate_mean)
        )
    unit = f" {one.metric.points}" if units else ""
    low, high = (as_text(bound, one) for bound in one.ci)
    return Cells(
        baseline,
        candidate,
        as_text(one.gain, one) + unit,
        f"{low} … {high}",
        as_text(one.shrunk_gain, one) + unit,
        "–" if one.known_ci is None else as_text(one.smallest_visible_effect, one).removeprefix("+"),
    )
