"""What a running search tells, and plain lines of it on stderr. agent/cli/live_table.py has a table for terminals."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from agent.safe_text import spelt
from benchmark.results import EpochMetrics, EvaluationResult
from benchmark.task import ACCURACY, Metric

if TYPE_CHECKING:
    from agent.protocol import Outcome


class Progress:
    """Receives the events of a search and shows nothing. `epoch` and `placed` may be called from another thread."""

    _metrics: Mapping[str, Metric] = {}

    def scores(self, metrics: Mapping[str, Metric]) -> None:
        """What the scores of these tasks are. Comes before their trainings."""
        self._metrics = {**self._metrics, **metrics}

    def metric(self, task: str) -> Metric:
        """What the task's score is; accuracy where nobody said."""
        return self._metrics.get(task, ACCURACY)

    def begin(self, evaluations: int, tests: int = 0) -> None:
        """`evaluations` networks will be trained (looks not counted) for at most `tests` tests."""

    def message(self, text: str) -> None:
        """Show one line of text."""

    def started(self, role: str, task: str, seed: int, epochs: int, pictures: int = 0) -> None:
        """An evaluation was submitted. It trains as soon as a process is free.

        `pictures` are those of an epoch; 0 if that is not known.
        """

    def placed(self, role: str, task: str, seed: int, place: str, *, attempt: int) -> None:
        """An evaluation began to run at this place; `attempt` 2: again, because its first process or machine died."""

    def epoch(self, role: str, task: str, seed: int, metrics: EpochMetrics, epochs: int) -> None:
        """An epoch of an evaluation ended."""

    def evaluated(self, role: str, task: str, seed: int, outcome: Outcome, *, cached: bool) -> None:
        """An evaluation succeeded, failed, or was read from the store."""

    def trained(self) -> None:
        """Nothing will be trained any more: the verdict is printed next, then the page is written."""

    def close(self) -> None:
        """Stop showing, and restore the terminal."""


@dataclass
class Pace:
    """How fast a training goes, from the last two evaluated epochs."""

    epochs: int
    pictures: int
    """Of each epoch; 0 if that is not known."""
    _epoch: int = 0
    _seconds: float = 0.0

    def after(self, metrics: EpochMetrics) -> str:
        """Say the images per second and the time left, after an epoch; nothing in the last seconds of a training."""
        each = (metrics.seconds - self._seconds) / max(1, metrics.epoch - self._epoch)
        self._epoch, self._seconds = metrics.epoch, metrics.seconds
        left = each * (self.epochs - metrics.epoch)
        if left < _SHORT or not math.isfinite(left):
            return ""
        rate = f", {self.pictures / each:,.0f} images/s" if self.pictures and each > 0 else ""
        return f"{rate}, about {clock_time(left)} to go"


_SHORT = 10.0


class Together:
    """Shows several searches, side by side, in one view: `of(name)` is what one of them reports to."""

    def __init__(self, inner: Progress) -> None:
        self._inner = inner
        self._lock = threading.Lock()
        self._evaluations = self._tests = 0

    def of(self, name: str) -> Progress:
        """The progress of the search with this name."""
        return _OneOfSeveral(self, self._inner, name)

    def begin(self, evaluations: int, tests: int) -> None:
        """Another search has begun."""
        with self._lock:
            self._evaluations, self._tests = self._evaluations + evaluations, self._tests + tests
            self._inner.begin(self._evaluations, self._tests)


class _OneOfSeveral(Progress):
    def __init__(self, together: Together, inner: Progress, name: str) -> None:
        self._together, self._inner, self._name = together, inner, name

    def scores(self, metrics: Mapping[str, Metric]) -> None:
        self._inner.scores(metrics)

    def begin(self, evaluations: int, tests: int = 0) -> None:
        self._together.begin(evaluations, tests)

    def message(self, text: str) -> None:
        self._inner.message(f"{self._name}: {text}")

    def started(self, role: str, task: str, seed: int, epochs: int, pictures: int = 0) -> None:
        self._inner.started(f"{role} ({self._name})", task, seed, epochs, pictures)

    def placed(self, role: str, task: str, seed: int, place: str, *, attempt: int) -> None:
        self._inner.placed(f"{role} ({self._name})", task, seed, place, attempt=attempt)

    def epoch(self, role: str, task: str, seed: int, metrics: EpochMetrics, epochs: int) -> None:
        self._inner.epoch(f"{role} ({self._name})", task, seed, metrics, epochs)

    def evaluated(self, role: str, task: str, seed: int, outcome: Outcome, *, cached: bool) -> None:
        self._inner.evaluated(f"{role} ({self._name})", task, seed, outcome, cached=cached)


class PlainProgress(Progress):
    """Prints one line per event, without colours or cursor movement, for logs and pipes.

    After `silence` seconds without a line, one says what is being done.
    """

    def __init__(self, stream: TextIO | None = None, *, silence: float = 30.0) -> None:
        self._stream = stream or sys.stderr
        self._lock = threading.Lock()
        self._start = self._last = time.monotonic()
        self._expected = 0
        self._done = 0
        self._silence = silence
        self._doing = ""
        self._training: dict[tuple[str, str, int], str] = {}
        self._paces: dict[tuple[str, str, int], Pace] = {}
        self._closed = threading.Event()
        self._beat: threading.Thread | None = None

    def begin(self, evaluations: int, tests: int = 0) -> None:
        self._expected = evaluations

    def message(self, text: str) -> None:
        self._doing = text
        self._print(text)

    def started(self, role: str, task: str, seed: int, epochs: int, pictures: int = 0) -> None:
        with self._lock:
            self._training[role, task, seed] = f"{role} {task} seed {seed}"
            self._paces[role, task, seed] = Pace(epochs, pictures)

    def placed(self, role: str, task: str, seed: int, place: str, *, attempt: int) -> None:
        again = f", attempt {attempt}" if attempt > 1 else ""
        with self._lock:
            self._training[role, task, seed] = f"{role} {task} seed {seed} on {place}"
        self._print(f"  {role} {task} seed {seed}: trained on {place}{again}")

    def epoch(self, role: str, task: str, seed: int, metrics: EpochMetrics, epochs: int) -> None:
        with self._lock:
            self._training[role, task, seed] = f"{role} {task} seed {seed} (epoch {metrics.epoch} of {epochs} done)"
            pace = self._paces.setdefault((role, task, seed), Pace(epochs, 0)).after(metrics)
        if is_look(role):
            return
        if epochs <= 20 or metrics.epoch % (epochs // 10) == 0 or metrics.epoch == epochs:
            self._print(f"  {role} {task} seed {seed}: epoch {_epoch(metrics, epochs)}, {_shown(metrics)}{pace}")

    def evaluated(self, role: str, task: str, seed: int, outcome: Outcome, *, cached: bool) -> None:
        with self._lock:
            self._training.pop((role, task, seed), None)
        text = describe(role, task, seed, outcome, cached, self.metric(task))
        if not is_look(role):
            self._done += 1
            text = f"[{self._done}/{max(self._done, self._expected)}] {text}"
        self._print(f"  {text}")

    def close(self) -> None:
        self._closed.set()
        if self._beat is not None:
            self._beat.join()

    def _show_life(self) -> None:
        """In a thread of its own: say what is being done whenever nothing was said for `silence` seconds."""
        while not self._closed.wait(max(0.01, self._last + self._silence - time.monotonic())):
            if time.monotonic() - self._last < self._silence:
                continue
            with self._lock:
                doing = list(self._training.values())
            more = f" and {len(doing) - 2} more" if len(doing) > 2 else ""
            try:
                self._print(f"  still at work: {', '.join(doing[:2]) + more if doing else self._doing}")
            except (OSError, ValueError):  # the reader of a pipe has gone; the search meets that itself
                return

    def _print(self, text: str) -> None:
        with self._lock:
            if self._beat is None and not self._closed.is_set():
                self._beat = threading.Thread(target=self._show_life, daemon=True)
                self._beat.start()
            self._last = time.monotonic()
            print(f"{clock_time(time.monotonic() - self._start)} {spelt(text)}", file=self._stream, flush=True)


def describe(role: str, task: str, seed: int, outcome: Outcome, cached: bool, metric: Metric = ACCURACY) -> str:
    """One line for a finished evaluation, whose score is of this metric."""
    if not isinstance(outcome, EvaluationResult):
        return f"{role} {task} seed {seed}: failed ({outcome.kind}): {outcome.message.splitlines()[0]}"
    if is_look(role):
        return f"{role} {task}: held-out loss {outcome.test_loss:.3f}{' (from the store)' if cached else ''}"
    how = "from the store" if cached else f"{outcome.training_seconds:.0f} s"
    flag = "; DIVERGED" if outcome.status == "diverged" else ""
    if outcome.score is not None:
        return f"{role} {task} seed {seed}: {metric.name} {outcome.score:.6g} ({how}){flag}"
    return f"{role} {task} seed {seed}: best test accuracy {outcome.best_test_acc:.2f} % ({how}){flag}"


def _epoch(metrics: EpochMetrics, epochs: int) -> str:
    """The epoch, and of how many; a user's own trainer does not say that."""
    return str(metrics.epoch) if metrics.own is not None else f"{metrics.epoch}/{epochs}"


def _shown(metrics: EpochMetrics) -> str:
    if metrics.own is None:
        return f"loss {metrics.train_loss:.3f}, test accuracy {metrics.test_acc:.2f} %"
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.own.items())


def is_look(role: str) -> bool:
    """Whether the role is a look. Looks are not counted, because their number is not known beforehand."""
    return role.startswith("screen/")


def clock_time(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes:d}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
