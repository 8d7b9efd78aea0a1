"""Prints how a search begins and ends, for `agent search`, `agent submit` and sessions."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Any

from agent.cli.output import print_json, print_next, run_words

if TYPE_CHECKING:
    from agent.engine.outcome import SearchOutcome

NOTHING_SUBMITTED = 4
"""The exit code of a search whose budget is spent without a test that could be submitted."""


def print_launch(launch: dict[str, Any], *, as_json: bool) -> None:
    """The first line of --json, or the run's path on stderr."""
    if as_json:
        print_json(launch)
    else:
        print(f"run {launch['run']}", file=sys.stderr)


def print_outcome(outcome: SearchOutcome, *, as_json: bool) -> None:
    """The last line of --json, or the verdict in sentences."""
    if as_json:
        print_json(outcome.done)
    else:
        print("\n".join(outcome.words), flush=True)


def print_following(outcome: SearchOutcome, proposer: str) -> None:
    """Name the next command: after a script whose test was refused, the one that says more about it."""
    from agent.runs.status import RunStatus

    name, _, file = proposer.partition(":")
    if outcome.exit_code == NOTHING_SUBMITTED and name == "scripted" and file not in ("", "demo"):
        print_next(f"correct {file}, then agent check {shlex.quote(file)}")
        return
    following = "review" if RunStatus.of(outcome.done).waiting else "show"
    print_next(f"agent {following} {run_words(outcome.run)}")
