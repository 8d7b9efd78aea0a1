"""Restores a search from its log without repeating anything: workspace, baseline, tests, looks, submission.

`agent search --resume` runs the whole search again beside its tape. A session has a process for every command and
cannot afford that, so it takes the finished calls of the log (`agent.runs.fold`) as done. What the log holds after
them, such as a call without a reply, is the tape of what comes next, which the loop's own code carries out.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

from agent.engine.toolbox import Toolbox
from agent.runs.directory import RunDirectory
from agent.runs.events import Submitted, TestStarted, accuracies_by_role
from agent.runs.fold import Fold, edited, repeat_edit
from sandbox.editing import Editor
from sandbox.region import SCAFFOLD_NAME
from sandbox.workspace import GitMissing, Workspace, WorkspaceError


def restore(tools: Toolbox, folded: Fold) -> None:
    """Put a fresh toolbox, whose workspace is `restored_workspace`, into the state after the finished calls."""
    if folded.baseline:
        tools.baseline = accuracies_by_role(folded.baseline)["baseline"]
    _, regions = edited(folded)
    for found, region in zip(folded.calls, regions, strict=True):
        tools.restore(found.inner, region, found.reply.reply)


@contextlib.contextmanager
def restored_workspace(run: RunDirectory, folded: Fold) -> Iterator[Workspace]:
    """The workspace after the finished calls: the one on the disk if it is in that state, else a new one."""
    editor, _ = edited(folded)
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
    workspace = Workspace.create(run.workspace, folded.start)
    workspace.tag("baseline")
    for found in folded.calls:
        repeat_edit(workspace, found.call)
        for event in found.inner:
            if isinstance(event, TestStarted):
                workspace.tag(f"test/{event.number}")
            elif isinstance(event, Submitted):
                workspace.tag(f"submit/{event.number}", at=f"test/{event.number}")
    return workspace
