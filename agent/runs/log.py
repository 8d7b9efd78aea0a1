"""The event log of a run: one JSON object per line. Each line has the hash of the line before.

The log is the state of a search. A resumed search runs the same program again, with the recorded events as a tape. It
compares each event with the tape and does not repeat its effect. After the end of the tape the search goes on.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from agent.errors import RunDamaged, in_one_sentence
from agent.runs.events import Event, Halted, Launch
from agent.runs.log_lines import GENESIS, SCHEMA, Fields, read_lines
from benchmark.files import NotPlain, open_plain, read_plain

MAX_LOG_BYTES = 256 * 2**20
"""A log of a thousand calls of a language model, with prompts and reasoning, has about a tenth of this."""
_LAST_TS = 253402300799.0
"""The end of the year 9999, in seconds since the epoch. Python cannot format later times."""


_ADAPTER: TypeAdapter[Event] = TypeAdapter(Event)

_VOLATILE = {"seconds", "cached", "place", "attempts"}
"""Fields that may differ when a resumed search repeats an event."""


@dataclass(frozen=True)
class Record:
    """An event in the log, with its position, wall-clock time (seconds since the epoch) and hash chain."""

    seq: int
    ts: float
    previous: str
    """SHA-256 of the line before, without its newline; zeros for the first line."""
    event: Event

    def line(self) -> bytes:
        """The record as one line of JSON, without the newline."""
        head = {"seq": self.seq, "ts": self.ts, "schema": SCHEMA, "previous": self.previous}
        return json.dumps({**head, **self.event.model_dump(mode="json")}, ensure_ascii=False).encode()

    @classmethod
    def parse(cls, fields: Fields) -> Record:
        """Make a record from the fields of its line. Raises ValueError when it is not a record of this schema."""
        fields = dict(fields)
        try:
            seq, ts, schema, previous = (fields.pop(name) for name in ("seq", "ts", "schema", "previous"))
        except KeyError as missing:
            raise ValueError(f"no {missing}") from None
        if schema != SCHEMA:
            raise ValueError(f"schema {schema!r:.80}, expected {SCHEMA}")
        if isinstance(ts, bool) or not isinstance(ts, int | float) or not 0 <= ts <= _LAST_TS:
            raise ValueError(f"{ts!r:.80} is no time")
        return cls(seq, ts, previous, _ADAPTER.validate_python(fields))


class EventLog:
    """The append-only log of one run. Opening an existing file removes an incomplete last line and rewinds the tape."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: list[Record] = []
        self.seconds = 0.0
        """Seconds spent on writing so far."""
        intact, self._previous = 0, GENESIS
        if os.path.lexists(path):
            self.records, intact, self._previous = _read(path)
        self._position = 0
        self._held: list[Event] | None = None
        self._descriptor = open_plain(path.parent, path.name, flags=os.O_WRONLY | os.O_APPEND | os.O_CREAT)
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
        """Whether the tape has more events that the resumed search has not reached."""
        while self._position < len(self.records) and self.records[self._position].event.kind == "halted":
            self._position += 1
        return self._position < len(self.records)

    def skip(self, events: int) -> None:
        """Go on after the first `events` events, whose effects a fold has restored (`agent.engine.restoring`)."""
        self._position = events

    def recorded(self, kind: str) -> Event | None:
        """The tape's next event if it is of this kind, else None. Its effect need not be repeated."""
        if self.replaying and (event := self.records[self._position].event).kind == kind:
            return event
        return None

    def append(self, event: Event) -> None:
        """Write `event` to the disk, or, while the tape lasts, compare it with the recorded one.

        Raises RunDamaged when the tape has another event, OSError when the disk fails. An incomplete line is removed
        when the log is opened again. Between `hold` and `release` the event is kept in memory.
        """
        if self._held is not None:
            self._held.append(event)
            return
        if self.replaying:
            was, now = _compared(self.records[self._position].event, event)
            if was != now:
                raise RunDamaged(
                    f"{self.path}: running the search again does not give event {self._position} as recorded: "
                    f"{_difference(was, now)}; the run cannot be resumed (was it edited, or did the harness or this "
                    "machine change?)"
                )
            self._position += 1
            return
        self._write(event)
        self._position += 1

    def hold(self) -> None:
        """Keep events in memory until `release`: what comes before them in the log is still being measured."""
        self._held = []

    def release(self) -> list[Event]:
        """Write events to the disk again. Returns those that were kept, in order; append them when it is their turn."""
        held, self._held = self._held or [], None
        return held

    def halt(self, reason: str) -> None:
        """Record that the search stopped, even when the tape has not ended."""
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


def chain(path: Path) -> list[str]:
    """SHA-256 of each line, up to the first line that has a wrong hash of the line before; [] without a log.

    The last one is the log's head. Who keeps a copy of it can prove later that no line was changed. The content of the
    lines is not checked.
    """
    hashes: list[str] = []
    try:
        data = read_plain(path.parent, path.name, limit=MAX_LOG_BYTES)
    except OSError:
        return hashes
    for line in read_lines(data):
        if line.fault is not None or not line.follows:
            break
        hashes.append(line.sha256)
    return hashes


def read_events(path: Path) -> list[Record]:
    """Read all records of a log. Does not write to the file. Raises RunDamaged when the chain is broken."""
    return _read(path)[0]


def _read(path: Path) -> tuple[list[Record], int, str]:
    """The records, their size in bytes, and the last line's hash. An incomplete last line is left out."""
    records: list[Record] = []
    intact, previous = 0, GENESIS
    try:
        data = read_plain(path.parent, path.name, limit=MAX_LOG_BYTES)
    except FileNotFoundError:
        raise RunDamaged(f"{path}: the log is not there") from None
    except NotPlain as error:
        raise RunDamaged(str(error)) from None
    for line in read_lines(data):
        try:
            if line.fault is not None:
                raise ValueError(line.fault)
            record = Record.parse(line.fields)
        except ValueError as error:
            reason = in_one_sentence(error)
            raise RunDamaged(f"{path}: line {line.number} is not an event of this version: {reason}") from None
        if not line.follows or record.seq != line.number - 1:
            raise RunDamaged(f"{path}: line {line.number} does not follow the line before it: the log was edited")
        records.append(record)
        intact += len(line.data) + 1
        previous = line.sha256
    return records, intact, previous


def _compared(recorded: Event, event: Event) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both events without what may differ. In a launch, fields and settings may differ that the old version lacked."""
    was, now = _stable(recorded), _stable(event)
    if isinstance(recorded, Launch) and isinstance(event, Launch):
        was, now = (
            {name: fields[name] for name in fields if name in recorded.model_fields_set} for fields in (was, now)
        )
        now["config"] = {name: value for name, value in now["config"].items() if name in was["config"]}
    return was, now


def _stable(event: Event) -> dict[str, Any]:
    return {name: value for name, value in event.model_dump(mode="json").items() if name not in _VOLATILE}


def _difference(was: dict[str, Any], now: dict[str, Any]) -> str:
    """The fields that differ, cut to a readable length; only the kinds if the events are of two kinds."""
    if was["kind"] != now["kind"]:
        return f"it was {was['kind']} and is now {now['kind']}"
    return "; ".join(f"{name} was {was[name]!r:.120}, now {now[name]!r:.120}" for name in was if was[name] != now[name])
