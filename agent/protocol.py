"""The types that loop, tools and proposers exchange. A proposer gets nothing else: no files, no processes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from benchmark.noise import TaskNoise
from benchmark.results import EvaluationResult

if TYPE_CHECKING:
    from sandbox.region import Scaffold

Accuracies = Mapping[str, Mapping[int, float | None]]
"""Task name → seed → best test accuracy in percent, or None where the candidate failed."""


@dataclass(frozen=True)
class ToolCall:
    """One call of a tool: edit, undo, view, rewrite, screen, test or submit."""

    tool: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TestOutcome:
    """The result of a test. It is `failed` when the candidate failed on any task with any seed."""

    __test__ = False  # not a pytest class

    number: int
    accuracies: Accuracies
    region_sha256: str
    lower_is_better: frozenset[str] = frozenset()
    """Tasks whose metric is minimised."""
    units: Mapping[str, float] = field(default_factory=dict)
    """Task → what its score is divided by, so that tasks with different metrics can be averaged; {}: one metric."""

    @property
    def failed(self) -> bool:
        """Whether any accuracy is missing or not finite."""
        values = [value for seeds in self.accuracies.values() for value in seeds.values()]
        return any(value is None or not math.isfinite(value) for value in values)

    @property
    def score(self) -> float:
        """Mean accuracy over tasks and seeds, percent; minus infinity for a failed test, so that it never wins.

        A metric that is minimised counts with the other sign, and different metrics count in `units`.
        """
        if self.failed:
            return float("-inf")
        means = [
            (-1 if task in self.lower_is_better else 1)
            * sum(v for v in seeds.values() if v is not None)
            / len(seeds)
            / self.units.get(task, 1.0)
            for task, seeds in self.accuracies.items()
        ]
        return sum(means) / len(means)


@dataclass(frozen=True)
class CandidateFailure:
    """The candidate's code failed. It gets no score and is not tried again."""

    kind: str
    message: str


Outcome = EvaluationResult | CandidateFailure
"""The result of an evaluation."""


@dataclass(frozen=True)
class Look:
    """The result of screening for one candidate."""

    region: str
    rejected: str | None = None
    """Why it was not trained or failed; None when it has a loss."""
    loss: float | None = None
    """Cross-entropy on held-out training pictures after its longest look, nats, mean over the visible tasks."""
    rung: int = 0
    """Length of that look, as an index into the profile's fidelities."""

    @property
    def rank(self) -> tuple[int, float]:
        """Sort key, smaller is better: first the candidates with longer looks, then the lower loss."""
        return -self.rung, float("inf") if self.loss is None else self.loss


@dataclass(frozen=True)
class Observation:
    """A tool's reply, as text (for a model or a person) and as data (for a proposer that computes)."""

    reply: str
    ok: bool = True
    error: str | None = None
    """Kind of the refusal, such as `syntax` or `budget`; None when `ok`."""
    test: TestOutcome | None = None
    submitted: int | None = None
    looks: tuple[Look, ...] = ()
    """Results of `screen`, in the order of the candidates."""
    best_look: int | None = None
    """Index of the best look; None when all candidates were rejected."""


@dataclass(frozen=True)
class Situation:
    """The state of the search when a proposer is asked."""

    filename: str
    region: str
    editable: tuple[int, int]
    """First and last editable line, 1-based, inclusive; last = first − 1 when the region is empty."""
    tests_left: int
    tests: tuple[TestOutcome, ...]
    baseline: Accuracies
    best: int | None
    """Number of the test with the best shrunk gain so far, which should be submitted; None when no test succeeded."""
    looks_left: int = 0
    """How many new candidates `screen` accepts now; 0 when screening is off or its budget is spent."""
    noise: Mapping[str, TaskNoise] | None = None
    """Task → its noise as the run recorded it; None where nothing was recorded."""
    in_flight: int = 0
    """Tests that are being trained and whose replies come later. `tests_left` does not count them."""

    @classmethod
    def at_start(
        cls,
        filename: str,
        file: Scaffold,
        budget: int,
        baseline: Accuracies | None = None,
        noise: Mapping[str, TaskNoise] | None = None,
    ) -> Situation:
        """Before the first test."""
        editable = file.lines.start, file.lines.end
        return cls(filename, file.region, editable, budget, (), baseline or {}, best=None, noise=noise)


class Proposer(Protocol):
    """Decides the next tool call. The same seed and replies must give the same calls, so that a run can be resumed."""

    name: str

    def ask(self, situation: Situation) -> ToolCall | None:
        """The next call, or None when there is nothing more to do.

        While tests are in flight, None means that the next call depends on their replies.
        """
        ...

    def tell(self, call: ToolCall, observation: Observation) -> None:
        """Receive the reply to the call, which is the object that `ask` returned.

        Replies to tests come in the order in which the tests were asked for, later than those to other calls.
        """
        ...


class ProposerEnd(Exception):
    """A proposer cannot continue: a cost limit, useless answers, a failing server, or the search's time limit."""

    def __init__(self, status: Literal["cost", "format", "api", "time"], message: str) -> None:
        super().__init__(message)
        self.status: Literal["cost", "format", "api", "time"] = status


def replace_region(situation: Situation, region: str) -> ToolCall:
    """The `edit` call that replaces all editable lines by `region`."""
    first, last = situation.editable
    if last < first:
        where: dict[str, Any] = {"op": "insert", "after_line": first - 1}
    else:
        where = {"op": "replace", "start_line": first, "end_line": last}
    return ToolCall("edit", {**where, "filename": situation.filename, "content": region})
