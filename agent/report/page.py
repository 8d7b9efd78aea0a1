"""Renders the report as one HTML file."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.analysis.cells import Cells, cells, need_units
from agent.analysis.design import blindness
from agent.protocol import Accuracies
from agent.report import run_figures
from agent.report.ablation import places_of, read_ablation
from agent.report.diff import coloured, side_by_side
from agent.report.findings import Findings, TestRow
from agent.report.flags import raise_flags
from agent.report.network_view import network_views
from agent.report.transcript import transcript
from agent.report.verdicts import Comparisons, with_mean
from agent.runs.log import chain
from agent.runs.log_lines import Fields
from agent.runs.places import read_places
from agent.runs.record import RunRecord
from agent.runs.untrusted import mapping, number, text, whole
from agent.safe_text import spelt
from benchmark.comparison import as_text, places_for, signed
from benchmark.networks import UNTRACED
from benchmark.statistics import Comparison, Overall
from benchmark.task import ACCURACY, Metric
from prompts import environment

if TYPE_CHECKING:
    import jinja2

MAX_BYTES = 1_000_000
_TRANSCRIPT_BYTES = 320_000
_MOST_PLACES = 20
_MOST_ROWS = 60
"""The most rows of a table whose names come from a proposer or an untrusted file."""


@dataclass(frozen=True)
class Strip:
    """A drawing of a gain on the common scale of its table, 240 wide: dots for seeds, a bar for the interval."""

    zero: float
    low: float
    high: float
    gain: float
    dots: tuple[float, ...]
    alt: str


@dataclass(frozen=True)
class GainRow:
    """A row of the visible or hidden table. `comparison` is None when baseline or submission failed.

    `baseline` and `submission` are then the scores of those seeds that did not fail.
    """

    task: str
    comparison: Comparison | Overall | None
    cells: Cells | None
    strip: Strip | None
    baseline: str
    submission: str


def render(
    record: RunRecord,
    findings: Findings,
    network: Fields | None,
    network_note: str,
    *,
    name: str = "report.html.j2",
    more: Mapping[str, object] = {},
) -> str:
    """The HTML text. The transcript is shortened until the page is smaller than MAX_BYTES.

    `network` and `network_note`: see `agent.report.measured_network`. `name` is a template that extends the page's,
    and `more` what it needs besides.
    """
    context = {**_context(record, findings, network, network_note), **more}
    budget = _TRANSCRIPT_BYTES
    while True:
        page: str = template(name).render(**context, transcript=transcript(record.steps, budget=budget))
        if len(page.encode()) < MAX_BYTES or budget < 1000:
            return page
        budget //= 2


def _context(record: RunRecord, findings: Findings, network: Fields | None, network_note: str) -> dict[str, Any]:
    summary = record.summary
    region = record.regions.get(findings.subject or 0)
    return {
        "record": record,
        "findings": findings,
        "flags": raise_flags(record, findings, network),
        "tables": _tables(record, findings),
        "curves": run_figures.learning_curves(record, findings),
        "progress": run_figures.search_progress(findings),
        "numbers": _numbers(findings.tests),
        "diff": None if region is None else side_by_side(record.baseline_region, region),
        "whole": None if region is None else coloured(region),
        "ablation": None if region is None else read_ablation(record.directory, region),
        "network": [] if network is None else network_views(network, f"test {findings.subject}"),
        "network_note": network_note,
        "untraced": [f"{task}: {UNTRACED}" for task in _untraced(record)],
        "time_bar": _time_bar(mapping(summary.get("seconds"))),
        "evaluations": _evaluation_counts(record),
        "machine": _machine(record),
        "config": json.dumps(mapping(summary.get("config")), indent=1, ensure_ascii=False)[:6000],
        "proposer": text(mapping(summary.get("config")).get("proposer")) or "unknown",
        "tests_used": record.state.tests,
        "created": _when(number(summary.get("created"))),
        "written": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "caveat": text(summary.get("caveat")),
        "message": text(summary.get("message"))[:2000],
        "units": need_units(findings.metrics),
        "as_text": as_text,
        "places_of": places_of,
        "signed": signed,
    }


def _untraced(record: RunRecord) -> list[str]:
    """The tasks whose networks torch.fx could not trace, as the log says."""
    try:
        tasks = record.own_profile().tasks
    except ValueError:  # of another version
        return []
    return [task.name for task in tasks if task.network and task.network.found and not task.network.found.traced]


def _tables(record: RunRecord, findings: Findings) -> list[tuple[str, str, list[GainRow]]]:
    subject = f"test/{findings.subject}"
    return [
        (kind, heading, _gain_rows(record, findings, comparisons, record.accuracies(before), record.accuracies(after)))
        for kind, heading, comparisons, before, after in (
            ("visible", "Visible tasks", findings.visible, "baseline", subject),
            ("hidden", "Hidden task", findings.hidden, "hidden/baseline", "hidden/submission"),
        )
    ]


def _gain_rows(
    record: RunRecord, findings: Findings, comparisons: Comparisons, baseline: Accuracies, submission: Accuracies
) -> list[GainRow]:
    shown = with_mean(comparisons)
    metrics = {task: record.metrics.get(task, ACCURACY) if one is None else one.metric for task, one in shown}
    differences = {
        task: _differences(metrics[task], baseline.get(task, {}), submission.get(task, {})) for task, _ in shown
    }
    reach: dict[Metric, float] = {}  # each unit has its own scale
    for task, one in shown:
        bounds = () if one is None else (*(one.known_ci or ()), one.gain)
        sizes = [abs(value) for value in (*bounds, *differences[task]) if math.isfinite(value)]
        reach[metrics[task]] = max([reach.get(metrics[task], 1e-9), *sizes])
    units = need_units(findings.metrics)

    def row(task: str, one: Comparison | Overall | None) -> GainRow:
        sides = (_listed(metrics[task], side.get(task, {}), units=units) for side in (baseline, submission))
        if one is None:
            return GainRow(task, None, None, None, *sides)
        known = one.known_ci is not None and math.isfinite(one.gain)
        strip = _strip(task, one, differences[task], reach[metrics[task]] * 1.05) if known else None
        return GainRow(task, one, cells(one, units=units), strip, *sides)

    return [row(task, one) for task, one in shown]


def _listed(metric: Metric, seeds: Mapping[int, float | None], *, units: bool) -> str:
    values = [value for value in seeds.values() if value is not None]
    if not units:
        return ", ".join(str(round(value, 2)) for value in values)
    return ", ".join(metric.shown(value) for value in values)


def _differences(
    metric: Metric, baseline: Mapping[int, float | None], submission: Mapping[int, float | None]
) -> list[float]:
    pairs = ((submission[seed], baseline.get(seed)) for seed in sorted(submission))
    return [metric.sign * (after - before) for after, before in pairs if after is not None and before is not None]


def _strip(task: str, one: Comparison | Overall, dots: Sequence[float], reach: float) -> Strip:
    def place(value: float) -> float:
        return round(120 + 120 * value / reach, 1)

    places = 1 if one.metric.is_accuracy else places_for(one)
    low, high = one.ci
    gain, low_text, high_text = (signed(value, places) for value in (one.gain, low, high))
    alt = f"{task}: gain {gain} {one.metric.points}, interval {low_text} to {high_text}"
    if dots:
        alt += f"; by seed {', '.join(signed(value, places) for value in dots)}"
    return Strip(120.0, place(low), place(high), place(one.gain), tuple(place(value) for value in dots), alt)


def _numbers(tests: Sequence[TestRow]) -> dict[str, list[str]]:
    """The proposer's numbers that differ between tests: name → value for each test."""
    names = list(dict.fromkeys(name for test in tests for name in test.parameters))[:_MOST_ROWS]
    table = {name: [_value(test.parameters.get(name)) for test in tests] for name in names}
    return {name: values for name, values in table.items() if len(set(values)) > 1}


def _value(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else "–" if value is None else str(value)[:40]


def _time_bar(seconds: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """Each phase as (name, seconds, percent of the total)."""
    total = number(seconds.get("total")) or 0.0
    phases = [(name, number(value) or 0.0) for name, value in seconds.items() if name != "total"]
    return [(name, value, 100 * value / total) for name, value in phases] if total > 0 else []


def _evaluation_counts(record: RunRecord) -> dict[str, Any]:
    return {
        "all": len(record.evaluations),
        "cached": sum(evaluation.cached for evaluation in record.evaluations),
        "failed": sum(evaluation.accuracy is None for evaluation in record.evaluations),
        "seconds": sum(evaluation.seconds for evaluation in record.evaluations),
    }


def _places(record: RunRecord) -> Iterator[tuple[str, str]]:
    """Where evaluations were trained and are being trained, if that is not the machine of the search."""
    counts = Counter(evaluation.place.partition(" (job")[0] for evaluation in record.evaluations if evaluation.place)
    if counts:
        yield "trained on", ", ".join(f"{place}: {count}" for place, count in counts.most_common(_MOST_PLACES))
    again = sum(evaluation.attempts > 1 for evaluation in record.evaluations)
    if again:
        yield "begun again", f"{again} evaluations, because a process or a machine died"
    now = read_places(record.directory)
    if now:
        shown = [f"{evaluation} on {place}" for evaluation, place in list(now.items())[:_MOST_PLACES]]
        yield "training now", "; ".join(shown)


def _in_flight(summary: Mapping[str, Any]) -> str:
    """What it cost in information to keep several tests in flight; empty for one at a time."""
    parallel, budget = whole(mapping(summary.get("config")).get("parallel")), whole(summary.get("budget"))
    if parallel is None or budget is None or not 1 < parallel <= budget:
        return ""
    return f"{parallel}; {blindness(parallel, budget)}"


def _machine(record: RunRecord) -> list[tuple[str, str]]:
    summary = record.summary
    seeds, log = summary.get("seeds"), chain(record.directory.events)
    rows = [
        ("isolation", record.isolation or "not recorded"),
        ("seeds", ", ".join(map(str, seeds)) if isinstance(seeds, list) else "not recorded"),
        ("seeds of the baseline", _other_seeds(record, "baseline")),
        ("seeds of the submitted test", _other_seeds(record, f"test/{record.submitted}")),
        *((text(name), text(value)) for name, value in mapping(summary.get("environment")).items()),
        *((text(name), text(value)) for name, value in mapping(summary.get("versions")).items()),
        ("slots", text(summary.get("slots"))),
        *_places(record),
        ("tests in flight", _in_flight(summary)),
        ("log, SHA-256 of its last line", log[-1] if log else ""),
    ]
    unique = {name: value for name, value in rows if value}
    return list(unique.items())[:_MOST_ROWS]


def _other_seeds(record: RunRecord, role: str) -> str:
    """The seeds of one role where they are not those of every test, as with --baseline-seeds or --confirm; else ""."""
    seeds = sorted({one.seed for one in record.evaluations if one.role == role})
    return ", ".join(map(str, seeds)) if seeds and seeds != record.summary.get("seeds") else ""


def _when(timestamp: float | None) -> str:
    if timestamp is None or not 0 <= timestamp < 1e11:
        return "at an unknown time"
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(timestamp))


def template(name: str) -> jinja2.Template:
    """A page's template, with the filter `spelt` for untrusted text."""
    return environment(spelt=_spelt).get_template(name)


def _spelt(value: object, limit: int | None = 600) -> str:
    """Untrusted text for the page, at most `limit` characters, so that no name can fill the page."""
    whole = str(value)
    return spelt(whole) if limit is None or len(whole) <= limit else spelt(whole[:limit]) + "…"
