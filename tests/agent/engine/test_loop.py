"""How the loop ends: a limit on time, what a confirmation says, our own failures; and that a resumed one ends alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

import pytest

from agent.clock import Clock
from agent.engine.loop import End, run_loop
from agent.engine.toolbox import Toolbox
from agent.proposers.null import NullProposer
from agent.proposers.optuna_search import OptunaProposer
from agent.proposers.scripted import ScriptedProposer
from agent.protocol import Observation, Proposer, ToolCall
from agent.runs.log import EventLog
from agent.spaces.base import BuiltIn
from benchmark.executors import InfrastructureError
from tests.agent.llm_servers import GOOD, Bench, bench


class Late(Clock):
    """Has passed any limit after so many looks at it."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self._looks = looks

    @property
    def elapsed(self) -> float:
        self._looks -= 1
        return 0.0 if self._looks >= 0 else 1e6


def run(proposer: Proposer, on: Bench, clock: Clock, max_seconds: float | None = None) -> End:
    return run_loop(proposer, cast(Toolbox, on), clock, on.log, max_steps=100, max_seconds=max_seconds)


def optuna(log: EventLog, folder: Path) -> Proposer:
    return OptunaProposer("optuna", seed=1, space=BuiltIn(["resnet20"]), log=log, journal=folder / "study")


def chance(log: EventLog, folder: Path) -> Proposer:
    return OptunaProposer("random", seed=1, space=BuiltIn(["resnet20"]), log=log, journal=folder / "study")


def null(log: EventLog, folder: Path) -> Proposer:
    return NullProposer()


def scripted(log: EventLog, folder: Path) -> Proposer:
    regions = [GOOD.format(gain=gain) for gain in (0.5, 1.0, 2.0)]
    written = [ToolCall("rewrite", {"content": region}) for region in regions]
    return ScriptedProposer([call for one in written for call in (one, ToolCall("test"))])


@pytest.mark.parametrize("make", [optuna, chance, null, scripted])
@pytest.mark.parametrize("cut", [0, 1, 2])
def test_a_search_that_ran_out_of_time_resumes_to_the_same_end(
    make: Callable[[EventLog, Path], Proposer], cut: int, tmp_path: Path
) -> None:
    """`--max-seconds` ended a search that then waited, or was killed: resuming said that the log had been edited.

    The clock begins anew, so the proposer was asked for more. Now the log says that time was up.
    """
    with bench(tmp_path) as on:
        first = run(make(on.log, tmp_path), on, Late(4), max_seconds=60)
        kinds = [record.event.kind for record in on.log.records]
    assert first == End("time", "The limit of 60 s was reached. The best test, #2, was submitted for it.")
    assert kinds[-2:] == ["time_up", "submitted"]
    log = tmp_path / "events.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[: len(lines) - cut]))
    with bench(tmp_path) as on:
        again = run(make(on.log, tmp_path), on, Late(0 if cut == 2 else 1000), max_seconds=60)
        assert again == first
        assert [record.event.kind for record in on.log.records] == kinds


def test_a_limit_that_was_not_reached_is_none_on_the_tape(tmp_path: Path) -> None:
    """Resumed on a machine where reading the tape takes longer than the limit: what was recorded is still all done."""
    with bench(tmp_path) as on:
        first = run(scripted(on.log, tmp_path), on, Clock())
    with bench(tmp_path) as on:
        assert run(scripted(on.log, tmp_path), on, Late(0), max_seconds=60) == first


def ended(on: Bench, proposer: Proposer) -> End:
    try:
        return run(proposer, on, Clock())
    finally:
        on.workspace.close()
        on.log.close()


class Broken(Bench):
    def submit(self, number: object, *, by: Literal["proposer", "harness"]) -> Observation:
        raise InfrastructureError("no more processes")


def test_our_failure_in_the_last_confirmation_is_infra(tmp_path: Path) -> None:
    """A process that broke while the harness confirmed the finalists left the run `failed`, without its last line."""
    end = ended(Broken(tmp_path, budget=3), scripted(cast(EventLog, None), tmp_path))
    assert end == End("infra", "Our own machinery failed: no more processes")


class Confirming(Bench):
    """Submits what it finds better, and refuses some."""

    refused: tuple[int, ...] = ()
    instead: int | None = None

    def submit(self, number: object, *, by: Literal["proposer", "harness"]) -> Observation:
        if number in self.refused:
            self.tests = [test for test in self.tests if test.number not in self.refused]
            return Observation("ERROR: failed on a fresh seed", ok=False, error="failed_test")
        return super().submit(self.instead or number, by=by)


def confirming(folder: Path, proposer: Proposer, **settings: Any) -> End:
    on = Confirming(folder, budget=3)
    for name, value in settings.items():
        setattr(on, name, value)
    return ended(on, proposer)


def test_the_message_names_what_was_submitted(tmp_path: Path) -> None:
    """Confirmation chose another test than the one put forward, and the end said otherwise."""
    calls = [ToolCall("test"), ToolCall("submit", {"n": 1})]
    told = confirming(tmp_path / "other", ScriptedProposer(calls), instead=1)
    assert told == End("submitted", "scripted submitted test #1.")
    script = [
        ToolCall("rewrite", {"content": GOOD.format(gain=0.5)}),
        ToolCall("test"),
        ToolCall("rewrite", {"content": GOOD.format(gain=2.0)}),
        ToolCall("test"),
    ]
    forward = ScriptedProposer([*script, ToolCall("submit", {"n": 2})])
    told = confirming(tmp_path / "forward", forward, instead=1)
    assert told.message == "scripted put test #2 forward; by all seeds #1 was better and was submitted."
    told = confirming(tmp_path / "harness", ScriptedProposer(script), instead=1)
    assert told.message.endswith("The best test, #1, was submitted for it.")


def test_the_next_best_is_tried_when_finalists_fail(tmp_path: Path) -> None:
    """The harness's own submission was refused, and the run said that it had been made."""
    told = confirming(tmp_path / "next", scripted(cast(EventLog, None), tmp_path), refused=(3,))
    assert told.message.endswith("The best test, #2, was submitted for it.")
    told = confirming(tmp_path / "none", scripted(cast(EventLog, None), tmp_path), refused=(1, 2, 3))
    assert told.message.endswith("No test succeeded with all its seeds, so there is nothing to submit.")


class Strict(Bench):
    def _test(self) -> Observation:
        return Observation(
            "ERROR: Test refused, nothing was spent: line 3: no [isolation]", ok=False, error="isolation"
        )


def test_the_end_says_why_the_last_candidate_was_refused(tmp_path: Path) -> None:
    """A refused candidate ended as "scripted had nothing more to propose"; the reason stood in events.jsonl only."""
    calls = [ToolCall("test"), ToolCall("submit", {"n": 1})]
    told = ended(Strict(tmp_path, budget=3), ScriptedProposer(calls))
    assert told.message == (
        "scripted had nothing more to propose. No test succeeded with all its seeds, so there is nothing to submit. "
        "The last refusal: test: Test refused, nothing was spent: line 3: no [isolation]"
    )
