"""`agent compare --proposers`: several proposers on the same search."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.analysis.cells import need_units
from agent.cli.output import print_json, print_next
from agent.cli.search import confirm_server
from agent.errors import AgentError, Interrupted
from agent.safe_text import spelt
from benchmark.comparison import signed
from benchmark.task import ACCURACY, SEED_SD, Metric, common_metric

if TYPE_CHECKING:
    from agent.studies.tournament import Gains, Repeat, Tournament

_AGAIN = "finished searches are kept; the same command continues"


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
    from agent.cli.live_table import make_progress
    from agent.config import parse_settings, read_config
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
    from agent.cli.live_table import make_progress

    with closing(make_progress()) as progress:
        progress.message(f"the winners and the baseline again, with {tournament.fresh} fresh seeds for each repeat")
        return tournament.measure_fresh(done, progress)


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
    by_name = {name: [repeat for repeat in done if repeat.proposer == name] for name in tournament.proposers}
    gains: dict[str, Mapping[str, Sequence[Gains]]] = {
        "visible": {name: [repeat.visible for repeat in repeats] for name, repeats in by_name.items()},
        "hidden": {name: [repeat.hidden for repeat in repeats] for name, repeats in by_name.items()},
    }
    if not tournament.profile.hidden:  # a task file need not have a hidden task
        del gains["hidden"]
    if measured:
        gains["fresh"] = measured
    metrics = tournament.profile.metrics
    first, *others = tournament.proposers
    level = 1 - 0.05 / max(1, len(others))
    return {
        "event": "done",
        **_frame(tournament),
        "results": {
            name: {
                "tests_used": sum(repeat.tests_used for repeat in repeats),
                "submitted": sum(repeat.submitted is not None for repeat in repeats),
                **{kind: _with_tasks(of_kind[name], metrics) for kind, of_kind in gains.items()},
            }
            for name, repeats in by_name.items()
        },
        "differences": [
            {
                "first": first,
                "second": other,
                **{
                    kind: _difference(of_kind[first], of_kind[other], level, metrics) for kind, of_kind in gains.items()
                },
            }
            for other in others
        ],
    }


def _with_tasks(gains: Sequence[Gains], metrics: Mapping[str, Metric]) -> dict[str, Any]:
    from agent.analysis.estimate import estimate
    from agent.studies.tournament import overall

    tasks = {
        task: {**estimate([gain[task] for gain in gains]).as_json(), **metrics[task].as_json()} for task in gains[0]
    }
    return {**overall(gains, metrics).as_json(), "tasks": tasks}


def _difference(
    first: Sequence[Gains], other: Sequence[Gains], level: float, metrics: Mapping[str, Metric]
) -> dict[str, Any]:
    """The overall difference; task by task where the tasks' metrics differ."""
    from agent.studies.tournament import differences

    found = differences(first, other, level, metrics).as_json()
    if common_metric(metrics[task] for task in first[0]) == SEED_SD:
        tasks = [[{task: gain[task]} for gain in side] for task in first[0] for side in (first, other)]
        pairs = zip(first[0], tasks[::2], tasks[1::2], strict=True)
        found["tasks"] = {task: differences(one, two, level, metrics).as_json() for task, one, two in pairs}
    return found


_WORDS = {
    "visible": "visible tasks, as measured by the searches (too high, because the tests were chosen by these numbers)",
    "hidden": "hidden task",
    "fresh": "visible tasks, winners measured again on fresh seeds",
}


def _print_tournament(tournament: Tournament, result: Mapping[str, Any]) -> None:
    metrics = tournament.profile.metrics
    unit = "in points" if need_units(metrics.values()) is False else "positive when better"
    print(
        f"{tournament.repeats} repeats, budget {tournament.config.budget}, seeds {tournament.config.seeds}, profile "
        f"{tournament.profile.name}; gains over the baseline {unit}"
    )
    for name, of_name in result["results"].items():
        note = f"{of_name['tests_used']} tests in all"
        if missing := tournament.repeats - of_name["submitted"]:
            note += f"; {missing} submitted nothing, which counts as a gain of 0"
        print(f"{name}: {note}")
    for kind, words in _WORDS.items():
        of_kind = {name: of_name[kind] for name, of_name in result["results"].items() if kind in of_name}
        if not of_kind:
            continue
        print(f"\n{words}")
        tasks = next(iter(of_kind.values()))["tasks"]
        common = common_metric(metrics[task] for task in tasks)
        if common != SEED_SD:
            for name, numbers in of_kind.items():
                print(spelt(f"  {name:<24} {in_words(numbers, common)}"))
            for pair in result["differences"]:
                print(spelt(f"  {pair['second'] + ' − ' + pair['first']:<24} {in_words(pair[kind], common)}"))
            continue
        for task in tasks:  # unlike metrics have no mean
            for name, numbers in of_kind.items():
                print(spelt(f"  {name:<24} {task}: {in_words(numbers['tasks'][task], metrics[task])}"))
            for pair in result["differences"]:
                found = pair[kind]["tasks"][task]
                print(spelt(f"  {pair['second'] + ' − ' + pair['first']:<24} {task}: {in_words(found, metrics[task])}"))
    if tournament.profile.caveat:
        print(spelt(f"\n{tournament.profile.caveat}"))


def in_words(numbers: Mapping[str, Any], metric: Metric = ACCURACY) -> str:
    """One estimate, as `as_json` gives it, on one line. Points stand in the heading; another unit is named."""
    unit = "" if metric.is_accuracy else f" {metric.points}"
    if numbers["gain"] is None:
        return f"failed in {numbers['failed']} of {numbers['repeats']} repeats: no mean"

    def shown(value: float) -> str:
        return signed(value, 2) if metric.is_accuracy else metric.text(value, sign=True)

    gain = f"{shown(numbers['gain'])}{unit}"
    if numbers["ci"] is None:
        why = "one repeat" if numbers["sd"] is None else "the same in every repeat"
        return f"{gain} ({why}: no interval)"
    low, high = (shown(bound) for bound in numbers["ci"])
    interval = f"{numbers['confidence'] * 100:g} % interval {low} … {high}"
    return f"{gain} ({interval}, SD {metric.text(numbers['sd'])}): {numbers['resolved']}"
