"""`live.jsonl`: how far the trainings of a running search are, epoch by epoch, for those who watch from outside.

The process that works on a run writes it beside the log. It is no part of the record: nothing is computed from it, it
may be removed, and each process that goes on with the run begins it anew.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from agent.progress import Progress, describe
from agent.protocol import Outcome
from agent.runs.files import parse_json
from agent.runs.metrics import read_metric
from agent.runs.untrusted import number
from benchmark.files import open_plain
from benchmark.results import EpochMetrics, EvaluationResult
from benchmark.task import ACCURACY, Metric

LIVE = "live.jsonl"
MAX_BYTES = 64 * 2**20
"""Nothing more is written, or read, beyond this size."""
_MOST_ROWS = 64
_MOST_POINTS = 2000
_LONGEST = 300
_HEAD = 24
"""Bytes at the beginning of the file, which hold the time of its first line."""
_RECENT = 12
"""The last epochs from which the rate is computed."""


class LiveFile(Progress):
    """Passes each event of a search on to another Progress, and appends it to `live.jsonl`.

    A full disk or a missing folder must not end a search: then only the file stops growing.
    """

    def __init__(self, run: Path, shown: Progress) -> None:
        self._shown = shown
        self._lock = threading.Lock()
        self._left = MAX_BYTES
        self._descriptor = -1
        with contextlib.suppress(OSError):
            self._descriptor = open_plain(run, LIVE, flags=os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.ftruncate(self._descriptor, 0)

    def scores(self, metrics: Mapping[str, Metric]) -> None:
        super().scores(metrics)
        self._shown.scores(metrics)

    def begin(self, evaluations: int, tests: int = 0) -> None:
        self._write("begin", evaluations=evaluations, tests=tests)
        self._shown.begin(evaluations, tests)

    def message(self, text: str) -> None:
        self._write("message", text=text[:_LONGEST])
        self._shown.message(text)

    def started(self, role: str, task: str, seed: int, epochs: int, pictures: int = 0) -> None:
        self._write("started", role=role, task=task, seed=seed, epochs=epochs)
        self._shown.started(role, task, seed, epochs, pictures)

    def placed(self, role: str, task: str, seed: int, place: str, *, attempt: int) -> None:
        self._shown.placed(role, task, seed, place, attempt=attempt)

    def epoch(self, role: str, task: str, seed: int, metrics: EpochMetrics, epochs: int) -> None:
        known: dict[str, Any] = {"epoch": metrics.epoch, "loss": metrics.train_loss, "accuracy": metrics.test_acc}
        if metrics.own is not None:
            metric = self.metric(task)
            known = {"epoch": metrics.epoch, **_scored(metric, metrics.score(metric)), "own": metrics.own}
        self._write("epoch", role=role, task=task, seed=seed, epochs=epochs, **known)
        self._shown.epoch(role, task, seed, metrics, epochs)

    def evaluated(self, role: str, task: str, seed: int, outcome: Outcome, *, cached: bool) -> None:
        ok = isinstance(outcome, EvaluationResult)
        said = describe(role, task, seed, outcome, cached, self.metric(task))[:_LONGEST]
        found: dict[str, Any] = {"accuracy": outcome.best_test_acc if isinstance(outcome, EvaluationResult) else None}
        if isinstance(outcome, EvaluationResult) and outcome.score is not None:
            found = _scored(self.metric(task), outcome.score)
        self._write("evaluated", role=role, task=task, seed=seed, ok=ok, text=said, **found)
        self._shown.evaluated(role, task, seed, outcome, cached=cached)

    def trained(self) -> None:
        self._shown.trained()

    def close(self) -> None:
        """Close the file. The other Progress belongs to the caller and stays open."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def _write(self, kind: str, **fields: Any) -> None:
        line = (json.dumps({"ts": time.time(), "kind": kind, **fields}) + "\n").encode()
        with self._lock, contextlib.suppress(OSError):
            if self._descriptor >= 0 and len(line) <= self._left:
                self._left -= os.write(self._descriptor, line)


def _scored(metric: Metric, score: float) -> dict[str, Any]:
    """The fields that stand in place of `accuracy` where a user's own trainer gives the score."""
    return {"score": score, "metric": {"name": metric.name, "direction": metric.direction}}


@dataclass
class Training:
    """One training that was begun and has not ended. `accuracies`: epoch → test accuracy in percent, or score."""

    role: str
    task: str
    seed: int
    epochs: int
    epoch: int = 0
    accuracies: dict[int, float] = field(default_factory=dict)
    metric: Metric = ACCURACY

    @property
    def accuracy(self) -> float | None:
        """After the last epoch."""
        return self.accuracies.get(self.epoch)


class LiveState:
    """The fold over `live.jsonl`. Lines come from a file that may be anybody's: what makes no sense is passed over."""

    def __init__(self) -> None:
        self.expected = self.tests = self.done = 0
        """Trainings of the whole search (without looks), tests of its budget, trainings that have ended."""
        self.begun: float | None = None
        """When the process began to train, in seconds since the epoch."""
        self.trainings: dict[tuple[str, str, int], Training] = {}
        self.ended: list[Training] = []
        """The last trainings that have ended and have a curve, looks left out; those of the baseline are kept."""
        self.best: dict[str, float] = {}
        """Task → the best visible accuracy of this process in percent, or the best score."""
        self.metrics: dict[str, Metric] = {}
        """Task → its metric, for each task in `best`."""
        self.messages: deque[tuple[float, str]] = deque(maxlen=200)
        """What the search said, with its time. A finished training is said too."""
        self._epochs: deque[float] = deque(maxlen=_RECENT)

    def add(self, fields: Mapping[str, Any]) -> None:
        """Take in one line."""
        now, kind = number(fields.get("ts")), fields.get("kind")
        if now is None:
            return
        if kind == "begin" and _is_count(fields.get("evaluations")) and _is_count(fields.get("tests")):
            self.expected, self.tests, self.begun = fields["evaluations"], fields["tests"], now
        elif kind == "message" and isinstance(fields.get("text"), str):
            self.messages.append((now, fields["text"][:_LONGEST]))
        elif kind in ("started", "epoch", "evaluated"):
            self._add_training(kind, now, fields)

    def _add_training(self, kind: str, now: float, fields: Mapping[str, Any]) -> None:
        role, task, seed = fields.get("role"), fields.get("task"), fields.get("seed")
        if not (isinstance(role, str) and isinstance(task, str) and _is_count(seed)):
            return
        key = (role[:_LONGEST], task[:_LONGEST], int(seed))
        if kind == "evaluated":
            ended = self.trainings.pop(key, None)
            if ended is not None and ended.accuracies and not role.startswith("screen/"):
                self.ended.append(ended)
                if len(self.ended) > _MOST_ROWS:
                    others = [one for one in self.ended if not one.role.endswith("baseline")]
                    self.ended.remove(others[0] if others else self.ended[0])
            self.done += not role.startswith("screen/")
            best, metric = _score(fields)
            if best is not None and not role.startswith(("hidden/", "screen/")):
                better = max if metric.sign > 0 else min
                self.best[key[1]] = better(self.best.get(key[1], best), best)
                self.metrics[key[1]] = metric
            if isinstance(fields.get("text"), str):
                self.messages.append((now, fields["text"][:_LONGEST]))
            return
        if not _is_count(fields.get("epochs")) or (key not in self.trainings and len(self.trainings) >= _MOST_ROWS):
            return
        training = self.trainings.setdefault(key, Training(*key, epochs=fields["epochs"]))
        if kind == "epoch" and _is_count(fields.get("epoch")):
            training.epoch = fields["epoch"]
            self._epochs.append(now)
            score, metric = _score(fields)
            if score is not None and len(training.accuracies) < _MOST_POINTS:
                training.accuracies[training.epoch] = score
                training.metric = metric

    @property
    def share(self) -> float:
        """The part of all trainings that is done, 0 to 1; 0 where it is not known."""
        partial = sum(
            min(1.0, one.epoch / one.epochs)
            for one in self.trainings.values()
            if one.epochs and not one.role.startswith("screen/")
        )
        return min(1.0, (self.done + partial) / self.expected) if self.expected else 0.0

    def seconds_left(self, now: float) -> float | None:
        """An estimate from what was done so far; None before a twentieth of it."""
        if self.begun is None or not 0.05 < self.share < 1:
            return None
        return max(0.0, now - self.begun) * (1 - self.share) / self.share

    def epochs_per_minute(self, now: float) -> float | None:
        """Over the last epochs of all trainings; None before the second one."""
        if len(self._epochs) < 2 or now <= self._epochs[0]:
            return None
        return 60 * (len(self._epochs) - 1) / max(1e-3, now - self._epochs[0])


class LiveReader:
    """Reads `live.jsonl` as it grows. `state` is what it said so far."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._offset = 0
        self._head = self._rest = b""
        self.state = LiveState()

    def read(self) -> bool:
        """Take in what is new; whether there was anything. A file that was begun anew replaces the state."""
        return bool(list(self.lines()))

    def lines(self) -> Iterator[Mapping[str, Any]]:
        """Each new line, already in `state`."""
        try:
            descriptor = open_plain(self._run, LIVE)
        except OSError:
            return
        with os.fdopen(descriptor, "rb") as file:
            head = file.read(_HEAD)
            if not self._head or not head.startswith(self._head):  # the time in its first line tells two files apart
                self.state, self._rest, self._offset = LiveState(), b"", 0
                self._head = head if len(head) == _HEAD else b""
            file.seek(self._offset)
            data = file.read(max(0, MAX_BYTES - self._offset))
        self._offset += len(data)
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            try:
                fields = parse_json(line)
            except ValueError:
                continue
            if isinstance(fields, dict):
                self.state.add(fields)
                yield fields


def _score(fields: Mapping[str, Any]) -> tuple[float | None, Metric]:
    """The accuracy in a line, or the score of a user's own trainer, and what it is."""
    if (accuracy := number(fields.get("accuracy"))) is not None:
        return accuracy, ACCURACY
    return number(fields.get("score")), read_metric(fields.get("metric"))


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53
