"""`agent verify`: verifies that the files of a run agree."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from agent.cli.app import DataRootOption, JsonFlag, RunArgument, RunsOption, app
from agent.cli.output import print_json, print_next, run_words


@app.command()
def verify(
    run: RunArgument = "latest",
    runs: RunsOption = Path("runs"),
    execute: Annotated[bool, typer.Option("--execute", help="Train one recorded evaluation again.")] = False,
    allowed_signers: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The ssh keys that may sign reviews: see man ssh-keygen.")
    ] = None,
    data_root: DataRootOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Verify that the files of a run agree with each other.

    \b
    Examples:
      agent verify latest
      agent verify latest --execute
      agent verify latest --allowed-signers reviewers.txt

    Looks at log, git history, results, summary, patch, page and reviews. The exit code is 3 when something differs.
    What cannot be verified is listed and is not a fault.
    """
    from agent.cli.live_table import make_progress
    from agent.runs.directory import RunDirectory
    from agent.runs.log import chain
    from agent.studies.verify import verify

    directory = RunDirectory.find(run, runs)
    with closing(make_progress(quiet=not execute)) as progress:
        checks = verify(
            directory, execute=execute, progress=progress, allowed_signers=allowed_signers, data_root=data_root
        )
    intact = all(check.fault is None for check in checks)
    if as_json:
        log = chain(directory.events)
        found = [
            {
                "name": check.what,
                "verdict": check.verdict,
                "detail": check.detail,
                "check": check.what,
                "ok": check.verdict == "ok",
                "fault": check.fault,
            }
            for check in checks
        ]
        head = log[-1] if log else None
        print_json({"run": str(directory.path), "intact": intact, "log_sha256": head, "checks": found})
    else:
        marks = {"ok": "ok   ", "differs": "FAULT", "not_verifiable": "-    "}
        for check in checks:
            said = "not verifiable: " if check.verdict == "not_verifiable" else ""
            print(f"{marks[check.verdict]} {check.what}{f': {said}{check.detail}' if check.detail else ''}")
        print_next(f"{'agent replay' if intact else 'agent show'} {run_words(directory.path)}")
    raise typer.Exit(0 if intact else 3)
