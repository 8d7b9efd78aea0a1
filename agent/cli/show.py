"""`agent show`: shows the results of a run on a terminal."""

from __future__ import annotations

import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.cli.app import JsonFlag, RunArgument, RunsOption, app
from agent.cli.output import print_json, print_next, run_words
from agent.safe_text import spelt

if TYPE_CHECKING:
    from agent.runs.directory import RunDirectory
    from agent.runs.state import RunState
    from benchmark.task import Metric


@app.command()
def show(run: RunArgument = "latest", runs: RunsOption = Path("runs"), as_json: JsonFlag = False) -> None:
    """Show the results of a run.

    \b
    Examples:
      agent show
      agent show 20260101-120000 --json
    """
    from agent.runs.directory import RunDirectory
    from agent.runs.files import read_text
    from agent.runs.status import RunStatus

    directory = RunDirectory.find(run, runs)
    summary = directory.read_summary()
    status = RunStatus.of(summary)
    unfinished = _unfinished(directory) if status.resumable else None
    if as_json:
        far = {} if unfinished is None else {"tests_used": len(unfinished[0].finished), "held": unfinished[0].held}
        print_json({"path": str(directory.path), **far, **summary})
        return
    print("\n".join(_wrapped(spelt(line)) for line in _lines(directory.path, summary, unfinished)))
    patch = directory.path / "submission.patch"
    name = run_words(directory.path)
    if directory.has(patch.name):
        print(f"\n{spelt(read_text(directory.path, patch.name))}")
    if unfinished is not None and unfinished[0].held:
        print_next(f"wait for it, then agent show {name}")
    elif status.resumable:
        print_next(f"agent search --resume {shlex.quote(str(directory.path))}")
    elif directory.has(patch.name):
        print_next(f"agent review {name}")


def _unfinished(run: RunDirectory) -> tuple[RunState, list[str]]:
    """How far a run is that has not ended, and in words what its log says, as the page does."""
    from agent.report.findings import find
    from agent.runs.record import read_run

    record = read_run(run)
    findings = find(record)
    tests = [f"  test {test.number}   {_what(test.scores)}{test.words}" for test in findings.tests if test.finished]
    return record.state, [*tests, "", findings.verdict]


def _lines(path: Path, summary: dict[str, Any], unfinished: tuple[RunState, list[str]] | None) -> Iterator[str]:
    from agent.analysis.null_claims import NOTICE
    from agent.runs.metrics import task_metrics
    from benchmark.task import ACCURACY

    metrics = task_metrics(summary)
    if summary.get("null"):
        yield NOTICE
    held = " (a process works on it)" if unfinished is not None and unfinished[0].held else ""
    yield f"run        {path}"
    yield f"status     {summary.get('status')}{held}"
    yield f"profile    {summary.get('profile')} ({summary.get('reason')})"
    yield f"isolation  {summary.get('isolation_level')}"
    if unfinished is not None:
        yield f"tests      {unfinished[0].tests}"
        yield from unfinished[1]
        return
    yield f"tests      {summary.get('tests_used', 0)} of {summary.get('budget')}"
    for test in summary.get("tests", []):
        means = ", ".join(
            f"{task} {_mean(seeds, metrics.get(task, ACCURACY))}" for task, seeds in test["accuracies"].items()
        )
        chosen = "  <- submitted" if test["number"] == summary.get("submitted_test") else ""
        yield f"  test {test['number']}   {means}{chosen}"
    if seconds := summary.get("seconds"):
        page = summary.get("page_seconds")
        after = f"; then the page {page:.1f}" if isinstance(page, int | float) else ""
        yield f"seconds    {', '.join(f'{name} {value:.1f}' for name, value in seconds.items())}{after}"
    if overhead := summary.get("overhead"):
        parts = ", ".join(f"{name} {overhead[name]:.1f} s" for name in ("isolation", "bookkeeping"))
        yield f"overhead   {parts}: {100 * overhead['share']:.1f} % of the total"
    yield ""
    yield from summary.get("words", ["This run has not ended."])


def _wrapped(line: str) -> str:
    """The line broken at spaces where the screen ends, in a pipe after 100 characters."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 100
    return textwrap.fill(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False) or line


def _mean(seeds: dict[str, float | None], metric: Metric) -> str:
    """The mean accuracy in percent, or the mean score with the name of its metric."""
    values = [value for value in seeds.values() if value is not None]
    return metric.shown(sum(values) / len(values)) if values and len(values) == len(seeds) else "failed"


def _what(scores: Mapping[Metric, float] | None) -> str:
    from benchmark.task import ACCURACY

    if scores is None:
        return ""
    return "mean visible accuracy " if set(scores) == {ACCURACY} else "mean visible score "
