"""The seam between a search and what carries out its evaluations: `submit(call) -> Future`.

Calls, questions and answers are picklable. Calls share only what they name, for example a file to write an answer to.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from benchmark.lanes import UNHEARD

Report = Callable[[Any], None]
Ask = Callable[[Any], Any]
OnStart = Callable[[str], None]
Priority = tuple[float, ...]
"""Of the calls that wait, the one with the smallest priority runs first, and of equal ones the one submitted first."""
Answer = TypeVar("Answer", covariant=True)
AnswerT = TypeVar("AnswerT")


class Parent(Protocol):
    """The submitter of a call, as the running call sees it. All arguments and answers are picklable."""

    def report(self, content: Any, /) -> None:
        """Report progress. There is no answer."""
        ...

    def ask(self, question: Any, /) -> Any:
        """Ask the parent and wait for its answer. Raises RuntimeError with a traceback if it has none."""
        ...


class Call(Protocol[Answer]):
    """A picklable piece of work."""

    def __call__(self, parent: Parent, /) -> Answer: ...


class InfrastructureError(RuntimeError):
    """One of our own processes crashed or is stuck. The candidate is not at fault and gets no score."""


class ProcessDied(InfrastructureError):
    """The process of a call ended twice before it answered.

    `status` is its exit status, negative for a signal. None: it lives, and has closed its connection to us.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status

    def how(self) -> str:
        """How the process ended, and what may be the reason, for the author of the code that it ran."""
        if self.status is None or self.status == UNHEARD:
            return "its process closed the connection to this command, as closing all descriptors does"
        if self.status == -signal.SIGKILL:
            return "its process was killed (SIGKILL), most likely because memory ran out"
        if self.status < 0:
            names = {member.value: member.name for member in signal.Signals}
            return f"its process died of {names.get(-self.status, f'signal {-self.status}')}"
        return f"its process ended with exit status {self.status} before the function returned (os._exit, or a library)"


class TookTooLong(InfrastructureError):
    """A call did not answer within its time."""


class WrongMachine(InfrastructureError):
    """A worker's environment is not the one that the evaluation's key names."""


class EngineError(Exception):
    """An engine cannot be used as asked for. Nothing was trained; the message says what to change."""


class Executor(Protocol):
    """Runs calls and returns their answers in futures."""

    slots: int
    """How many calls run at a time."""
    remote: bool
    """Whether calls run on other machines, so that the place of each is worth recording."""

    def submit(
        self,
        call: Call[AnswerT],
        *,
        timeout: float | None = None,
        on_report: Report | None = None,
        on_ask: Ask | None = None,
        on_start: OnStart | None = None,
        priority: Priority = (),
    ) -> Future[AnswerT]:
        """Queue a call. The future raises ProcessDied if its process died twice, and TookTooLong after `timeout` s.

        `on_report` and `on_ask` handle the call's reports and questions. Time spent in `on_ask` does not count.
        `on_start` gets the place each time the call begins to run: a second time if its first process died.
        All three may be called in another thread.
        """
        ...

    def close(self) -> None:
        """Stop immediately, running calls included."""
        ...


def prepared(call: Call[AnswerT], on_ask: Ask | None) -> Call[AnswerT]:
    """The call with the answers to its questions inside, for an engine whose workers cannot ask.

    A call that asks has a method `prepared(ask)`, which returns such a call.
    """
    prepare: Callable[[Ask], Call[AnswerT]] | None = getattr(call, "prepared", None)
    return call if prepare is None or on_ask is None else prepare(on_ask)
