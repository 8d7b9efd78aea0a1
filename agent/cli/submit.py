"""`agent submit`: runs the hidden task of a search that waits for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli.app import (
    DataRootOption,
    JsonFlag,
    RunArgument,
    RunsOption,
    SendKeyOption,
    TaskFileOption,
    TrackOption,
    UnsandboxedOption,
    app,
)
from agent.cli.output import asking
from agent.cli.search import execute, trackers_of
from agent.cli.session_runs import in_session, release_session
from agent.errors import Rejected, UsageError

if TYPE_CHECKING:
    from agent.runs.directory import RunDirectory


@app.command()
def submit(
    run: RunArgument = "latest",
    runs: RunsOption = Path("runs"),
    require_approval: Annotated[
        bool, typer.Option("--require-approval", help="Stop unless an approval of this patch is in force.")
    ] = False,
    allow_unsandboxed: UnsandboxedOption = False,
    data_root: DataRootOption = None,
    profile: TaskFileOption = None,
    yes_send_key_to: SendKeyOption = None,
    track: TrackOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Run the hidden task after agent search --no-submit.

    \b
    Examples:
      agent search --no-submit
      agent review latest --approve
      agent submit latest --require-approval

    The exit code is 3 when an approval is required and there is none, or when files of the submission were changed.
    """
    from agent.config import read_config
    from agent.engine.resuming import Allowed
    from agent.engine.search import Search
    from agent.runs.directory import RunDirectory
    from agent.runs.status import RunStatus
    from agent.studies.verify_artifacts import require_genuine

    directory = RunDirectory.find(run, runs)
    recorded = directory.read_summary()
    # A run that was interrupted during the hidden task has the status of any interrupted run; `submit` is still False.
    status = RunStatus.of(recorded)
    held = recorded.get("config", {}).get("submit") is False
    if not status.waiting and not (status.resumable and held):
        raise UsageError(f"{directory.path}: this run does not wait for a submission ({recorded.get('status')})")
    require_genuine(directory)
    if require_approval:
        _require_approved(directory, recorded.get("submitted_test"))
    found = read_config({"allow_unsandboxed": allow_unsandboxed or None, "data_root": data_root, "profile": profile})
    allowed = Allowed.loaded(found, () if profile is None else ("profile",), key_host=yes_send_key_to, ask=asking())
    if in_session(directory):
        raise typer.Exit(release_session(directory, allowed, as_json=as_json))
    trackers = trackers_of(track)
    search = Search.resume(directory, release=True, allowed=allowed)
    raise typer.Exit(execute(search, as_json=as_json, trackers=trackers))


def _require_approved(directory: RunDirectory, test: object) -> None:
    """Raise Rejected unless an approval of the patch on the disk, and of this log, is in force."""
    from agent.runs.reviews import WORDS, standing

    now = standing(directory)
    name = directory.path.name
    if not isinstance(test, int) or now.patch_sha256 is None:
        raise Rejected(f"{directory.path}: no test was chosen yet, so there is nothing that could be approved")
    if not now.approved:
        state = f"the verdict in force is “{WORDS[now.verdict.kind]}”" if now.verdict else "nobody approved it"
        raise Rejected(f"{directory.path}: {state}; agent review {name} --approve comes first")
