"""Shows a running search on a terminal: a table of the trainings that run, below the lines of those that are done."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from agent.progress import Pace, PlainProgress, Progress, clock_time, describe, is_look
from agent.safe_text import safe_console, spelt
from benchmark.results import EpochMetrics, EvaluationResult
from benchmark.task import Metric

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from agent.protocol import Outcome


class LiveProgress(Progress):
    """Shows a table of running trainings, tests left, best accuracy and remaining time, below the finished ones."""

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        self._console = console
        self._lock = threading.Lock()
        self._start = time.monotonic()
        self._rows: dict[tuple[str, str, int], tuple[EpochMetrics | None, int]] = {}
        self._begun: set[str] = set()
        self._places: dict[tuple[str, str, int], str] = {}
        self._best: dict[str, tuple[float, Metric]] = {}
        self._paces: dict[tuple[str, str, int], tuple[Pace, str]] = {}
        self._expected = self._tests = 0
        self._done = 0.0
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=4, transient=True)
        self._live.start()

    def begin(self, evaluations: int, tests: int = 0) -> None:
        self._expected, self._tests = evaluations, tests

    def message(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)

    def started(self, role: str, task: str, seed: int, epochs: int, pictures: int = 0) -> None:
        with self._lock:
            self._rows[role, task, seed] = (None, epochs)
            self._paces[role, task, seed] = (Pace(epochs, pictures), "")
            self._begun.add(role)

    def placed(self, role: str, task: str, seed: int, place: str, *, attempt: int) -> None:
        with self._lock:
            self._places[role, task, seed] = f"{place}, attempt {attempt}" if attempt > 1 else place

    def epoch(self, role: str, task: str, seed: int, metrics: EpochMetrics, epochs: int) -> None:
        with self._lock:
            self._rows[role, task, seed] = (metrics, epochs)
            pace, _ = self._paces.setdefault((role, task, seed), (Pace(epochs, 0), ""))
            self._paces[role, task, seed] = (pace, pace.after(metrics).removeprefix(", "))

    def evaluated(self, role: str, task: str, seed: int, outcome: Outcome, *, cached: bool) -> None:
        with self._lock:
            self._rows.pop((role, task, seed), None)
            self._places.pop((role, task, seed), None)
            self._begun.add(role)  # a result from the store was never started
            self._done += not is_look(role)
            if isinstance(outcome, EvaluationResult) and not role.startswith(("hidden/", "screen/")):
                metric = self.metric(task)
                known = [outcome.value, *([self._best[task][0]] if task in self._best else [])]
                self._best[task] = (max(known) if metric.sign > 0 else min(known), metric)
        style = None if isinstance(outcome, EvaluationResult) else "red"
        self._console.print(describe(role, task, seed, outcome, cached, self.metric(task)), style=style, markup=False)

    def trained(self) -> None:
        self._live.stop()

    def close(self) -> None:
        self._live.stop()

    def _render(self) -> RenderableType:
        with self._lock:
            rows = sorted(self._rows.items())
            best = [(task, metric.shown(value)) for task, (value, metric) in sorted(self._best.items())]
            paces = {key: words for key, (_, words) in self._paces.items()}
            places = {key: spelt(place) for key, place in self._places.items()}
        elapsed = time.monotonic() - self._start
        partial = sum(
            min(1.0, metrics.epoch / epochs) for (role, *_), (metrics, epochs) in rows if metrics and not is_look(role)
        )
        share = (self._done + partial) / self._expected if self._expected else 0.0
        left = elapsed * (1 - share) / share if 0.05 < share < 1 else None
        begun = sum(role.startswith("test/") for role in self._begun)
        tests = f"{self._tests - begun} of {self._tests}" if self._tests else ""
        shown = [
            (*key, metrics.epoch if metrics else 0, epochs, _brief(self.metric(key[1]), metrics) if metrics else "")
            for key, (metrics, epochs) in rows
        ]
        return training_view(shown, best, elapsed=elapsed, left=left, tests=tests, paces=paces, places=places)


def training_view(
    rows: Sequence[tuple[str, str, int, int, int, str]],
    best: Sequence[tuple[str, str]],
    *,
    elapsed: float,
    left: float | None,
    tests: str,
    paces: Mapping[tuple[str, str, int], str] = {},
    places: Mapping[tuple[str, str, int], str] = {},
) -> RenderableType:
    """The table of running trainings and the line below it, for a terminal.

    `rows`: (role, task, seed, epoch, epochs, score with its unit). `best`: (task, score with its unit). `elapsed` and
    `left` are seconds, `tests` those that are left.
    """
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    score = "score" if any(row[-1] and not row[-1].endswith("%") for row in rows) else "test accuracy"
    for heading in ("training", "task", "seed", "epoch", score, *(["pace"] if paces else [])):
        table.add_column(heading, justify="left" if heading in ("training", "task", "pace") else "right")
    if places:
        table.add_column("place", overflow="fold")
    more = [column for column in (paces, places) if column]
    for role, task, seed, epoch, epochs, shown in rows:
        row = [role, task, str(seed), f"{epoch}/{epochs}", shown]
        table.add_row(*row, *(column.get((role, task, seed), "") for column in more))
    parts = [f"{clock_time(elapsed)} elapsed"]
    if left is not None:
        parts.append(f"about {clock_time(left)} to go")
    if tests:
        parts.append(f"{tests} tests left")
    parts += [f"best {task} {shown}" for task, shown in best]
    footer = Text(" · ".join(parts), style="dim")
    return Group(table, footer) if rows else footer


def make_progress(*, quiet: bool = False) -> Progress:
    """A live view when stderr is a terminal, plain lines otherwise, nothing when quiet."""
    if quiet:
        return Progress()
    if sys.stderr.isatty():
        return LiveProgress(safe_console(stderr=True))
    return PlainProgress()


def _brief(metric: Metric, metrics: EpochMetrics) -> str:
    value = metrics.score(metric)
    return metric.shown(value) if math.isfinite(value) else ""
