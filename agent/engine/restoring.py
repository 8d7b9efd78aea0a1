"""Restores a search from its log without repeating anything: workspace, baseline, tests, looks, submission.

`agent search --resume` runs the whole search again beside its tape. A session has a command for every call and cannot
afford that, so it folds the finished calls of the log into a toolbox. What the log holds after them (a call without a
reply, a baseline without all its seeds) is the tape of what comes next, which the loop's own code carries out.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from agent.engine.toolbox import Toolbox
from agent.errors import RunDamaged
from agent.runs.directory import RunDirectory
from agent.runs.log import (
    Evaluated,
    Event,
    Record,
    Submitted,
    TestStarted,
    ToolCalled,
    ToolReplied,
    accuracies_by_role,
)
from benchmark.results import region_sha256
from sandbox.editing import Editor, Reply
from sandbox.region import SCAFFOLD_NAME, scaffold
from sandbox.workspace import GitMissing, Workspace, WorkspaceError


@dataclass(frozen=True)
class RecordedCall:
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
    calls: tuple[RecordedCall, ...]
    pending: ToolCalled | None
    """The call after them that has no reply yet."""
    closing: bool
    """Whether the harness had begun to end the run: something is logged after the calls that belongs to no call."""

    @property
    def step(self) -> int:
        """The step of the last call; 0 before the first."""
        return self.calls[-1].call.step if self.calls else 0

    @property
    def region(self) -> str:
        """The region after the calls. Raises RunDamaged where the replies record another one."""
        return _edited(self.calls)[0].files[SCAFFOLD_NAME].range_text()

    @property
    def submission(self) -> Submitted | None:
        """The submission that one of the calls made."""
        inner = (event for call in self.calls for event in call.inner)
        return next((event for event in inner if isinstance(event, Submitted)), None)


def fold(records: Sequence[Record], baseline: int) -> Fold:
    """Fold a log whose baseline has so many evaluations."""
    counted = 0
    measured: list[Evaluated] = []
    calls: list[RecordedCall] = []
    begun: ToolCalled | None = None
    inner: list[Event] = []
    closing = False
    for number, event in enumerate((record.event for record in records), start=1):
        match event:
            case ToolCalled():
                begun, inner = event, []
            case ToolReplied() if begun is not None:
                calls.append(RecordedCall(begun, tuple(inner), event))
                begun, counted = None, number
            case _ if begun is not None:
                inner.append(event)
            case Evaluated(role="baseline") if not calls and len(measured) < baseline:
                measured.append(event)
                counted = number if len(measured) == baseline else counted
            case _ if event.kind in ("proposal", "halted", "launch"):
                counted = number if counted == number - 1 else counted
            case _:
                closing = True
    full = len(measured) == baseline
    return Fold(counted, tuple(measured) if full else (), tuple(calls), begun, closing)


def restore(tools: Toolbox, folded: Fold) -> None:
    """Put a fresh toolbox, whose workspace is `restored_workspace`, into the state after the finished calls."""
    if folded.baseline:
        tools.baseline = accuracies_by_role(folded.baseline)["baseline"]
    _, regions = _edited(folded.calls)
    for found, region in zip(folded.calls, regions, strict=True):
        tools.restore(found.inner, region, found.reply.reply)


@contextlib.contextmanager
def restored_workspace(run: RunDirectory, folded: Fold) -> Iterator[Workspace]:
    """The workspace after the finished calls: the one on the disk if it is in that state, else a new one."""
    editor, _ = _edited(folded.calls)
    workspace = _as_left(run, editor) or _made_again(run, folded)
    with workspace:
        yield workspace


def _as_left(run: RunDirectory, editor: Editor) -> Workspace | None:
    try:
        workspace = Workspace.open(run.workspace)
    except GitMissing:
        raise
    except (WorkspaceError, OSError):
        return None
    state = (workspace.region, workspace.undo_depth)
    if state == (editor.files[SCAFFOLD_NAME].range_text(), editor.undo_depth):
        return workspace
    workspace.close()
    return None


def _made_again(run: RunDirectory, folded: Fold) -> Workspace:
    if run.workspace.exists():
        shutil.rmtree(run.workspace)
    workspace = Workspace.create(run.workspace)
    workspace.tag("baseline")
    for found in folded.calls:
        _carry_out(workspace, found.call)
        for event in found.inner:
            if isinstance(event, TestStarted):
                workspace.tag(f"test/{event.number}")
            elif isinstance(event, Submitted):
                workspace.tag(f"submit/{event.number}", at=f"test/{event.number}")
    return workspace


class _Edited(Protocol):
    """What `Editor` and `Workspace` have in common."""

    def edit(self, arguments: dict[str, object]) -> Reply: ...
    def rewrite(self, content: object) -> Reply: ...
    def undo(self, n: object = 1) -> Reply: ...


def _carry_out(target: _Edited, call: ToolCalled) -> None:
    match call.tool:
        case "edit":
            target.edit(call.arguments)
        case "rewrite":
            target.rewrite(call.arguments.get("content"))
        case "undo":
            target.undo(call.arguments.get("n", 1))


def _edited(calls: Sequence[RecordedCall]) -> tuple[Editor, list[str]]:
    """An editor after these calls, and the region after each of them."""
    editor, regions = Editor.of(scaffold().editable()), []
    for found in calls:
        _carry_out(editor, found.call)
        regions.append(editor.files[SCAFFOLD_NAME].range_text())
        if region_sha256(regions[-1]) != found.reply.region_sha256:
            raise RunDamaged(f"the reply to call {found.call.step} does not fit the region that the calls before it give")
    return editor, regions
