"""`agent submit`: the hidden task of a search that waits for it."""

from __future__ import annotations

from pathlib import Path

from agent.cli.search import execute
from agent.engine.loop import WAITING
from agent.errors import Rejected, UsageError
from agent.runs.directory import RunDirectory
from agent.runs.reviews import WORDS, standing
from agent.studies.rebuilt import require_genuine


def run_submit(run: str, runs: Path, *, require_approval: bool, as_json: bool) -> int:
    """Run the hidden task and end the run. Raises UsageError when it does not wait, Rejected without an approval.

    Files of the submission that were changed since are refused too.
    """
    from agent.engine.search import Search

    directory = RunDirectory.find(run, runs)
    recorded = directory.read_summary()
    # A run that was cut off during the hidden task is an ordinary interrupted one, whose submission stays held.
    unfinished = recorded.get("status") in ("running", "interrupted", "failed", "infra")
    held = recorded.get("config", {}).get("submit") is False
    if recorded.get("status") != WAITING and not (unfinished and held):
        raise UsageError(f"{directory.path}: this run does not wait for a submission ({recorded.get('status')})")
    require_genuine(directory)
    if require_approval:
        require_approved(directory, recorded.get("submitted_test"))
    return execute(Search.resume(directory, release=True), as_json=as_json)


def require_approved(directory: RunDirectory, test: object) -> None:
    """Raise Rejected unless an approval of the patch on the disk, and of this log, is in force."""
    now = standing(directory)
    name = directory.path.name
    if not isinstance(test, int) or now.patch_sha256 is None:
        raise Rejected(f"{directory.path}: no test was chosen yet, so there is nothing that could be approved")
    if not now.approved:
        state = f"the verdict in force is “{WORDS[now.verdict.kind]}”" if now.verdict else "nobody approved it"
        raise Rejected(f"{directory.path}: {state}; agent review {name} --approve comes first")
