"""The runs of a folder as rows of a table. A row is read again only when a file of its run has changed."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from agent.errors import AgentError
from agent.runs.directory import RunDirectory, list_runs
from agent.runs.live import LIVE
from agent.runs.log import MAX_LOG_BYTES
from agent.runs.log_lines import Fields, read_lines
from agent.runs.metrics import task_metrics
from agent.runs.reviews import WORDS, standing
from agent.runs.state import RunState, state_of
from agent.runs.status import RunStatus
from agent.runs.untrusted import mapping, number, text
from benchmark.comparison import as_gain
from benchmark.files import read_plain
from benchmark.task import ACCURACY

WATCHED = ("run.json", "events.jsonl", "reviews.jsonl", "submission.patch", "network.json", "ablation.json")
"""The files that a page of a run is made of."""
_MOST_TASKS = 6

Signature = tuple[object, ...]


@dataclass(frozen=True)
class ShelfRow:
    """One run on the shelf. `visible` and `hidden`: (task, gain, interval, unit), gain "" where it failed.

    The unit is "" for points, as the note below the table says. The interval is "" where no noise is known.
    """

    name: str
    link: str
    status: str
    running: bool
    waiting: bool
    begun: str
    profile: str
    proposer: str
    tests: str
    visible: tuple[tuple[str, str, str, str], ...] = ()
    hidden: tuple[tuple[str, str, str, str], ...] = ()
    review: str = ""


class Shelf:
    """The runs of one folder."""

    def __init__(self, runs: Path) -> None:
        self.runs = runs.absolute()
        self._rows: dict[str, tuple[Signature, ShelfRow]] = {}

    def find(self, name: str) -> RunDirectory | None:
        """The run of exactly this name; None for anything else, such as a link or a path."""
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            return None
        path = self.runs / name
        # first os.path, which says False of a name that is too long for any file: Path raises OSError
        if not os.path.lexists(path / "run.json") or path.is_symlink() or not path.is_dir():
            return None
        return RunDirectory(path)

    def newest(self) -> str | None:
        """The name of the run that `latest` leads to, if it is one of this folder."""
        try:
            name = str((self.runs / "latest").readlink())
        except OSError:
            return None
        return name if self.find(name) is not None else None

    def signature(self) -> Signature:
        """Changes when a row would."""
        return tuple((path.name, signature_of(RunDirectory(path))) for path in list_runs(self.runs))

    def rows(self) -> Sequence[ShelfRow]:
        """All rows, the newest first."""
        found = {path.name: self._row(RunDirectory(path)) for path in reversed(list_runs(self.runs))}
        self._rows = {name: kept for name, kept in self._rows.items() if name in found}
        return list(found.values())

    def _row(self, run: RunDirectory) -> ShelfRow:
        name, signature = run.path.name, signature_of(run)
        kept = self._rows.get(name)
        if kept is None or kept[0] != signature:
            kept = self._rows[name] = (signature, _read_row(run))
        return kept[1]


def signature_of(run: RunDirectory, *more: str) -> Signature:
    """What changes when a file that the run's page is made of does, or when a process begins or ends to work on it."""
    return run.is_held, *(_stat(run.path / name) for name in (*WATCHED, *more))


def link_to(name: str) -> str:
    """The path of a run's page, safe in an attribute."""
    return f"/runs/{quote(name.encode(errors='surrogateescape'), safe='')}/"


def live_stat(run: RunDirectory) -> object:
    """Changes when `live.jsonl` grows."""
    return _stat(run.path / LIVE)


def read_state(run: RunDirectory) -> RunState:
    """How far a run is. Reads its log only while it is not at its end. Raises RunDamaged."""
    held, summary = run.is_held, run.read_raw_summary()
    return state_of(summary, _events(run) if RunStatus.of(summary).resumable else (), held=held)


def _stat(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _read_row(run: RunDirectory) -> ShelfRow:
    name = run.path.name
    row = ShelfRow(name, link_to(name), "", False, False, "", "", "", "")
    held = run.is_held
    try:
        summary = run.read_summary()
    except AgentError as error:
        return replace(row, status=f"cannot be read: {error}")
    status = RunStatus.of(summary)
    state = state_of(summary, _events(run) if status.resumable else (), held=held)
    budget = summary.get("budget")
    return replace(
        row,
        status=_words(status, running=state.running),
        running=state.running,
        waiting=status.waiting,
        begun=_when(number(summary.get("created"))),
        profile=text(summary.get("profile")),
        proposer=text(mapping(summary.get("config")).get("proposer")),
        tests=state.tests if status.resumable else f"{text(summary.get('tests_used', 0))} of {text(budget) or '?'}",
        visible=_gains(summary, "visible"),
        hidden=_gains(summary, "hidden"),
        review=_review(run),
    )


def _words(status: RunStatus, *, running: bool) -> str:
    if running:
        return "running"
    return {
        RunStatus.RUNNING: "killed",
        RunStatus.WAITING: "waits for a review",
        RunStatus.INFRA: "machinery failed",
        RunStatus.TESTS_EXHAUSTED: "tests exhausted",
    }.get(status, status.value)


def _events(run: RunDirectory) -> list[Fields]:
    try:
        data = read_plain(run.path, run.events.name, limit=MAX_LOG_BYTES)
    except OSError:
        return []
    return [line.fields for line in read_lines(data) if line.fault is None]


def _gains(summary: Mapping[str, Any], kind: str) -> tuple[tuple[str, str, str, str], ...]:
    found = []
    metrics = task_metrics(dict(summary))
    for task, one in list(mapping(summary.get(kind)).items())[:_MOST_TASKS]:
        fields = mapping(one)
        gain, ci, metric = number(fields.get("gain")), fields.get("ci"), metrics.get(task, ACCURACY)
        low, high = (number(ci[0]), number(ci[1])) if isinstance(ci, list) and len(ci) == 2 else (None, None)
        interval = "" if low is None or high is None else f"{as_gain(low, metric)} … {as_gain(high, metric)}"
        unit = "" if metric.is_accuracy else metric.points
        found.append((task, "" if gain is None else as_gain(gain, metric), interval, unit))
    return tuple(found)


def _review(run: RunDirectory) -> str:
    if not run.has("reviews.jsonl"):
        return ""
    try:
        now = standing(run)
    except (AgentError, OSError):
        return "cannot be read"
    if now.verdict is None:
        return "review again" if now.dropped is not None else ""
    return WORDS[now.verdict.kind]


def _when(timestamp: float | None) -> str:
    if timestamp is None or not 0 <= timestamp < 1e11:
        return ""
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(timestamp))
