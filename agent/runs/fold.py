"""Folds the log of a run into its finished calls, and what was begun and has no end yet. Imports nothing heavy.

Sessions use it: each of their commands is a process of its own and begins where the log ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from agent.errors import RunDamaged
from agent.runs.events import Evaluated, Event, Launch, Submitted, ToolCalled, ToolReplied
from agent.runs.log import Record
from sandbox.editing import Editor, Reply
from sandbox.region import SCAFFOLD_NAME, RegionError, scaffold, sha256, split


@dataclass(frozen=True)
class FinishedCall:
    """A call of a log with its reply, and what the log records between the two."""

    call: ToolCalled
    inner: tuple[Event, ...]
    reply: ToolReplied


@dataclass(frozen=True)
class Fold:
    """What a log says of a session. `events` counts the leading records of the log that the rest stands for."""

    events: int
    baseline: tuple[Evaluated, ...]
    """Empty unless every seed of the baseline is there."""
    calls: tuple[FinishedCall, ...]
    pending: ToolCalled | None
    """The call after them that has no reply yet."""
    inner: tuple[Event, ...]
    """What is logged since the pending call."""
    since: float
    """When the pending call was made, or else the last event logged, in seconds since the epoch."""
    closing: bool
    """Whether the harness had begun to end the run: something is logged after the calls that belongs to no call."""
    start: str
    """The region before the first call: the profile's baseline."""

    @property
    def step(self) -> int:
        """The step of the last call; 0 before the first."""
        return self.calls[-1].call.step if self.calls else 0

    @property
    def submission(self) -> Submitted | None:
        """The submission that one of the calls made."""
        inner = (event for call in self.calls for event in call.inner)
        return next((event for event in inner if isinstance(event, Submitted)), None)


def fold(records: Sequence[Record], baseline: int) -> Fold:
    """Fold a log whose baseline has so many evaluations. Raises RunDamaged."""
    start = scaffold().region
    counted = 0
    measured: list[Evaluated] = []
    calls: list[FinishedCall] = []
    begun: ToolCalled | None = None
    inner: list[Event] = []
    since = 0.0
    closing = False
    for number, record in enumerate(records, start=1):
        event = record.event
        since = record.ts if begun is None else since
        match event:
            case ToolCalled():
                begun, inner = event, []
            case ToolReplied() if begun is not None:
                calls.append(FinishedCall(begun, tuple(inner), event))
                begun, counted = None, number
            case _ if begun is not None:
                inner.append(event)
            case Launch():
                start = _region_of(event.scaffold)
                counted = number if counted == number - 1 else counted
            case Evaluated(role="baseline") if not calls and len(measured) < baseline:
                measured.append(event)
                counted = number if len(measured) == baseline else counted
            case _ if event.kind in ("proposal", "halted"):
                counted = number if counted == number - 1 else counted
            case _:
                closing = True
    full = len(measured) == baseline
    open_now = tuple(inner) if begun is not None else ()
    return Fold(counted, tuple(measured) if full else (), tuple(calls), begun, open_now, since, closing, start)


def _region_of(text: str) -> str:
    try:
        return split(text).region
    except RegionError as error:
        raise RunDamaged(f"the log's scaffold: {error}") from None


class Edited(Protocol):
    """What `Editor` and `Workspace` have in common."""

    def edit(self, arguments: dict[str, object]) -> Reply: ...
    def rewrite(self, content: object) -> Reply: ...
    def undo(self, n: object = 1) -> Reply: ...


def repeat_edit(target: Edited, call: ToolCalled) -> None:
    match call.tool:
        case "edit":
            target.edit(call.arguments)
        case "rewrite":
            target.rewrite(call.arguments.get("content"))
        case "undo":
            target.undo(call.arguments.get("n", 1))


def edited(folded: Fold) -> tuple[Editor, list[str]]:
    """An editor after the finished calls, and the region after each of them. Raises RunDamaged."""
    editor, regions = Editor.of(scaffold().with_region(folded.start).editable()), []
    for found in folded.calls:
        repeat_edit(editor, found.call)
        regions.append(editor.files[SCAFFOLD_NAME].range_text())
        if sha256(regions[-1]) != found.reply.region_sha256:
            raise RunDamaged(
                f"the reply to call {found.call.step} does not fit the region that the calls before it give"
            )
    return editor, regions
