"""Replies to test and submit, as far as they follow from the calls: the budget line and the refusals.

The public harness changed its tools and wording several times. The oldest prints no budget line and submits by
`test(is_final=…, use_last=…)`, the next by `test(submit=N)`, whose reply has no line of its own, the newest by
`submit`. Which wording a segment uses is read off its replies; whether a call is refused, and what is counted, is
worked out here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from agent.transcripts.model import RecordedCall, Segment, Transcript
from sandbox.editing import Dialect

DEFAULT_BUDGET = 3

_BUDGET_LINE = re.compile(r"^\[Test #(\d{1,6})\] \((\d{1,6}) tests? remaining(?:; (.*))?\)$")
_BY_TEST = ("call test(submit=", "auto-submitted as final")
_SHORT_WORDING = "No test results yet. Run test() at least once first."


@dataclass(frozen=True)
class PredictedReply:
    """The part of the reply that follows from the calls. `whole` is false when measured numbers follow it."""

    text: str
    whole: bool


@dataclass
class TestBook:
    """Counts tests and remembers a submission, within one segment."""

    __test__ = False  # not a pytest class

    budget: int
    names_any_test: bool
    """Whether the hint in the budget line is the newer one, which lets any test be chosen."""
    by_test: bool = False
    """Whether tests are submitted by `test(submit=N)` and the last one by itself, as the middle dialect says."""
    short_wording: bool = False
    """Whether `test(submit=N)` without a result is refused in the words of the newer `submit` tool."""
    ours: bool = False
    """Whether our own tools replied, which word two refusals in their own way."""
    used: int = 0
    unanswered: int = 0
    """How many of the counted tests have no recorded reply, so that nobody knows if they were carried out."""

    def answer(self, call: RecordedCall) -> PredictedReply:
        """Our reply to a test or submit call; counts the test."""
        chosen = submission(call)
        if chosen is None:
            return self._test()
        return self._submit(chosen, by_test=call.tool == "test")

    def settle(self, recorded: str) -> None:
        """Let the next recorded budget line say how many of the unanswered tests were carried out."""
        line = _BUDGET_LINE.match(first_line(recorded))
        if line is not None:
            if self.used - self.unanswered < int(line[1]) <= self.used:
                self.used = int(line[1]) - 1
            self.unanswered = 0

    def correct(self, recorded: str) -> None:
        """Take the count from a recorded budget line."""
        if line := _BUDGET_LINE.match(first_line(recorded)):
            self.used = int(line[1])

    def _test(self) -> PredictedReply:
        if self.used >= self.budget:
            used = f"{self.used}/{self.budget}"
            choose = "choose a test result." if self.ours else "choose which test result to submit as final."
            return PredictedReply(
                f"ERROR: Test budget exhausted ({used}). You MUST call submit(n=N) to {choose}", whole=True
            )
        self.used += 1
        left = self.budget - self.used
        hint = ""
        if self.by_test:
            hint = f"; call test(submit={self.used}) to submit this result" if left else "; auto-submitted as final"
        elif left:
            choice = (
                "n=N) to choose which test result to submit as final"
                if self.names_any_test
                else (f"n={self.used}) to submit this result")
            )
            hint = f"; call submit({choice}"
        return PredictedReply(
            f"[Test #{self.used}] ({left} {'test' if left == 1 else 'tests'} remaining{hint})", whole=False
        )

    def _submit(self, chosen: object, *, by_test: bool) -> PredictedReply:
        long = by_test and not self.short_wording
        zero = by_test and chosen == 0 and not isinstance(chosen, bool)
        if zero and (long or self.used):
            return PredictedReply(
                "ERROR: submit=0 is invalid. To run a new experiment, call test() with NO arguments (omit the submit "
                "parameter entirely). To submit a previous result, use submit=N where N >= 1.",
                whole=True,
            )
        if self.used == 0:
            if long:
                return PredictedReply(
                    "ERROR: No test results yet. You must call test() with NO arguments first to run an experiment. "
                    "Only after that can you use test(submit=N) to submit a result.",
                    whole=True,
                )
            return PredictedReply(f"ERROR: {_SHORT_WORDING}", whole=True)
        if chosen is LAST:
            chosen = self.used
        if isinstance(chosen, bool) or not isinstance(chosen, int) or not 1 <= chosen <= self.used:
            known = ", ".join(map(str, range(1, self.used + 1))) if self.ours else str(self.used)
            return PredictedReply(f"ERROR: There is no test #{chosen}; tests so far: {known}.", whole=True)
        return PredictedReply(f"[submit] Submitting result from test #{chosen} as final.", whole=False)


LAST = object()
"""What the oldest dialect submits: the latest test."""


def submission(call: RecordedCall) -> object:
    """What a call submits: a test's number as the model wrote it, LAST, or None when the call runs a new test."""
    if call.tool == "submit":
        return call.arguments.get("n", call.arguments.get("submit", LAST))
    if call.arguments.get("submit") is not None:
        return call.arguments["submit"]
    if call.arguments.get("use_last") is True:
        return LAST
    return None


def open_book(transcript: Transcript, segment: Segment) -> TestBook:
    """A book for one segment, with the budget and the wording that it shows, or else the whole conversation."""
    lines = [*_budget_lines(segment), *(line for other in transcript.segments for line in _budget_lines(other))]
    budget = transcript.budget
    if budget is None:
        budget = next((int(line[1]) + int(line[2]) for line in lines), DEFAULT_BUDGET)
    hints = [line[3] for line in lines if line[3]]
    short = any(call.recorded is not None and _SHORT_WORDING in call.recorded for call in segment.calls)
    return TestBook(
        budget,
        names_any_test=not hints or "choose" in hints[0],
        by_test=bool(hints) and hints[0].startswith(_BY_TEST),
        short_wording=short,
        ours=transcript.dialect is Dialect.OURS,
    )


def is_budget_line(text: str) -> bool:
    """Whether a reply's first line counts tests."""
    return _BUDGET_LINE.match(text) is not None


def first_line(text: str) -> str:
    """The first line, without the newline."""
    return text.split("\n", 1)[0]


def _budget_lines(segment: Segment) -> Iterator[re.Match[str]]:
    for call in segment.calls:
        if call.tool == "test" and call.recorded and (line := _BUDGET_LINE.match(first_line(call.recorded))):
            yield line
