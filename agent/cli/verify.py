"""`agent verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agent.cli.app import JsonFlag, RunArgument, RunsOption, app
from agent.cli.output import print_json, print_next


@app.command()
def verify(
    run: RunArgument = "latest",
    runs: RunsOption = Path("runs"),
    execute: Annotated[bool, typer.Option("--execute", help="Train one recorded evaluation again.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Do log, git history, results, summary and patch of a run still fit each other?

    \b
    Examples:
      agent verify latest
      agent verify latest --execute

    The exit code is 3 when something does not fit.
    """
    from agent.progress import make_progress
    from agent.runs.directory import RunDirectory
    from agent.studies.verify import verify

    directory = RunDirectory.find(run, runs)
    progress = make_progress(quiet=not execute)
    try:
        checks = verify(directory, execute=execute, progress=progress)
    finally:
        progress.close()
    intact = all(check.fault is None for check in checks)
    if as_json:
        found = [{"check": check.what, "ok": check.fault is None, "fault": check.fault} for check in checks]
        print_json({"run": str(directory.path), "intact": intact, "checks": found})
    else:
        for check in checks:
            print(f"ok    {check.what}" if check.fault is None else f"FAULT {check.what}: {check.fault}")
        print_next(f"{'agent replay' if intact else 'agent show'} {directory.path.name}")
    raise typer.Exit(0 if intact else 3)
