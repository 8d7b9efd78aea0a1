"""`agent ablate`: measures each part of a submission by taking it back and training again."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from agent.cli.app import DataRootOption, JsonFlag, RunArgument, RunsOption, TaskFileOption, UnsandboxedOption, app
from agent.cli.output import print_json, print_next
from agent.errors import AgentError
from agent.safe_text import spelt


@app.command()
def ablate(
    run: RunArgument = "latest",
    runs: RunsOption = Path("runs"),
    share: Annotated[
        float,
        typer.Option(min=0.0, help="Most trainings, as a share of the search's trainings on visible tasks."),
    ] = 1.0,
    seeds: Annotated[
        int | None, typer.Option(min=1, max=50, help="Fresh seeds per task and part (default: as many as the search).")
    ] = None,
    allow_unsandboxed: UnsandboxedOption = False,
    data_root: DataRootOption = None,
    profile: TaskFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure which part of a submission carries the gain.

    \b
    Examples:
      agent ablate
      agent ablate latest --share 2 --seeds 3
      agent ablate 20260101-120000 --json

    Takes back one hunk or number at a time and trains again, on the visible tasks only, with seeds that the search did
    not use. The largest hunks come first. Parts that the share does not pay for are left out and named. The code runs
    in isolation, also where the search's did not. RUN/ablation.json and the run's page keep the result.
    """
    from agent.cli.live_table import make_progress
    from agent.profiles import given_profile
    from agent.report import write_report
    from agent.runs.directory import RunDirectory
    from agent.studies.ablation import ablate
    from benchmark.data import DataError
    from benchmark.executors import InfrastructureError

    directory = RunDirectory.find(run, runs)
    try:
        with closing(make_progress()) as progress:
            ablation = ablate(
                directory,
                progress,
                share=share,
                seeds=seeds,
                allow_unsandboxed=allow_unsandboxed,
                data_root=data_root,
                given=given_profile(profile, data_root=data_root),
            )
    except (InfrastructureError, DataError) as error:
        raise AgentError(f"{error}\nfinished trainings are kept; the same command continues") from None
    page = write_report(directory, measure=False)
    if as_json:
        print_json({"run": str(directory.path), **ablation.model_dump(mode="json")})
        return
    print(f"test {ablation.test}, {ablation.profile}: gain lost, in {ablation.unit}, when one part is taken back")
    print(ablation.stated)
    for part in ablation.parts:
        print(spelt(f"  {part.words(ablation.unit)}"))
    print(ablation.conclusion)
    print_next(f"open {page}")
