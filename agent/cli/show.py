"""`agent show`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent.cli.app import JsonFlag, RunArgument, RunsOption, app
from agent.cli.output import print_json, print_next
from agent.safe_text import spelt


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
    if as_json:
        print_json({"path": str(directory.path), **summary})
        return
    print("\n".join(spelt(line) for line in _lines(directory.path, summary)))
    patch = directory.path / "submission.patch"
    if directory.has(patch.name):
        print(f"\n{spelt(read_text(directory.path, patch.name))}")
        print_next(f"agent review {directory.path.name}")
    elif RunStatus.of(summary).resumable:
        print_next(f"agent search --resume {directory.path}")


def _lines(path: Path, summary: dict[str, Any]) -> Iterator[str]:
    from agent.analysis.null_claims import NOTICE

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


def _mean(seeds: dict[str, float | None]) -> str:
    values = [value for value in seeds.values() if value is not None]
    return f"{sum(values) / len(values):.2f} %" if len(values) == len(seeds) else "failed"
