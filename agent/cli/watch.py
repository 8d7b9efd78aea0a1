"""`agent watch`: the live view of a run that another process drives."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.cli.app import JsonFlag, RunArgument, RunsOption, app
from agent.cli.output import print_json, print_next, run_words
from agent.safe_text import safe_console, spelt

if TYPE_CHECKING:
    from rich.console import RenderableType

    from agent.runs.live import LiveReader
    from agent.runs.state import RunState

_EVERY = 0.5
"""Seconds between two looks at the run's files."""


@app.command()
def watch(run: RunArgument = "latest", runs: RunsOption = Path("runs"), as_json: JsonFlag = False) -> None:
    """Follow a run that another process works on. Ctrl-C ends the watching only.

    \b
    Examples:
      agent watch
      agent watch 20260101-120000 --json
    """
    from agent.report.findings import find
    from agent.runs.directory import RunDirectory
    from agent.runs.live import LiveReader
    from agent.runs.record import read_run

    directory = RunDirectory.find(run, runs)
    reader, record = LiveReader(directory.path), read_run(directory)
    with ExitStack() as stack:
        show = print_json if as_json else _shower(stack, reader, lambda: record.state)
        while record.state.running:
            for line in reader.lines():
                show(dict(line))
            time.sleep(_EVERY)
            record = read_run(directory)
        for line in reader.lines():
            show(dict(line))
    verdict = find(record).verdict
    if as_json:
        print_json({"event": "done", "run": str(directory.path), "status": record.status, "verdict": verdict})
        return
    print(f"status {spelt(record.status)}; tests {record.state.tests}")
    print(spelt(verdict))
    print_next(f"agent show {run_words(directory.path)}")


def _shower(stack: ExitStack, reader: LiveReader, state: Callable[[], RunState]) -> Callable[[Mapping[str, Any]], None]:
    """Shows a line of live.jsonl: above a live table on a terminal, in a pipe with a line for each epoch too."""
    if not sys.stderr.isatty():
        return lambda line: _print(_in_words(line, epochs=True))
    from rich.live import Live

    from agent.cli.live_table import training_view

    def render() -> RenderableType:
        live, now = reader.state, time.time()
        rows = [
            (*key, one.epoch, one.epochs, "" if one.accuracy is None else one.metric.shown(one.accuracy))
            for key, one in sorted(live.trainings.items())
        ]
        budget, begun = state().budget or live.tests, len(state().begun)
        return training_view(
            rows,
            [(task, live.metrics[task].shown(best)) for task, best in sorted(live.best.items())],
            elapsed=0.0 if live.begun is None else max(0.0, now - live.begun),
            left=live.seconds_left(now),
            tests=f"{max(0, budget - begun)} of {budget}" if budget else "",
        )

    console = safe_console(stderr=True)
    stack.enter_context(Live(get_renderable=render, console=console, refresh_per_second=4, transient=True))

    def show(line: Mapping[str, Any]) -> None:
        if words := _in_words(line, epochs=False):
            console.print(words, highlight=False, markup=False)

    return show


def _print(words: str) -> None:
    if words:
        print(spelt(words), file=sys.stderr, flush=True)


def _in_words(line: Mapping[str, Any], *, epochs: bool) -> str:
    """A line of live.jsonl for people; "" for one that the table shows, or that makes no sense."""
    text, kind = line.get("text"), line.get("kind")
    if kind in ("message", "evaluated") and isinstance(text, str):
        return text if kind == "message" else f"  {text}"
    score = line.get("accuracy", line.get("score"))
    if not epochs or kind != "epoch" or not isinstance(score, float):
        return ""
    of = f"{line.get('role')} {line.get('task')} seed {line.get('seed')}"
    if "accuracy" in line:
        return f"  {of}: epoch {line.get('epoch')}/{line.get('epochs')}, test accuracy {score:.2f} %"[:300]
    from agent.runs.metrics import read_metric

    return f"  {of}: epoch {line.get('epoch')}, {read_metric(line.get('metric')).shown(score)}"[:300]
