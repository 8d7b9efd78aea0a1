"""`agent compare`: compares several runs, or several proposers on the same search."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli.app import (
    DataRootOption,
    JsonFlag,
    ProfileOption,
    RunsOption,
    SeedsOption,
    SendKeyOption,
    SetOption,
    WorkersOption,
    app,
)
from agent.cli.output import print_json, print_next
from agent.cli.search import confirm_server
from agent.errors import AgentError, Interrupted, RunDamaged, UsageError
from agent.safe_text import spelt

if TYPE_CHECKING:
    from agent.analysis.generalisation import RunGains
    from agent.report.comparison_page import Member, Pair
    from agent.runs.directory import RunDirectory
    from agent.studies.tournament import Gains, Repeat, Tournament

_AGAIN = "finished searches are kept; the same command continues"


@app.command()
def compare(
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

    With --proposers each proposer runs the same search several times, and their gains are compared. After an
    interruption the same command continues.
    """
    if proposers is None:
        _compare_runs(names or [], runs, output, as_json=as_json)
        return
    if names or output:
        raise UsageError("--proposers runs searches of its own: give neither runs nor --output with it")
    flags = {
        "runs": runs,
        "budget": budget,
        "profile": profile,
        "seeds": seeds,
        "seed": seed,
        "workers": workers,
        "data_root": data_root,
        "model": model,
        "base_url": base_url,
    }
    run_tournament(
        flags,
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
        raise UsageError(f"give two to {MAX_RUNS} runs to compare, not {len(names)}; `agent runs` lists them")
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
    print_next(f"open {path}, or agent review {found[-1].record.name}")


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
        seeds = f"seeds {', '.join(map(str, pair.seeds))}" if pair.seeds else "no shared seed"
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
            run.record.profile,
            carry_over(run.findings.visible, run.findings.hidden),
            null=run.record.summary.get("null") is True,
        )
        for run in found
    ]


def _as_json(pair: Pair) -> dict[str, object]:
    one = pair.comparison
    numbers = None if one is None else {"gain": one.gain, "ci": one.known_ci, "resolved": one.resolved}
    return {
        "kind": pair.kind,
        "task": pair.task,
        "first": pair.first,
        "second": pair.second,
        "seeds": list(pair.seeds),
        "comparison": numbers,
        "words": pair.words,
    }


# -- the same search by several proposers -----------------------------------------------------------------------------


def run_tournament(
    flags: Mapping[str, Any],
    *,
    proposers: str,
    repeats: int,
    fresh: int,
    toml: Path | None,
    settings: Sequence[str] = (),
    key_host: str | None = None,
    as_json: bool,
) -> None:
    """Run the missing searches of a tournament and print the result. Raises UsageError before anything is run."""
    from agent.config import parse_settings, read_config
    from agent.progress import make_progress
    from agent.studies.tournament import Tournament
    from benchmark.data import DataError
    from benchmark.executors import InfrastructureError

    names = [name.strip() for name in proposers.split(",") if name.strip()]
    found = read_config(flags, toml=toml, settings=parse_settings(settings))
    confirm_server(found, names, key_host)
    tournament = Tournament(found.config, names, repeats, fresh)
    if as_json:
        print_json({"event": "launch", **_frame(tournament)})
    done: list[Repeat] = []
    measured: dict[str, list[Gains]] = {}
    try:
        for repeat in tournament.run(make_progress):
            done.append(repeat)
            if as_json:
                print_json(repeat.as_json())
        if fresh:
            measured = _measure(tournament, done)
    except (Interrupted, KeyboardInterrupt) as stop:
        print(f"stopped; {_AGAIN}", file=sys.stderr)
        raise stop if isinstance(stop, Interrupted) else Interrupted(2) from None
    except (InfrastructureError, DataError) as error:
        raise AgentError(f"{error}\n{_AGAIN}") from None
    result = _result(tournament, done, measured)
    if as_json:
        print_json(result)
    else:
        _print_tournament(tournament, result)
    print_next(f"agent runs --runs {tournament.config.runs}")


def _measure(tournament: Tournament, done: Sequence[Repeat]) -> dict[str, list[Gains]]:
    from agent.progress import make_progress

    progress = make_progress()
    try:
        progress.message(f"the winners and the baseline again, with {tournament.fresh} fresh seeds for each repeat")
        return tournament.measure_fresh(done, progress)
    finally:
        progress.close()


def _frame(tournament: Tournament) -> dict[str, Any]:
    return {
        "runs": str(tournament.config.runs),
        "profile": tournament.profile.name,
        "budget": tournament.config.budget,
        "seeds": tournament.config.seeds,
        "proposers": list(tournament.proposers),
        "repeats": tournament.repeats,
        "fresh": tournament.fresh,
        "caveat": tournament.profile.caveat,
    }


def _result(tournament: Tournament, done: Sequence[Repeat], measured: Mapping[str, Sequence[Gains]]) -> dict[str, Any]:
    """The last JSON object: for each proposer and kind of gain the estimate, then the differences to the first."""
    from agent.studies.tournament import differences

    by_name = {name: [repeat for repeat in done if repeat.proposer == name] for name in tournament.proposers}
    gains: dict[str, Mapping[str, Sequence[Gains]]] = {
        "visible": {name: [repeat.visible for repeat in repeats] for name, repeats in by_name.items()},
        "hidden": {name: [repeat.hidden for repeat in repeats] for name, repeats in by_name.items()},
    }
    if measured:
        gains["fresh"] = measured
    first, *others = tournament.proposers
    level = 1 - 0.05 / max(1, len(others))
    return {
        "event": "done",
        **_frame(tournament),
        "results": {
            name: {
                "tests_used": sum(repeat.tests_used for repeat in repeats),
                "submitted": sum(repeat.submitted is not None for repeat in repeats),
                **{kind: _with_tasks(of_kind[name]) for kind, of_kind in gains.items()},
            }
            for name, repeats in by_name.items()
        },
        "differences": [
            {
                "first": first,
                "second": other,
                **{
                    kind: differences(of_kind[first], of_kind[other], level).as_json()
                    for kind, of_kind in gains.items()
                },
            }
            for other in others
        ],
    }


def _with_tasks(gains: Sequence[Gains]) -> dict[str, Any]:
    from agent.studies.tournament import estimate, overall

    tasks = {task: estimate([gain[task] for gain in gains]).as_json() for task in gains[0]}
    return {**overall(gains).as_json(), "tasks": tasks}


_WORDS = {
    "visible": "visible tasks, as measured by the searches (too high, because the tests were chosen by these numbers)",
    "hidden": "hidden task",
    "fresh": "visible tasks, winners measured again on fresh seeds",
}


def _print_tournament(tournament: Tournament, result: Mapping[str, Any]) -> None:
    print(
        f"{tournament.repeats} repeats, budget {tournament.config.budget}, seeds {tournament.config.seeds}, profile "
        f"{tournament.profile.name}; gains over the baseline in points"
    )
    for name, of_name in result["results"].items():
        note = f"{of_name['tests_used']} tests in all"
        if missing := tournament.repeats - of_name["submitted"]:
            note += f"; {missing} submitted nothing, which counts as a gain of 0"
        print(f"{name}: {note}")
    for kind, words in _WORDS.items():
        if kind not in next(iter(result["results"].values())):
            continue
        print(f"\n{words}")
        for name, of_name in result["results"].items():
            print(f"  {name:<24} {in_words(of_name[kind])}")
        for pair in result["differences"]:
            print(f"  {pair['second'] + ' − ' + pair['first']:<24} {in_words(pair[kind])}")
    print(f"\n{tournament.profile.caveat}")


def in_words(numbers: Mapping[str, Any]) -> str:
    """One estimate, as `as_json` gives it, on one line."""
    if numbers["ci"] is None:
        why = "one repeat" if numbers["sd"] is None else "the same in every repeat"
        return f"{numbers['gain']:+.2f} ({why}: no interval)"
    low, high = numbers["ci"]
    interval = f"{numbers['confidence'] * 100:g} % interval {low:+.2f} … {high:+.2f}"
    return f"{numbers['gain']:+.2f} ({interval}, SD {numbers['sd']:.2f}): {numbers['resolved']}"
