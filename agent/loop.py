"""The loop: ask the proposer, carry out, tell the proposer, until a typed end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from agent.clock import Clock
from agent.protocol import Proposer
from agent.tools import Toolbox
from benchmark.executor import InfrastructureError
from sandbox.isolate import IsolationCrashed

EndStatus = Literal[
    "submitted", "tests_exhausted", "steps", "time", "cost", "format", "api", "infra", "waiting_for_review"
]
WAITING: Final = "waiting_for_review"
"""A test was chosen, and the hidden task is held back until a person lets it run. No end: the run goes on then."""


class ProposerEnd(Exception):
    """A proposer cannot go on: its money, its server, its model's manners or the search's time gave out."""

    def __init__(self, status: Literal["cost", "format", "api", "time"], message: str) -> None:
        super().__init__(message)
        self.status: Literal["cost", "format", "api", "time"] = status


@dataclass(frozen=True)
class End:
    """How the loop ended, and in words."""

    status: EndStatus
    message: str


def run_loop(
    proposer: Proposer, tools: Toolbox, clock: Clock, *, max_steps: int, max_seconds: float | None = None
) -> End:
    """Let `proposer` work until it submits, gives up or meets a limit; then see to it that the best test is submitted.

    Infrastructure failures end the loop without a submission: nothing may be concluded from what our machine broke.
    """
    end = _run(proposer, tools, clock, max_steps, max_seconds)
    if end.status in ("submitted", "infra"):
        return end
    best = tools.best()
    if best is None:
        return End(end.status, f"{end.message} No test succeeded, so there is nothing to submit.")
    tools.submit(best, by="harness")
    return End(end.status, f"{end.message} The best test, #{best}, was submitted for it.")


def _run(proposer: Proposer, tools: Toolbox, clock: Clock, max_steps: int, max_seconds: float | None) -> End:
    try:
        for step in range(1, max_steps + 1):
            if max_seconds is not None and clock.elapsed > max_seconds:
                return End("time", f"The limit of {max_seconds:g} s was reached.")
            with clock.phase("proposer"):
                call = proposer.ask(tools.situation())
            if call is None:
                return End("tests_exhausted", f"{proposer.name} had nothing more to propose.")
            observation = tools.dispatch(step, call)
            if observation.submitted is not None:
                return End("submitted", f"{proposer.name} submitted test #{observation.submitted}.")
            with clock.phase("proposer"):
                proposer.tell(call, observation)
    except ProposerEnd as end:
        return End(end.status, str(end))
    except (InfrastructureError, IsolationCrashed) as error:
        return End("infra", f"Our own machinery failed: {error}")
    return End("steps", f"The limit of {max_steps} tool calls was reached.")
