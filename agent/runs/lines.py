"""The event log as lines of JSON: the hash chain, and each tool call with its reply.

Every reader of a log starts here. `agent.runs.log` accepts only what is intact; `agent.runs.record` shows the rest too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from agent.runs.files import parse_json

SCHEMA = 1
GENESIS = "0" * 64
"""What the first line names as the hash of the line before it."""

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
    """Why the line cannot be read; `fields` is empty then."""
    follows: bool
    """Whether the line names the hash of the line before it."""

    @property
    def sha256(self) -> str:
        """What the next line must name."""
        return hashlib.sha256(self.data).hexdigest()


def read_lines(data: bytes) -> Iterator[LogLine]:
    """The complete lines of a log. What a crash left after the last newline is not one: see `torn`."""
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
    """A tool call, the proposals recorded before it, and its reply, each as its event's fields."""

    proposals: tuple[Fields, ...]
    call: Fields | None
    """None for proposals that no call followed."""
    reply: Fields | None
    """None where the log ends before the reply."""


def exchanges(events: Iterable[Fields]) -> Iterator[CallRecord]:
    """Calls with their replies, in the order of the log. A resumed search records no call twice.

    A reply belongs to the call of the same `step`; where a damaged log has several, the last one counts.
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
