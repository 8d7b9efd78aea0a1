"""The event log: what happened in a run, one JSON object a line, each chained to the one before by its hash.

The log is the state. A resumed search runs the same program again with the log as a tape: an event that is on the
tape is compared and taken as done, and when the tape ends the search goes on where it was cut.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from agent.errors import RunDamaged

SCHEMA = 1
GENESIS = "0" * 64
_LATEST = 2**40
"""No event is later, in seconds since the epoch."""


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class Launch(_Event):
    """The search began: what was asked for and what it runs on."""

    kind: Literal["launch"] = "launch"
    config: dict[str, Any]
    profile: str
    environment: dict[str, str]
    isolation_level: str
    scaffold: str
    """The file under edit before the first call; with it, the log alone can be replayed."""


class Evaluated(_Event):
    """One region was trained on one task with one seed, or came from the store (`cached`)."""

    kind: Literal["evaluated"] = "evaluated"
    role: str
    """`baseline`, `test/1` …, `screen/ROUND/LOOK/CANDIDATE`; once submitted `hidden/baseline`, `hidden/submission`."""
    task: str
    seed: int
    key: str
    accuracy: float | None
    """Best test accuracy in percent; None when the candidate failed."""
    failure: str | None = None
    cached: bool = False
    seconds: float = 0.0


class Proposal(_Event):
    """What a proposer thought: Optuna's trial with its parameters, a model's reasoning, a note."""

    kind: Literal["proposal"] = "proposal"
    proposer: str
    content: dict[str, Any]


class ToolCalled(_Event):
    """A proposer's tool call, written before it is carried out."""

    kind: Literal["tool_called"] = "tool_called"
    step: int
    tool: str
    arguments: dict[str, Any]


class ToolReplied(_Event):
    """What the tool answered, and which region the workspace then held."""

    kind: Literal["tool_replied"] = "tool_replied"
    step: int
    ok: bool
    error: str | None
    reply: str
    region_sha256: str


class TestStarted(_Event):
    """One unit of budget is spent here, before the training that it pays for."""

    kind: Literal["test_started"] = "test_started"
    __test__ = False
    number: int
    region_sha256: str


class TestFinished(_Event):
    """A paid test ended. `status` is `failed` when the candidate failed in any task."""

    kind: Literal["test_finished"] = "test_finished"
    __test__ = False
    number: int
    status: Literal["ok", "failed"]
    accuracies: dict[str, dict[int, float | None]]


class Screened(_Event):
    """A candidate was looked at between tests. `loss` (held out, nats) is None when it was rejected."""

    kind: Literal["screened"] = "screened"
    round: int
    region_sha256: str
    kept: bool
    """The best of its round."""
    rejected: str | None
    rung: int
    """How long its longest look was: an index into the profile's fidelities."""
    loss: float | None
    cost: float
    """In tests: what the round spent, on the line of its first candidate."""


class Confirmed(_Event):
    """The finalists and the baseline were evaluated on fresh seeds; `chosen` is the best by all evidence, if any."""

    kind: Literal["confirmed"] = "confirmed"
    seeds: list[int]
    tests: list[int]
    chosen: int | None


class TimeUp(_Event):
    """The limit on wall time ended the proposer's work."""

    kind: Literal["time_up"] = "time_up"
    max_seconds: float


class Submitted(_Event):
    """Test `number` is final. Nothing hidden has been computed before this event."""

    kind: Literal["submitted"] = "submitted"
    number: int
    region_sha256: str
    by: Literal["proposer", "harness"]
    """Who ended the search by it. Which of the finalists is final, a confirmation decides."""


class Halted(_Event):
    """The search stopped without an end: a signal, or our own machinery. Whoever resumes it passes over this."""

    kind: Literal["halted"] = "halted"
    reason: str


class Ended(_Event):
    """The search is over: the typed end and what it means in words."""

    kind: Literal["ended"] = "ended"
    status: str
    message: str


Event = Annotated[
    Launch
    | Evaluated
    | Proposal
    | ToolCalled
    | ToolReplied
    | TestStarted
    | TestFinished
    | Screened
    | Confirmed
    | TimeUp
    | Submitted
    | Halted
    | Ended,
    Field(discriminator="kind"),
]
_ADAPTER: TypeAdapter[Event] = TypeAdapter(Event)

_VOLATILE = {"seconds", "cached"}
"""Fields that may differ when the same event happens again."""


@dataclass(frozen=True)
class Record:
    """An event as it stands in the log: position, wall-clock time (seconds since the epoch) and hash chain."""

    seq: int
    ts: float
    previous: str
    """SHA-256 of the line before, without its newline; zeros for the first."""
    event: Event

    def line(self) -> bytes:
        """The record as one line of JSON, without the newline."""
        head = {"seq": self.seq, "ts": self.ts, "schema": SCHEMA, "previous": self.previous}
        return json.dumps({**head, **self.event.model_dump(mode="json")}, ensure_ascii=False).encode()

    @classmethod
    def parse(cls, line: bytes) -> Record:
        """The inverse of `line`. Raises ValueError when it is not a record of this schema."""
        try:
            fields = json.loads(line)
        except RecursionError:
            raise ValueError("nested too deeply") from None
        if not isinstance(fields, dict):
            raise ValueError("not a JSON object")
        try:
            seq, ts, schema, previous = (fields.pop(name) for name in ("seq", "ts", "schema", "previous"))
        except KeyError as missing:
            raise ValueError(f"no {missing}") from None
        if schema != SCHEMA:
            raise ValueError(f"schema {schema}, expected {SCHEMA}")
        if isinstance(ts, bool) or not isinstance(ts, int | float) or not 0 <= ts < _LATEST:
            raise ValueError(f"ts is {ts!r:.40}, not a time")
        return cls(seq, ts, previous, _ADAPTER.validate_python(fields))


class EventLog:
    """Append-only log of one run. Opening an existing file cuts a torn last line and rewinds the tape."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: list[Record] = []
        self.seconds = 0.0
        """How long writing has taken so far."""
        intact, self._previous = 0, GENESIS
        if path.exists():
            self.records, intact, self._previous = _read(path)
        self._position = 0
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        os.ftruncate(self._descriptor, intact)

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; appending afterwards is an error."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    @property
    def replaying(self) -> bool:
        """Whether the tape has events that the resumed program has not reached yet."""
        while self._position < len(self.records) and self.records[self._position].event.kind == "halted":
            self._position += 1
        return self._position < len(self.records)

    def recorded(self, kind: str) -> Event | None:
        """The tape's next event, if it is of this kind: an effect that need not be produced again."""
        if self.replaying and (event := self.records[self._position].event).kind == kind:
            return event
        return None

    def append(self, event: Event) -> None:
        """Write `event` durably, or, on the tape, check that it is the one that was recorded.

        Raises RunDamaged when the tape holds something else, OSError when the disk refuses (nothing is half-written:
        a torn line is cut when the log is opened again).
        """
        if self.replaying:
            recorded = self.records[self._position].event
            if _stable(recorded) != _stable(event):
                raise RunDamaged(
                    f"{self.path}: running the search again does not give event {self._position} as recorded: "
                    f"{_difference(_stable(recorded), _stable(event))}; the run cannot be resumed (was it edited, or "
                    "did the harness or this machine change?)"
                )
            self._position += 1
            return
        self._write(event)
        self._position += 1

    def halt(self, reason: str) -> None:
        """Write down that the search stopped here, wherever the tape is."""
        self._write(Halted(reason=reason))

    def _write(self, event: Event) -> None:
        started = time.monotonic()
        record = Record(len(self.records), time.time(), self._previous, event)
        line = record.line()
        data = line + b"\n"
        written = os.write(self._descriptor, data)
        if written != len(data):
            os.ftruncate(self._descriptor, os.fstat(self._descriptor).st_size - written)
            raise OSError(28, "no space left to write the event log", str(self.path))
        os.fdatasync(self._descriptor)
        self.records.append(record)
        self._previous = hashlib.sha256(line).hexdigest()
        self.seconds += time.monotonic() - started


def accuracies_by_role(events: Iterable[Event]) -> dict[str, dict[str, dict[int, float | None]]]:
    """Role → task → seed → accuracy in percent, None for a failure; a confirmation's seeds are among them."""
    found: dict[str, dict[str, dict[int, float | None]]] = {}
    for event in events:
        if isinstance(event, Evaluated):
            found.setdefault(event.role, {}).setdefault(event.task, {})[event.seed] = event.accuracy
    return found


def read_events(path: Path) -> list[Record]:
    """All intact records of a log, without touching the file. Raises RunDamaged where the chain is broken."""
    return _read(path)[0]


def _read(path: Path) -> tuple[list[Record], int, str]:
    """The records, how many bytes of the file they fill, and the last line's hash.

    Only what an unfinished write left after the last newline may follow.
    """
    records: list[Record] = []
    intact, previous = 0, GENESIS
    for number, line in enumerate(_lines(path.read_bytes()), start=1):
        try:
            record = Record.parse(line)
        except ValueError as error:
            raise RunDamaged(f"{path}: line {number} is not an event of this version: {error}") from None
        if record.previous != previous or record.seq != number - 1:
            raise RunDamaged(f"{path}: line {number} does not follow the line before it: the log was edited")
        records.append(record)
        intact += len(line) + 1
        previous = hashlib.sha256(line).hexdigest()
    return records, intact, previous


def _lines(data: bytes) -> Iterator[bytes]:
    """Complete lines only: what a crash left after the last newline never counted."""
    yield from data.split(b"\n")[:-1]


def _stable(event: Event) -> dict[str, Any]:
    return {name: value for name, value in event.model_dump(mode="json").items() if name not in _VOLATILE}


def _difference(was: dict[str, Any], now: dict[str, Any]) -> str:
    """The fields that differ, each cut to a readable length; of events of two kinds, the kinds."""
    if was["kind"] != now["kind"]:
        return f"it was {was['kind']} and is now {now['kind']}"
    return "; ".join(f"{name} was {was[name]!r:.120}, now {now[name]!r:.120}" for name in was if was[name] != now[name])
