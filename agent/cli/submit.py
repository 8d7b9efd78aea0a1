"""`agent submit`: the hidden task of a search that waits for it."""

from __future__ import annotations

from pathlib import Path

from agent.cli.search import execute
from agent.errors import Rejected, UsageError
from agent.runs.artifacts import patch_text
from agent.runs.directory import RunDirectory
from agent.runs.reviews import WORDS, standing
from agent.runs.status import RunStatus
from sandbox.workspace import Workspace


def run_submit(run: str, runs: Path, *, require_approval: bool, as_json: bool) -> int:
    """Run the hidden task and end the run. Raises UsageError when it does not wait, Rejected without an approval."""
    from agent.engine.search import Search

    directory = RunDirectory.find(run, runs)
    recorded = directory.read_summary()
    # A run that was cut off during the hidden task is an ordinary interrupted one, whose submission stays held.
    status = RunStatus.of(recorded)
    held = recorded.get("config", {}).get("submit") is False
    if not status.waiting and not (status.resumable and held):
        raise UsageError(f"{directory.path}: this run does not wait for a submission ({recorded.get('status')})")
    if require_approval:
        require_approved(directory, recorded.get("submitted_test"))
    return execute(Search.resume(directory, release=True), as_json=as_json)


def require_approved(directory: RunDirectory, test: object) -> None:
    """Raise Rejected unless the patch on the disk is the run's own and an approval of it is in force."""
    now = standing(directory)
    name = directory.path.name
    if not isinstance(test, int) or now.patch_sha256 is None:
        raise Rejected(f"{directory.path}: no test was chosen yet, so there is nothing that could be approved")
    with Workspace.open(directory.workspace) as workspace:
        own = patch_text(directory, workspace, test)
    if (directory.path / "submission.patch").read_bytes() != own.encode():
        raise Rejected(f"{directory.path}: submission.patch is not the patch of test {test}; it was changed by hand")
    if not now.approved:
        state = f"the verdict in force is “{WORDS[now.verdict.kind]}”" if now.verdict else "nobody approved it"
        raise Rejected(f"{directory.path}: {state}; agent review {name} --approve comes first")
