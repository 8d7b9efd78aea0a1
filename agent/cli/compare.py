"""`agent compare`: several runs beside each other."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from agent.analysis import generalisation
from agent.cli.output import print_json
from agent.errors import RunDamaged, UsageError
from agent.report.comparison_page import MAX_RUNS, Member, Pair, comparability, comparison_page, members, pairs
from agent.runs.directory import RunDirectory
from agent.safe_text import spelt
from benchmark.files import write_atomically


def run_compare(names: Sequence[str], runs: Path, output: Path | None, *, as_json: bool) -> int:
    """Compare every later run with the first, and write the page. Raises UsageError, RunDamaged."""
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
        return 0
    _print(found)
    print(path)
    print(f"next: open {path}, or agent review {found[-1].record.name}", file=sys.stderr)
    return 0


def _readable(directories: Sequence[RunDirectory]) -> list[RunDirectory]:
    """The runs that can be read; each other one is named on stderr. Raises RunDamaged when fewer than two are left."""
    good = []
    for directory in directories:
        try:
            directory.read_raw_summary()
        except RunDamaged as error:
            print(spelt(f"left out: {error}"), file=sys.stderr)
        else:
            good.append(directory)
    if len(good) < 2:
        raise RunDamaged("fewer than two of these runs can be read; `agent runs` lists others")
    return good


def _print(found: Sequence[Member]) -> None:
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


def _gains(found: Sequence[Member]) -> list[generalisation.RunGains]:
    return [
        generalisation.RunGains(
            run.letter,
            run.record.profile,
            generalisation.carry_over(run.findings.visible, run.findings.hidden),
            null=run.record.summary.get("null") is True,
        )
        for run in found
    ]


def _as_json(pair: Pair) -> dict[str, object]:
    one = pair.comparison
    numbers = None if one is None else {"gain": one.gain, "ci": list(one.ci), "resolved": one.resolved}
    return {
        "kind": pair.kind,
        "task": pair.task,
        "first": pair.first,
        "second": pair.second,
        "seeds": list(pair.seeds),
        "comparison": numbers,
        "words": pair.words,
    }
