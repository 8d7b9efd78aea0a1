"""`agent compare`: compares several runs, or several proposers on the same search (`agent.cli.tournament`)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli.app import (
    DataRootOption,
    ExecutorOption,
    JsonFlag,
    ParallelOption,
    ProfileOption,
    RayAddressOption,
    RunsOption,
    SeedsOption,
    SendKeyOption,
    SetOption,
    SlurmOption,
    WorkersOption,
    app,
    settings_given,
)
from agent.cli.output import print_json, print_next, run_words
from agent.errors import RunDamaged, UsageError
from agent.safe_text import spelt

if TYPE_CHECKING:
    from agent.analysis.generalisation import RunGains
    from agent.report.comparison_page import Member, Pair
    from agent.runs.directory import RunDirectory
    from agent.runs.record import RunRecord


@app.command()
def compare(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="RUN RUN...", help="Two to six runs; all are compared with the first.")
    ] = None,
    runs: RunsOption = Path("runs"),
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The page (default RUNS/comparison.html).")
    ] = None,
    proposers: Annotated[
        str | None, typer.Option(help="Compare proposers instead of runs: names, separated by commas.")
    ] = None,
    repeats: Annotated[int, typer.Option(help="Searches of each proposer, each from other seeds.")] = 3,
    fresh: Annotated[int, typer.Option(help="Measure winners and baseline again on this number of fresh seeds.")] = 0,
    budget: Annotated[int | None, typer.Option(help="Tests of each search (default 3).")] = None,
    profile: ProfileOption = None,
    seeds: SeedsOption = None,
    seed: Annotated[int | None, typer.Option(help="The first seed of the first repeat (default 0).")] = None,
    workers: WorkersOption = None,
    parallel: ParallelOption = None,
    executor: ExecutorOption = None,
    ray_address: RayAddressOption = None,
    slurm: SlurmOption = None,
    data_root: DataRootOption = None,
    model: Annotated[str | None, typer.Option(help="Language model, for llm and hybrid.")] = None,
    base_url: Annotated[str | None, typer.Option(help="Address of the model's server.")] = None,
    yes_send_key_to: SendKeyOption = None,
    settings: SetOption = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with any other setting of a search.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Compare runs or proposers. Shows differences over shared seeds with intervals, and writes a page with curves.

    \b
    Examples:
      agent compare latest 20260101-120000
      agent compare A B C -o comparison.html
      agent compare --proposers random,optuna --repeats 12 --fresh 10 --runs tournament

    With --proposers each proposer runs the same search several times, and their gains are compared. The searches of a
    repeat run side by side and share the slots. After an interruption the same command continues.
    """
    if proposers is None:
        _compare_runs(names or [], runs, output, as_json=as_json)
        return
    if names or output:
        raise UsageError("--proposers runs searches of its own: give neither runs nor --output with it")
    from agent.cli.tournament import run_tournament

    run_tournament(
        settings_given(ctx),
        proposers=proposers,
        repeats=repeats,
        fresh=fresh,
        toml=config,
        settings=settings or [],
        key_host=yes_send_key_to,
        as_json=as_json,
    )


def _compare_runs(names: Sequence[str], runs: Path, output: Path | None, *, as_json: bool) -> None:
    """Compare every later run with the first, and write the page. Raises UsageError, RunDamaged."""
    from agent.analysis import generalisation
    from agent.report.comparison_page import MAX_RUNS, comparability, comparison_page, members, pairs
    from agent.runs.directory import RunDirectory
    from benchmark.files import write_atomically

    if not 2 <= len(names) <= MAX_RUNS:
        raise UsageError(f"give 2 to {MAX_RUNS} runs to compare, not {len(names)}; `agent runs` lists them")
    found = members(_readable([RunDirectory.find(name, runs) for name in names]))
    path = output or runs / "comparison.html"
    try:
        write_atomically(path, comparison_page(found).encode(errors="replace"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}; name another with --output") from None
    if as_json:
        print_json(
            {
                "page": str(path),
                "runs": {run.letter: str(run.record.directory.path) for run in found},
                "notes": comparability(found),
                "pairs": [_as_json(pair) for pair in pairs(found)],
                "generalisation": generalisation.runs_as_json(_gains(found)),
            }
        )
        return
    _print_pairs(found)
    print(path)
    print_next(f"open {path}, or agent review {run_words(found[-1].record.directory.path)}")


def _readable(directories: Sequence[RunDirectory]) -> list[RunDirectory]:
    """The runs that can be read; each other one is named on stderr. Raises RunDamaged when fewer than two are left."""
    good = []
    for directory in directories:
        try:
            directory.read_raw_summary()
        except RunDamaged as error:
            print(f"left out: {error}", file=sys.stderr)
        else:
            good.append(directory)
    if len(good) < 2:
        raise RunDamaged("fewer than two of these runs can be read; `agent runs` lists others")
    return good


def _print_pairs(found: Sequence[Member]) -> None:
    from agent.analysis import generalisation
    from agent.report.comparison_page import comparability, pairs

    for run in found:
        print(spelt(f"{run.letter}  {run.record.name}: {run.findings.headline.lower()}"))
    print()
    for pair in pairs(found):
        word = "seed" if len(pair.seeds) == 1 else "seeds"
        seeds = f"{word} {', '.join(map(str, pair.seeds))}" if pair.seeds else "no shared seed"
        print(spelt(f"{pair.second} − {pair.first}, {pair.kind} {pair.task} ({seeds}): {pair.words}"))
    for line in generalisation.over_runs(_gains(found)):
        print(spelt(line))
    for note in comparability(found):
        print(f"note: {note}")


def _gains(found: Sequence[Member]) -> list[RunGains]:
    from agent.analysis.generalisation import RunGains, carry_over

    return [
        RunGains(
            run.letter,
            run.record.profile + _own_tasks(run.record),
            carry_over(run.findings.visible, run.findings.hidden),
            null=run.record.summary.get("null") is True,
        )
        for run in found
    ]


def _own_tasks(record: RunRecord) -> str:
    """What tells two task files with one name apart; "" for a built-in profile."""
    tasks = record.launch.get("tasks")
    return str([tasks.get(kind) for kind in ("visible", "hidden")]) if isinstance(tasks, dict) else ""


def _as_json(pair: Pair) -> dict[str, object]:
    one = pair.comparison
    numbers: dict[str, object] | None = None
    if one is not None:
        numbers = {"gain": one.gain, "ci": one.known_ci, "resolved": one.resolved, **one.metric.as_json()}
    return {
        "kind": pair.kind,
        "task": pair.task,
        "first": pair.first,
        "second": pair.second,
        "seeds": list(pair.seeds),
        "comparison": numbers,
        "words": pair.words,
    }
