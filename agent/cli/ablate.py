"""`agent ablate`."""

from __future__ import annotations

import sys
from pathlib import Path

from agent.cli.output import print_json
from agent.errors import AgentError
from agent.progress import make_progress
from agent.report import write_report
from agent.runs.directory import RunDirectory
from agent.studies.ablation import ablate
from benchmark.data import DataError
from benchmark.executor import InfrastructureError


def run_ablate(run: str, runs: Path, *, share: float, seeds: int | None, as_json: bool) -> None:
    """Measure the parts of a submission, print what each carries, and put it on the run's page. Raises AgentError."""
    directory = RunDirectory.find(run, runs)
    progress = make_progress()
    try:
        ablation = ablate(directory, progress, share=share, seeds=seeds)
    except (InfrastructureError, DataError) as error:
        raise AgentError(f"{error}\nwhat was trained is kept; the same command goes on") from None
    finally:
        progress.close()
    page = write_report(directory, measure=False)
    if as_json:
        print_json({"run": str(directory.path), **ablation.model_dump(mode="json")})
        return
    print(f"test {ablation.test}, {ablation.profile}: what is lost when one part is taken back")
    print(ablation.stated)
    for part in ablation.parts:
        print(f"  {part.words}")
    print(ablation.conclusion)
    print(f"next: open {page}", file=sys.stderr)
