"""Reads the event log as lines of JSON: the hash chain, and each tool call with its reply.

Every reader of a log uses this module. `agent.runs.log` accepts only intact logs; `agent.runs.record` reads others too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from agent.runs.files import parse_json

SCHEMA = 1
GENESIS = "0" * 64
"""The first line has this in place of the hash of the line before it."""

Fields = dict[str, Any]


@dataclass(frozen=True)
class LogLine:
    """One complete line of a log. Everything in `fields` is untrusted."""

    number: int
    """Counted from 1."""
    data: bytes
    """Without the newline."""
    fields: Fields
    fault: str | None
    """Why the line cannot be read; then `fields` is empty. None for a good line."""
    follows: bool
    """Whether the line has the right hash of the line before it."""

    @property
    def sha256(self) -> str:
        """The hash that the next line must have."""
        return hashlib.sha256(self.data).hexdigest()


def read_lines(data: bytes) -> Iterator[LogLine]:
    """The complete lines of a log. A part of a line after the last newline is left out; see `torn`."""
    previous = GENESIS
    for number, line in enumerate(data.split(b"\n")[:-1], start=1):
        fields, fault = _parsed(line)
        found = LogLine(number, line, fields, fault, fields.get("previous") == previous)
        yield found
        previous = found.sha256


def torn(data: bytes) -> bool:
    """Whether the last line has no newline, as after a crash."""
    return not data.endswith(b"\n") and bool(data)


def _parsed(line: bytes) -> tuple[Fields, str | None]:
    try:
        fields = parse_json(line)
    except ValueError as error:
        return {}, str(error)
    return (fields, None) if isinstance(fields, dict) else ({}, "not an object")


@dataclass(frozen=True)
class CallRecord:
    """A tool call, the proposals before it, and its reply. Each is the dictionary of its event's fields."""

    proposals: tuple[Fields, ...]
    call: Fields | None
    """None for proposals that no call followed."""
    reply: Fields | None
    """None where the log ends before the reply."""


def exchanges(events: Iterable[Fields]) -> Iterator[CallRecord]:
    """Calls with their replies, in the order of the log. A resumed search records no call twice.

    A reply belongs to the call with the same `step`. If a damaged log has several replies, the last one is used.
    """
    events = list(events)
    replies = {_step(event): event for event in events if event.get("kind") == "tool_replied"}
    proposals: list[Fields] = []
    for event in events:
        if event.get("kind") == "proposal":
            proposals.append(event)
        elif event.get("kind") == "tool_called":
            yield CallRecord(tuple(proposals), event, replies.get(_step(event)))
            proposals = []
    if proposals:
        yield CallRecord(tuple(proposals), None, None)


def _step(event: Fields) -> int | None:
    step = event.get("step")
    return step if isinstance(step, int) else None
