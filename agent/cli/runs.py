"""`agent runs`: lists the runs."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from agent.cli.app import JsonFlag, RunsOption, app
from agent.cli.output import make_console, print_json, print_next, run_words
from agent.errors import AgentError, UsageError
from agent.safe_text import spelt

_COLUMNS = (
    *("name", "path", "status", "profile", "proposer", "tests_used", "budget", "submitted_test"),
    *("visible_gain", "hidden_gain", "review", "has_report"),
)
_UNITS = ("visible_unit", "hidden_unit")
"""Columns that only runs have whose gains are not in points."""
_SHOWN = ("visible_words", "hidden_words")
_WIDE = 110
"""Columns of a screen that has room for profile and proposer, which a run's name has too."""


@app.command()
def runs(
    runs: RunsOption = Path("runs"),
    as_csv: Annotated[bool, typer.Option("--csv", help="Comma-separated values on stdout.")] = False,
    html: Annotated[bool, typer.Option("--html", help="Write an index page, RUNS/index.html.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """List the runs, oldest first. The index page lists the newest first.

    \b
    Examples:
      agent runs
      agent runs --csv > runs.csv
      agent runs --html
    """
    from agent.runs.directory import list_runs

    rows = [_row(path) for path in list_runs(runs)]
    if as_json:
        print_json({"runs": [{name: value for name, value in row.items() if name not in _SHOWN} for row in rows]})
        return
    if as_csv:
        columns = _COLUMNS + tuple(name for name in _UNITS if any(name in row for row in rows))
        writer = csv.DictWriter(sys.stdout, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _cell(row.get(name, "points")) for name in columns} for row in rows)
        return
    if html:
        _write_index(runs, rows)
        return
    if not rows:
        print(f"no runs in {runs.absolute()}")
        print_next("agent search --budget 3")
        return
    from rich.table import Table

    from agent.runs.reviews import WORDS

    reviews: dict[str, str] = dict(WORDS.items())
    table = Table(box=None, pad_edge=False)
    table.add_column("run", no_wrap=True)
    console = make_console()
    more: tuple[str, ...] = ("profile", "proposer", "review") if console.width >= _WIDE else ("review",)
    more = tuple(heading for heading in more if any(row[heading] for row in rows))
    for heading in ("status", "tests", "picked", "visible", "hidden", *more):
        table.add_column(heading, justify="right" if heading in ("visible", "hidden") else "left", overflow="fold")
    for row in rows:
        cells = {**row, "review": reviews.get(row["review"], row["review"])}
        table.add_row(
            row["name"],
            spelt(str(row["status"]))[:200],
            f"{row['tests_used']}/{row['budget']}",
            "" if row["submitted_test"] is None else f"#{row['submitted_test']}",
            spelt(row["visible_words"]),
            spelt(row["hidden_words"]),
            *(spelt(str(cells[heading] or ""))[:40] for heading in more),
        )
    console.print(table)
    for row in rows:
        for evaluation, place in row["places"].items():
            print(spelt(f"{row['name']}: {evaluation} is trained on {place}"))
    unit = "in points, or in the unit beside it" if any(name in row for row in rows for name in _UNITS) else "in points"
    print(f"visible, hidden: mean gain {unit}; agent show RUN has the intervals")
    print_next(f"agent show {run_words(Path(rows[-1]['path']).absolute())}")


def _cell(value: object) -> object:
    """Put an apostrophe before a text that a spreadsheet would treat as a formula."""
    if not isinstance(value, str):
        return value
    value = spelt(value)
    return f"'{value}" if value.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else value


def _write_index(runs: Path, rows: list[dict[str, Any]]) -> None:
    from agent.report.comparison_page import index_page
    from benchmark.files import write_atomically

    path = runs / "index.html"
    try:
        write_atomically(path, index_page(rows).encode(errors="replace"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from None
    print(path)
    print_next("open it in a browser")


def _row(path: Path) -> dict[str, Any]:
    from agent.runs.directory import RunDirectory
    from agent.runs.places import read_places
    from benchmark.files import is_plain

    try:
        summary = RunDirectory(path).read_summary()
    except AgentError as error:
        summary = {"status": f"damaged: {error}"}
    return {
        "name": path.name,
        "path": str(path),
        "status": summary.get("status"),
        "profile": summary.get("profile"),
        "proposer": summary.get("config", {}).get("proposer"),
        "tests_used": _tests_used(path, summary),
        "budget": summary.get("budget"),
        "submitted_test": summary.get("submitted_test"),
        **_gains(summary, "visible"),
        **_gains(summary, "hidden"),
        "review": _review(path),
        "has_report": is_plain(path, "report.html"),
        "places": dict(read_places(RunDirectory(path))),
    }


def _tests_used(path: Path, summary: dict[str, Any]) -> Any:
    """From the log while the search has not ended: run.json has the number at the end only."""
    from agent.runs.directory import RunDirectory
    from agent.runs.record import read_run
    from agent.runs.status import RunStatus

    if "tests_used" in summary or not RunStatus.of(summary).resumable:
        return summary.get("tests_used", 0)
    return len(read_run(RunDirectory(path)).state.finished)


def _review(path: Path) -> str | None:
    """The kind of the verdict in force; None without one."""
    from agent.runs.directory import RunDirectory
    from agent.runs.reviews import standing

    try:
        verdict = standing(RunDirectory(path)).verdict
    except AgentError:
        return "damaged"
    return None if verdict is None else verdict.kind


def _gains(summary: dict[str, Any], kind: str) -> dict[str, Any]:
    """The mean gain, its unit unless that is points, and both in words. Gains in different metrics have no mean."""
    from agent.runs.metrics import gains_by_metric
    from benchmark.comparison import as_gain

    gains = gains_by_metric(summary, kind) or {}
    words = [
        as_gain(gain, metric) + ("" if metric.is_accuracy and len(gains) == 1 else f" {metric.points}")
        for metric, gain in gains.items()
    ]
    found: dict[str, Any] = {f"{kind}_gain": next(iter(gains.values())) if len(gains) == 1 else None}
    if any(not metric.is_accuracy for metric in gains):
        found[f"{kind}_unit"] = " and ".join(metric.points for metric in gains)
    return {**found, f"{kind}_words": ", ".join(words)}
