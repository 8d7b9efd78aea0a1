"""`agent report`: writes the page of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agent.cli.app import DataRootOption, JsonFlag, RunArgument, RunsOption, TaskFileOption, app
from agent.cli.output import print_json, print_next, run_words


@app.command()
def report(
    run: RunArgument = "latest",
    runs: RunsOption = Path("runs"),
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The page (default RUN/report.html).")] = None,
    no_measure: Annotated[
        bool, typer.Option("--no-measure", help="Do not run the function again to measure its effect on the networks.")
    ] = False,
    data_root: DataRootOption = None,
    profile: TaskFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Write a run's page: report.html, one file without scripts. Works for unfinished runs too.

    \b
    Examples:
      agent report
      agent report 20260101-120000 -o page.html
    """
    from agent.profiles import given_profile
    from agent.report import write_report
    from agent.runs.directory import RunDirectory

    directory = RunDirectory.find(run, runs)
    given = given_profile(profile, data_root=data_root)
    page = write_report(directory, measure=not no_measure, output=output, data_root=data_root, given=given)
    if as_json:
        print_json({"run": str(directory.path), "report": str(page), "bytes": page.stat().st_size})
        return
    print(page)
    print_next(f"open it in a browser, or agent review {run_words(directory.path)}")
