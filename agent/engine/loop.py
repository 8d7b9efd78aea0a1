"""The loop: ask the proposer, carry out its call, tell it the reply; until a submission or a limit (calls, time).

With `parallel` K up to K tests are in flight. A candidate is asked for after exactly those tests were told that came K
or more before it, whatever has finished meanwhile. So the log does not depend on how long anything takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from agent.clock import Clock
from agent.engine.toolbox import Toolbox
from agent.protocol import Observation, Proposer, ProposerEnd, ToolCall
from agent.runs.events import TimeUp
from agent.runs.log import EventLog
from benchmark.executors import InfrastructureError
from sandbox.isolate import IsolationCrashed

EndStatus = Literal[
    "submitted", "tests_exhausted", "steps", "time", "cost", "format", "api", "infra", "waiting_for_review"
]
"""All are values of `RunStatus`. After `waiting_for_review` a person continues the run by `agent submit`."""


@dataclass(frozen=True)
class End:
    """How the loop ended: the status, and a message for people."""

    status: EndStatus
    message: str


def run_loop(
    proposer: Proposer,
    tools: Toolbox,
    clock: Clock,
    log: EventLog,
    *,
    max_steps: int,
    max_seconds: float | None = None,
    parallel: int = 1,
) -> End:
    """Run `proposer` until it submits, has nothing more to propose, or reaches a limit. Then submit the best test.

    Failures of our own machinery end the loop without a submission, because the results may be wrong. Without a
    baseline there is no loop: then they are raised.
    """
    refusals: list[str] = []
    try:
        end = _run(proposer, tools, clock, log, max_steps, max_seconds, parallel, refusals)
        tools.finish_baseline()
        while tools.in_flight:  # they are paid for
            _note(refusals, *tools.settle())
    except (InfrastructureError, IsolationCrashed) as error:
        if tools.baseline_failed:
            raise
        return End("infra", f"Our own machinery failed: {error}")
    return end if end.status == "submitted" else submit_best(end, tools, refusals)


def submit_best(end: End, tools: Toolbox, refusals: Sequence[str]) -> End:
    """Submit the best test after `end`, which came without a submission. `refusals`: sentences, for the message."""
    try:
        submitted = _submit_best(tools)
    except (InfrastructureError, IsolationCrashed) as error:
        return End("infra", f"Our own machinery failed: {error}")
    if submitted is None:
        last = f" The last refusal: {refusals[-1]}" if refusals else ""
        none = "No test succeeded with all its seeds, so there is nothing to submit."
        return End(end.status, f"{end.message} {none}{last}")
    return End(end.status, f"{end.message} The best test, #{submitted}, was submitted for it.")


def _submit_best(tools: Toolbox) -> int | None:
    """Submit the best test and return its number. If all finalists fail on fresh seeds, the next best are tried."""
    while (best := tools.best()) is not None:
        if (submitted := tools.submit(best, by="harness").submitted) is not None:
            return submitted
    return None


def _run(
    proposer: Proposer,
    tools: Toolbox,
    clock: Clock,
    log: EventLog,
    max_steps: int,
    max_seconds: float | None,
    parallel: int,
    refusals: list[str],
) -> End:
    """See `run_loop`. `refusals` takes in what was refused."""

    def tell(call: ToolCall, observation: Observation) -> None:
        _note(refusals, call, observation)
        with clock.phase("proposer"):
            proposer.tell(call, observation)

    def settle_down_to(most: int) -> None:
        while tools.in_flight > most:
            tell(*tools.settle())

    def ask() -> ToolCall | None:
        if not getattr(proposer, "ignores_baseline", False):
            tools.finish_baseline()
        with clock.phase("proposer"):
            return proposer.ask(tools.situation())

    try:
        for step in range(1, max_steps + 1):
            if max_seconds is not None and _time_is_up(clock, log, max_seconds):
                log.append(TimeUp(max_seconds=max_seconds))
                return End("time", f"The limit of {max_seconds:g} s was reached.")
            while (call := ask()) is None and tools.in_flight:
                settle_down_to(tools.in_flight - 1)
            if call is None:
                return End("tests_exhausted", f"{proposer.name} had nothing more to propose.")
            if call.tool == "submit":
                settle_down_to(0)
                tools.finish_baseline()
            observation = tools.begin(step, call)
            if observation is not None and observation.submitted is not None:
                return submitted_by(proposer.name, call.arguments["n"], observation.submitted)
            if observation is not None:
                tell(call, observation)
            settle_down_to(parallel - 1 if tools.tests_left > 0 else 0)
    except ProposerEnd as end:
        return End(end.status, str(end))
    return End("steps", f"The limit of {max_steps} tool calls was reached.")


def _note(refusals: list[str], call: ToolCall, observation: Observation) -> None:
    """Note what was refused and why, but for submissions: they fail because a test did."""
    if not observation.ok and call.tool != "submit":
        refusals.append(f"{call.tool}: {reason_in(observation.reply)}")


def reason_in(reply: str) -> str:
    """The line of a reply that says what was wrong."""
    wrong = ("ERROR", "FAILED", "[FAILED]")
    found = next((line for line in reply.splitlines() if line.startswith(wrong)), reply.partition("\n")[0])
    return found.removeprefix("ERROR: ")[:400]


def _time_is_up(clock: Clock, log: EventLog, max_seconds: float) -> bool:
    """Whether the time limit is passed. While a tape lasts, the log decides, because the clock started again."""
    if log.replaying:
        return log.recorded("time_up") is not None
    return clock.elapsed > max_seconds


def submitted_by(name: str, nominee: int, submitted: int) -> End:
    """The end of a search whose proposer put test `nominee` forward. `submitted` may be another finalist."""
    if nominee == submitted:
        return End("submitted", f"{name} submitted test #{submitted}.")
    better = f"{name} put test #{nominee} forward; by all seeds #{submitted} was better and was submitted."
    return End("submitted", better)
