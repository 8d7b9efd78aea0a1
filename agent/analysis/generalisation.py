"""Compares visible with hidden gains, in units of seed noise, for one run and over several runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmark.comparison import resolve, signed
from benchmark.statistics import Comparison, Overall, StatisticsError, correlate, in_noise_units

_Comparisons = Mapping[str, Comparison | None]
_FEWEST = 3


@dataclass(frozen=True)
class CarryOver:
    """A submission's gains on the visible and on the hidden tasks, in units of seed noise, and their difference.

    `loss_ci` is computed from the two intervals (method of variance estimates recovery, Zou & Donner 2008). Like the
    visible interval it is corrected for picking the best test.
    """

    visible: Overall
    hidden: Overall

    @property
    def loss(self) -> float:
        """Visible minus hidden gain."""
        return self.visible.gain - self.hidden.gain

    @property
    def loss_ci(self) -> tuple[float, float]:
        """The 95 % interval of `loss`."""
        half = math.hypot(*((side.ci[1] - side.ci[0]) / 2 for side in (self.visible, self.hidden)))
        return (self.loss - half, self.loss + half)


@dataclass(frozen=True)
class RunGains:
    """The gains of one run; `carry_over` is None when visible or hidden results are missing."""

    name: str
    profile: str
    carry_over: CarryOver | None
    null: bool = False
    """Whether it is an A/A run, whose gains are luck."""


def carry_over(visible: _Comparisons, hidden: _Comparisons) -> CarryOver | None:
    """Both gains; None when visible or hidden results are missing or failed, or a task's noise is not known."""
    both = (*visible.values(), *hidden.values())
    if not visible or not hidden or not all(one is not None and one.unit_known for one in both):
        return None
    return CarryOver(in_noise_units(visible), in_noise_units(hidden))


def of_run(visible: _Comparisons, hidden: _Comparisons) -> list[str]:
    """One line for a run's summary; [] when there is nothing to compare."""
    found = carry_over(visible, hidden)
    return [] if found is None else [f"in units of seed noise: {_in_words(found)}"]


def over_runs(runs: Sequence[RunGains]) -> list[str]:
    """One line for each run with both gains, and one with their correlation over the runs."""
    lines = [f"{run.name}, in units of seed noise: {_in_words(run.carry_over)}" for run in runs if run.carry_over]
    if lines:
        lines.append(f"visible against hidden gain over runs: {_relation(runs)['words']}")
    return lines


def as_json(found: CarryOver | None) -> dict[str, Any] | None:
    """A run's gains in units of seed noise, as JSON."""
    if found is None:
        return None
    sides = {name: {"gain": one.gain, "ci": list(one.ci)} for name, one in vars(found).items()}
    return {"unit": "seed SD", **sides, "loss": {"gain": found.loss, "ci": list(found.loss_ci)}}


def runs_as_json(runs: Sequence[RunGains]) -> dict[str, Any]:
    """Each run's gains by name, and the correlation over them."""
    return {"runs": {run.name: as_json(run.carry_over) for run in runs}, "correlation": _relation(runs)}


def _relation(runs: Sequence[RunGains]) -> dict[str, Any]:
    """Pearson's r over distinct results of one profile. A/A runs and repeated results are not counted."""
    counted = [(run.profile, run.carry_over) for run in runs if run.carry_over is not None and not run.null]
    points = list(dict.fromkeys((one.visible.gain, one.hidden.gain) for _, one in counted))
    found: dict[str, Any] = {"r": None, "ci": None, "runs": len(points), "resolved": False}
    if len({profile for profile, _ in counted}) > 1:
        return {**found, "words": "not computed, since the runs are of different profiles"}
    if len(points) < _FEWEST:
        return {**found, "words": f"{len(points)} distinct result(s); a correlation needs at least {_FEWEST}"}
    try:
        r, ci = correlate(points)
    except StatisticsError as error:
        return {**found, "words": f"not computed: {error}"}
    resolved = resolve(ci) != "not resolved"
    low, high = (signed(bound, 2) for bound in ci)
    words = f"r = {signed(r, 2)} (95 % interval {low} … {high}, {len(points)} runs)"
    return {
        **found,
        "r": r,
        "ci": list(ci),
        "resolved": resolved,
        "words": f"{words}: {'resolved' if resolved else 'not resolved'}; noise in the gains pulls it towards 0",
    }


def _in_words(found: CarryOver) -> str:
    picked = f", best of {found.visible.n_candidates}" if found.visible.n_candidates > 1 else ""
    lost = "not resolved" if resolve(found.loss_ci) == "not resolved" else "resolved"
    return (
        f"visible {_with_interval(found.visible.gain, found.visible.ci)}{picked}, "
        f"hidden {_with_interval(found.hidden.gain, found.hidden.ci)}; "
        f"visible minus hidden {_with_interval(found.loss, found.loss_ci)}: {lost}"
    )


def _with_interval(gain: float, ci: tuple[float, float]) -> str:
    return f"{signed(gain)} ({signed(ci[0])} … {signed(ci[1])})"
