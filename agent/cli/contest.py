"""`agent compare --proposers`: the same search by several proposers, repeated, with intervals."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.cli.output import print_json
from agent.config import load_config
from agent.errors import AgentError, Interrupted
from agent.progress import make_progress
from agent.studies.tournament import Contest, Gains, Repeat, differences, estimate, overall
from benchmark.data import DataError
from benchmark.executor import InfrastructureError

_AGAIN = "what was done is kept; the same command goes on from here"


def run_contest(
    flags: Mapping[str, Any], *, proposers: str, repeats: int, fresh: int, toml: Path | None, as_json: bool
) -> int:
    """Run what is missing of a contest and print what it came to. Raises UsageError before anything is run."""
    names = [name.strip() for name in proposers.split(",") if name.strip()]
    contest = Contest(load_config(flags, toml=toml), names, repeats, fresh)
    if as_json:
        print_json({"event": "launch", **_frame(contest)})
    done: list[Repeat] = []
    measured: dict[str, list[Gains]] = {}
    try:
        for repeat in contest.run(make_progress):
            done.append(repeat)
            if as_json:
                print_json(repeat.as_json())
        if fresh:
            measured = _measure(contest, done)
    except (Interrupted, KeyboardInterrupt) as stop:
        print(f"stopped; {_AGAIN}", file=sys.stderr)
        raise stop if isinstance(stop, Interrupted) else Interrupted(2) from None
    except (InfrastructureError, DataError) as error:
        raise AgentError(f"{error}\n{_AGAIN}") from None
    result = _result(contest, done, measured)
    if as_json:
        print_json(result)
    else:
        _print(contest, result)
    print(f"next: agent runs --runs {contest.config.runs}", file=sys.stderr)
    return 0


def _measure(contest: Contest, done: Sequence[Repeat]) -> dict[str, list[Gains]]:
    progress = make_progress()
    try:
        progress.message(f"the winners and the baseline again, with {contest.fresh} fresh seeds for each repeat")
        return contest.measure_fresh(done, progress)
    finally:
        progress.close()


def _frame(contest: Contest) -> dict[str, Any]:
    return {
        "runs": str(contest.config.runs),
        "profile": contest.profile.name,
        "budget": contest.config.budget,
        "seeds": contest.config.seeds,
        "proposers": list(contest.proposers),
        "repeats": contest.repeats,
        "fresh": contest.fresh,
        "caveat": contest.profile.caveat,
    }


def _result(contest: Contest, done: Sequence[Repeat], measured: Mapping[str, Sequence[Gains]]) -> dict[str, Any]:
    """The last JSON object: for each proposer and kind of gain the estimate, then the differences to the first."""
    by_name = {name: [one for one in done if one.proposer == name] for name in contest.proposers}
    gains: dict[str, Mapping[str, Sequence[Gains]]] = {
        "visible": {name: [one.visible for one in repeats] for name, repeats in by_name.items()},
        "hidden": {name: [one.hidden for one in repeats] for name, repeats in by_name.items()},
    }
    if measured:
        gains["fresh"] = measured
    first, *others = contest.proposers
    level = 1 - 0.05 / max(1, len(others))
    return {
        "event": "done",
        **_frame(contest),
        "results": {
            name: {
                "tests_used": sum(one.tests_used for one in repeats),
                "submitted": sum(one.submitted is not None for one in repeats),
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
    tasks = {task: estimate([one[task] for one in gains]).as_json() for task in gains[0]}
    return {**overall(gains).as_json(), "tasks": tasks}


_WORDS = {
    "visible": "visible tasks, as the searches saw them (the choice was made on these numbers: they flatter)",
    "hidden": "hidden task",
    "fresh": "visible tasks, the winners again on fresh seeds",
}


def _print(contest: Contest, result: Mapping[str, Any]) -> None:
    print(
        f"{contest.repeats} repeats, budget {contest.config.budget}, seeds {contest.config.seeds}, profile "
        f"{contest.profile.name}; gains over the baseline in points"
    )
    for name, of_name in result["results"].items():
        note = f"{of_name['tests_used']} tests in all"
        if missing := contest.repeats - of_name["submitted"]:
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
    print(f"\n{contest.profile.caveat}")


def in_words(numbers: Mapping[str, Any]) -> str:
    """One estimate, as `as_json` gives it, on one line."""
    if numbers["ci"] is None:
        why = "one repeat" if numbers["sd"] is None else "the same in every repeat"
        return f"{numbers['gain']:+.2f} ({why}: no interval)"
    low, high = numbers["ci"]
    interval = f"{numbers['confidence'] * 100:g} % interval {low:+.2f} … {high:+.2f}"
    return f"{numbers['gain']:+.2f} ({interval}, SD {numbers['sd']:.2f}): {numbers['resolved']}"
