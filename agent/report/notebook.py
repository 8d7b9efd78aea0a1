"""A run in a notebook: its verdict, table and curves as HTML, and the progress of a search below the cell."""

from __future__ import annotations

import html
import sys
import threading
import time
from pathlib import Path
from typing import Any, TextIO, cast

from agent.progress import PlainProgress, Progress
from agent.runs.directory import RunDirectory
from agent.safe_text import spelt

_EVERY = 0.5
"""Seconds between two updates of the cell."""
_MOST_LINES = 14


def in_notebook() -> bool:
    """Whether this is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell"


def run_html(directory: RunDirectory) -> str:
    """Verdict, gains with intervals and learning curves of a run as a piece of HTML. Raises RunDamaged."""
    from agent.analysis.cells import cells, need_units
    from agent.report import run_figures
    from agent.report.findings import find
    from agent.report.page import template
    from agent.runs.record import read_run
    from agent.runs.untrusted import text

    record = read_run(directory)
    findings = find(record)
    page: str = template("notebook.html.j2").render(
        name=record.name,
        findings=findings,
        rows=[
            (task, None if one is None else cells(one, units=need_units(findings.metrics)))
            for task, one in (
                *findings.visible.items(),
                *((f"{task} (hidden)", one) for task, one in findings.hidden.items()),
            )
        ],
        percent="" if need_units(findings.metrics) else ", %",
        drawings=run_figures.learning_curves(record, findings),
        caveat=text(record.summary.get("caveat")),
    )
    return page


class LoadedRun(dict[str, Any]):
    """The summary of a run, as a dictionary that a notebook shows as its verdict, table and curves."""

    def _repr_html_(self) -> str:
        return run_html(RunDirectory(Path(self["path"])))

    def show(self) -> None:
        """Show the run: in a notebook with its curves, elsewhere as the sentences of `agent show`."""
        if in_notebook():
            _display(self._repr_html_())
            return
        print("\n".join(spelt(str(line)) for line in self.get("words") or ["This run has not ended."]))


class NotebookProgress(PlainProgress):
    """The last lines that a search says, in one output of the cell that is replaced as they come."""

    def __init__(self) -> None:
        self._made = 0.0
        self._lines = _Lines(self._show)
        super().__init__(stream=cast(TextIO, self._lines))
        self._area = _display("", display_id=True)

    def close(self) -> None:
        """Show the last lines, and stop."""
        super().close()
        self._made = 0.0
        self._show(self._lines.lines)

    def _show(self, lines: list[str]) -> None:
        now = time.monotonic()
        if now - self._made < _EVERY:
            return
        self._made = now
        text = html.escape("\n".join(lines[-_MOST_LINES:]))
        self._area.update(_as_html(f'<pre style="line-height:1.4;margin:0">{text}</pre>'))


class _Lines:
    """A text stream that keeps its lines and tells of each."""

    def __init__(self, tell: Any) -> None:
        self.lines: list[str] = []
        self._tell = tell
        self._lock = threading.Lock()
        self._rest = ""

    def write(self, text: str) -> int:
        with self._lock:
            *whole, self._rest = (self._rest + text).split("\n")
            self.lines += whole
            del self.lines[:-200]
        if whole:
            self._tell(self.lines)
        return len(text)

    def flush(self) -> None:
        """Nothing waits."""


def _as_html(text: str) -> Any:
    from IPython import display

    html_object: Any = display.HTML
    return html_object(text)


def _display(text: str, **options: Any) -> Any:
    """Show HTML in the cell; with `display_id`, returns what can be updated."""
    from IPython import display

    show: Any = display.display
    return show(_as_html(text), **options)


def notebook_progress() -> Progress | None:
    """The progress of a search in a notebook; None elsewhere."""
    return NotebookProgress() if in_notebook() else None
