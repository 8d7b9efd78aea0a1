"""Prints what `agent review` shows (diff, numbers, flags), for people or as one JSON object."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from agent.analysis.against_baseline import as_json as tasks_json
from agent.analysis.cells import cells, need_units
from agent.errors import AgentError
from agent.report.findings import Findings
from agent.report.verdicts import with_mean
from agent.runs.directory import RunDirectory
from agent.runs.reviews import WORDS, Review, Standing, standing
from agent.safe_text import spelt
from agent.studies.reviewing import Subject
from agent.studies.verify_artifacts import require_genuine

if TYPE_CHECKING:
    from rich.console import Console

_MARKS = {"stop": "EXPLAIN FIRST", "look": "look", "note": "note"}


def show(console: Console, subject: Subject, now: Standing) -> bool:
    """Print verdict, gains, flags, diff and reviews. Returns whether the files may be approved."""
    record, findings = subject.record, subject.findings
    tone = {"good": "bold green", "bad": "bold red", "open": "bold yellow"}[findings.tone]
    console.print(spelt(record.name), style="dim")
    console.print(findings.headline, style=tone)
    console.print(spelt(findings.verdict))
    if caveat := record.summary.get("caveat"):
        console.print(spelt(str(caveat)), style="italic")
    genuine = True
    try:
        require_genuine(record.directory)
    except AgentError as error:
        genuine = False
        console.print(f"Cannot be approved: {spelt(str(error))}", style="bold red")
    _print_gains(console, findings)
    console.print()
    console.print("Flags" if subject.flags else "No flags.", style="bold")
    for flag in subject.flags:
        where = f" (region line {flag.line})" if flag.line else ""
        style = {"stop": "bold red", "look": "yellow", "note": ""}[flag.weight]
        console.print(f"  {_MARKS[flag.weight]}: {flag.kind}: {spelt(flag.message)[:500]}{where}", style=style)
    console.print()
    console.print("Diff" if subject.diff else "No tested code to show.", style="bold")
    for line in subject.diff:
        console.print(spelt(line), style=_diff_style(line), soft_wrap=True)
    _print_reviews(console, now)
    return genuine


def _print_gains(console: Console, findings: Findings) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("task", "baseline", "submitted", "gain", "interval", "detectable from"):
        # Where the numbers leave no room for it, the longest heading takes two lines instead of being cut.
        table.add_column(heading, justify="left" if heading == "task" else "right", no_wrap=" " not in heading)
    units = need_units(findings.metrics)
    for kind, comparisons in (("visible", findings.visible), ("hidden", findings.hidden)):
        if comparisons:
            table.add_row(Text(kind, style="bold"))
        for task, one in with_mean(comparisons):
            if one is None:
                table.add_row(Text(f"  {spelt(task)}"), "", "", "failed", "", "")
                continue
            row = cells(one, units=units)
            numbers = (row.baseline, row.candidate, row.gain, row.interval, row.smallest)
            table.add_row(Text(f"  {spelt(task)}"), *(spelt(number) for number in numbers))
    if table.row_count:
        console.print()
        console.print(table)


def _diff_style(line: str) -> str:
    if line.startswith(("+++", "---")):
        return "bold"
    return {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")


def _print_reviews(console: Console, now: Standing) -> None:
    if now.reviews:
        console.print()
        console.print("Reviews", style="bold")
    for review in now.reviews:
        old = "" if now.concerns(review) else " (of another patch or log: no longer in force)"
        place = f" {review.file}:{review.line}" if review.file else ""
        when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(review.time))
        words = f"  {when} {spelt(review.author)}: {WORDS[review.kind]}{place}{old}"
        console.print(f"{words}{f': {spelt(review.message)}' if review.message else ''}")
    if now.dropped is not None:
        console.print("The patch or the log has changed since the last verdict: review it again.", style="bold yellow")


def as_json(directory: RunDirectory, subject: Subject) -> dict[str, Any]:
    """The object of `agent review --json`."""
    now = standing(directory)
    return {
        "run": str(directory.path),
        "status": subject.record.status,
        "verdict": subject.findings.verdict,
        "headline": subject.findings.headline,
        "caveat": subject.record.summary.get("caveat"),
        "submitted_test": subject.record.submitted,
        "visible": tasks_json(subject.findings.visible),
        "hidden": tasks_json(subject.findings.hidden),
        "flags": [asdict(flag) for flag in subject.flags],
        "diff": "\n".join(subject.diff),
        "patch_sha256": now.patch_sha256,
        "in_force": in_force(now),
        "reviews": [review.as_json() for review in now.reviews],
    }


def in_force(now: Standing) -> dict[str, Any] | None:
    """The verdict that is in force for the present patch, as JSON."""
    verdict: Review | None = now.verdict
    return None if verdict is None else verdict.as_json()
