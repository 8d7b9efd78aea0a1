"""The page that compares several runs (curves, differences over shared seeds), and the index page of a folder."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.analysis.against_baseline import compare_tasks
from agent.report.findings import Findings, find, recorded_noise
from agent.report.page import template
from agent.report.plotting import Drawing
from agent.report.run_figures import curve_figure, curve_line
from agent.report.verdicts import overall_of
from agent.runs.directory import RunDirectory
from agent.runs.record import RunRecord, read_run
from agent.runs.reviews import WORDS
from agent.runs.untrusted import mapping, number, text
from benchmark.comparison import places_for, signed
from benchmark.statistics import Comparison, combine, in_words
from benchmark.task import ACCURACY, Metric

MAX_RUNS = 6
"""The most runs in a comparison. More curves in one figure cannot be distinguished."""


@dataclass(frozen=True)
class Member:
    """One run of a comparison. `letter` names it in figures and tables."""

    letter: str
    record: RunRecord
    findings: Findings

    @property
    def role(self) -> dict[str, str]:
        """`visible` and `hidden` → the role whose results represent the run."""
        return {"visible": f"test/{self.findings.subject}", "hidden": "hidden/submission"}

    def metric(self, task: str) -> Metric:
        """What the task's score is in this run."""
        return self.record.metrics.get(task, ACCURACY)


@dataclass(frozen=True)
class Pair:
    """The second run minus the first on one task, over the seeds that both have (all seeds if they share none)."""

    kind: str
    task: str
    first: str
    second: str
    seeds: tuple[int, ...]
    comparison: Comparison | None
    words: str


def members(directories: Sequence[RunDirectory]) -> list[Member]:
    """Read the runs, A, B, C … in the order given. Raises RunDamaged."""
    records = [read_run(directory) for directory in directories]
    return [Member(chr(ord("A") + index), record, find(record)) for index, record in enumerate(records)]


def pairs(runs: Sequence[Member]) -> list[Pair]:
    """Compare every later run with the first, task by task."""
    first = runs[0]
    found = []
    for other in runs[1:]:
        for kind in ("visible", "hidden"):
            before = first.record.accuracies(first.role[kind])
            after = other.record.accuracies(other.role[kind])
            found += [_pair(kind, task, first, other, before[task], after[task]) for task in before if task in after]
    return found


def verdicts(runs: Sequence[Member]) -> list[str]:
    """A sentence for each later run: what is resolved between it and the first."""
    found = []
    every = pairs(runs)
    for other in runs[1:]:
        said = [
            f"on the {'visible tasks' if kind == 'visible' else 'hidden task'} {_between(ours, other, runs[0])}"
            for kind in ("visible", "hidden")
            if (ours := {p.task: p.comparison for p in every if (p.kind, p.second) == (kind, other.letter)})
        ]
        together = "; ".join(said) or f"{other.letter} and {runs[0].letter} have no task in common"
        found.append(f"{together[0].upper()}{together[1:]}.")
    return found


def _between(comparisons: dict[str, Comparison | None], other: Member, first: Member) -> str:
    overall = combine(comparisons)
    if overall.failed:
        return f"{other.letter} and {first.letter} cannot be compared on {', '.join(overall.failed)}"
    unit = overall.metric.points
    if overall.known_ci is None:
        gain = "" if math.isnan(overall.gain) else f"{signed(overall.gain, 2)} {unit}; "
        return f"{other.letter} cannot be told from {first.letter} ({gain}no noise is known)"
    places = 1 if overall.metric.is_accuracy else places_for(overall)
    low, high = (signed(bound, places) for bound in overall.ci)
    points = f"{signed(overall.gain, places)} {unit}, {overall.confidence * 100:g} % interval {low} … {high}"
    words = {"improvement": "is better than", "worse": "is worse than", "not resolved": "cannot be told from"}
    return f"{other.letter} {words[overall.resolved]} {first.letter} ({points})"


def comparability(runs: Sequence[Member]) -> list[str]:
    """Sentences about differences between the runs other than their code."""
    notes = []
    for what, values in (
        ("profile", [run.record.profile for run in runs]),
        ("environment", [str(mapping(run.record.summary.get("environment"))) for run in runs]),
        ("recipes", [str(run.record.tasks("visible") + run.record.tasks("hidden")) for run in runs]),
    ):
        if len(set(values)) > 1:
            notes.append(f"The runs differ in {what}, which may cause a part of the differences.")
    for run in runs:
        if run.record.submitted is None:
            notes.append(f"{run.letter} has submitted nothing, so its best test so far is used.")
    return notes


def drawings(runs: Sequence[Member]) -> list[Drawing]:
    """The curves of all runs and of the first run's baseline, one figure for each task."""
    figures = []
    for kind in ("visible", "hidden"):
        names = dict.fromkeys(name for run in runs for name in _names(run, kind))
        for task in names:
            baseline_role = "baseline" if kind == "visible" else "hidden/baseline"
            metric = next(run.metric(task) for run in runs if task in _names(run, kind))
            same = [(index, run) for index, run in enumerate(runs) if run.metric(task) == metric]  # one axis, one unit
            baseline = runs[0].record.curves(baseline_role, task) if runs[0].metric(task) == metric else []
            found = [curve_line("baseline", baseline, baseline=True, metric=metric)]
            found += [
                curve_line(run.letter, run.record.curves(run.role[kind], task), series=index, metric=metric)
                for index, run in same
            ]
            lines = [line for line in found if line is not None]
            if any(len(line.x) > 1 for line in lines):
                ends = "; ".join(f"{line.label} ends at {_last(line.y, metric)}" for line in lines)
                title = task if kind == "visible" else f"{task} (hidden)"
                figures.append(curve_figure(title, lines, metric, alt=ends))
    return figures


def comparison_page(runs: Sequence[Member], *, name: str = "compare.html.j2", more: Mapping[str, object] = {}) -> str:
    """The HTML of a comparison. `name` is a template that extends its own, and `more` what that needs besides."""
    return str(
        template(name).render(
            runs=runs,
            verdicts=verdicts(runs),
            pairs=pairs(runs),
            notes=comparability(runs),
            drawings=drawings(runs),
            **_common(),
            **more,
        )
    )


def index_page(rows: Sequence[dict[str, Any]]) -> str:
    """The HTML index of a folder; `rows` are those of `agent runs --json`, with the gains in words."""
    words: dict[str, str] = dict(WORDS.items())
    shown = [
        {"visible_unit": "", "hidden_unit": "", **row, "review": words.get(row["review"], row["review"])}
        for row in reversed(rows)
    ]
    return str(template("index.html.j2").render(rows=shown, **_common()))


def _pair(
    kind: str,
    task: str,
    first: Member,
    other: Member,
    before: dict[int, float | None],
    after: dict[int, float | None],
) -> Pair:
    shared = tuple(sorted(set(before) & set(after)))
    if (ours := first.metric(task)) != (theirs := other.metric(task)):
        words = f"not comparable: {ours.name}, {ours.direction}, against {theirs.name}, {theirs.direction}"
        return Pair(kind, task, first.letter, other.letter, shared, None, words)
    if shared:
        before, after = ({seed: side[seed] for seed in shared} for side in (before, after))
    try:
        noise = recorded_noise(first.record) or recorded_noise(other.record)
        comparison = compare_tasks(
            first.record.profile, {task: before}, {task: after}, noise=noise, metrics=first.record.metrics
        )[task]
    except ValueError as error:  # numbers or a record that cannot be compared
        return Pair(kind, task, first.letter, other.letter, shared, None, str(error))
    words = "failed with at least one seed" if comparison is None else in_words(comparison)
    return Pair(kind, task, first.letter, other.letter, shared, comparison, words)


def _names(run: Member, kind: str) -> list[str]:
    return [text(task["name"]) for task in run.record.tasks(kind)]


def _last(values: Sequence[float], metric: Metric) -> str:
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return "no finite value"
    return f"{known[-1]:.1f} %" if metric.is_accuracy else metric.shown(known[-1])


def _common() -> dict[str, Any]:
    return {
        "written": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "signed": signed,
        "number": number,
        "overall_of": overall_of,
    }
