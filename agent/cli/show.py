"""`agent runs` and `agent show`."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from agent.analysis.null_claims import NOTICE
from agent.cli.output import make_console, print_json
from agent.errors import AgentError, UsageError
from agent.runs.directory import RunDirectory, list_runs
from agent.runs.reviews import standing
from agent.runs.status import RunStatus
from agent.safe_text import spelt

_COLUMNS = (
    *("name", "path", "status", "profile", "proposer", "tests_used", "budget", "submitted_test"),
    *("visible_gain", "hidden_gain", "review", "has_report"),
)


def run_list(runs: Path, *, style: Literal["table", "json", "csv", "html"]) -> None:
    """All runs, one line each, oldest first; as `html`, the newest first in an index page."""
    rows = [_row(path) for path in list_runs(runs)]
    if style == "json":
        print_json({"runs": rows})
        return
    if style == "csv":
        writer = csv.DictWriter(sys.stdout, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return
    if style == "html":
        _write_index(runs, rows)
        return
    if not rows:
        print(f"no runs in {runs.absolute()}")
        print("next: agent search --budget 3", file=sys.stderr)
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("run", no_wrap=True)
    for heading in ("status", "tests", "picked", "visible", "hidden"):
        table.add_column(heading, justify="right" if heading in ("visible", "hidden") else "left", overflow="fold")
    for row in rows:
        table.add_row(
            row["name"],
            spelt(str(row["status"]))[:200],
            f"{row['tests_used']}/{row['budget']}",
            "" if row["submitted_test"] is None else f"#{row['submitted_test']}",
            _points(row["visible_gain"]),
            _points(row["hidden_gain"]),
        )
    make_console().print(table)
    print("visible, hidden: mean gain in points; agent show RUN has the intervals")
    print(f"next: agent show {rows[-1]['name']}", file=sys.stderr)


def _write_index(runs: Path, rows: list[dict[str, Any]]) -> None:
    from agent.report.comparison_page import index_page
    from benchmark.files import write_atomically

    path = runs / "index.html"
    try:
        write_atomically(path, index_page(rows).encode(errors="replace"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from None
    print(path)
    print("next: open it in a browser", file=sys.stderr)


def run_show(run: str, runs: Path, *, as_json: bool) -> None:
    """The summary of one run."""
    directory = RunDirectory.find(run, runs)
    summary = directory.read_summary()
    if as_json:
        print_json({"path": str(directory.path), **summary})
        return
    print("\n".join(spelt(line) for line in _lines(directory.path, summary)))
    patch = directory.path / "submission.patch"
    if patch.exists():
        print(f"\n{spelt(patch.read_text(encoding='utf-8'))}")
        print(f"next: agent review {directory.path.name}", file=sys.stderr)
    elif RunStatus.of(summary).resumable:
        print(f"next: agent search --resume {directory.path}", file=sys.stderr)


def _lines(path: Path, summary: dict[str, Any]) -> Iterator[str]:
    if summary.get("null"):
        yield NOTICE
    yield f"run        {path}"
    yield f"status     {summary.get('status')}"
    yield f"profile    {summary.get('profile')} ({summary.get('reason')})"
    yield f"isolation  {summary.get('isolation_level')}"
    yield f"tests      {summary.get('tests_used', 0)} of {summary.get('budget')}"
    for test in summary.get("tests", []):
        means = ", ".join(f"{task} {_mean(seeds)}" for task, seeds in test["accuracies"].items())
        chosen = "  <- submitted" if test["number"] == summary.get("submitted_test") else ""
        yield f"  test {test['number']}   {means}{chosen}"
    if seconds := summary.get("seconds"):
        yield f"seconds    {', '.join(f'{name} {value:.1f}' for name, value in seconds.items())}"
    if overhead := summary.get("overhead"):
        parts = ", ".join(f"{name} {overhead[name]:.1f} s" for name in ("isolation", "bookkeeping"))
        yield f"overhead   {parts}: {100 * overhead['share']:.1f} % of the total"
    yield ""
    yield from summary.get("words", ["This run has not ended."])


def _row(path: Path) -> dict[str, Any]:
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
        "tests_used": summary.get("tests_used", 0),
        "budget": summary.get("budget"),
        "submitted_test": summary.get("submitted_test"),
        "visible_gain": _mean_gain(summary.get("visible", {})),
        "hidden_gain": _mean_gain(summary.get("hidden", {})),
        "review": _review(path),
        "has_report": (path / "report.html").is_file(),
    }


def _review(path: Path) -> str | None:
    """The verdict in force, if there is one."""
    try:
        verdict = standing(RunDirectory(path)).verdict
    except AgentError:
        return "damaged"
    return None if verdict is None else verdict.kind


def _mean_gain(tasks: dict[str, Any]) -> float | None:
    gains = [task["gain"] for task in tasks.values()]
    return None if not gains or None in gains else sum(gains) / len(gains)


def _mean(seeds: dict[str, float | None]) -> str:
    values = [value for value in seeds.values() if value is not None]
    return f"{sum(values) / len(values):.2f} %" if len(values) == len(seeds) else "failed"


def _points(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f}"
