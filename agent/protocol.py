"""What passes between loop, tools and proposers. Proposers see this and nothing else: no files, no processes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from benchmark.results import EvaluationResult

Accuracies = Mapping[str, Mapping[int, float | None]]
"""Task name → seed → best test accuracy in percent, or None where the candidate failed."""


@dataclass(frozen=True)
class ToolCall:
    """One call of a tool: edit, undo, view, rewrite, screen, test or submit."""

    tool: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TestOutcome:
    """What a test measured. It is `failed` when the candidate failed in any task with any seed."""

    __test__ = False  # not a pytest class

    number: int
    accuracies: Accuracies
    region_sha256: str

    @property
    def failed(self) -> bool:
        """Whether any accuracy is missing or no finite number."""
        values = [value for seeds in self.accuracies.values() for value in seeds.values()]
        return any(value is None or not math.isfinite(value) for value in values)

    @property
    def score(self) -> float:
        """Mean accuracy over tasks and seeds, percent; minus infinity for a failed test, so that it never wins."""
        if self.failed:
            return float("-inf")
        means = [sum(v for v in seeds.values() if v is not None) / len(seeds) for seeds in self.accuracies.values()]
        return sum(means) / len(means)


@dataclass(frozen=True)
class CandidateFailure:
    """The candidate's code failed by itself: no score, and no second try."""

    kind: str
    message: str


Outcome = EvaluationResult | CandidateFailure
"""What an evaluation came to."""


@dataclass(frozen=True)
class Look:
    """What screening found out about one candidate."""

    region: str
    rejected: str | None = None
    """Why it is not worth a training; None when it is."""
    loss: float | None = None
    """Cross-entropy on held-out training pictures after its longest look, nats, mean over the visible tasks."""
    rung: int = 0
    """How long that look was: an index into the profile's fidelities."""

    @property
    def rank(self) -> tuple[int, float]:
        """Smaller is better: who got further, then who has the lower loss."""
        return -self.rung, float("inf") if self.loss is None else self.loss


@dataclass(frozen=True)
class Observation:
    """A tool's answer: text for whoever reads, and the same as data for whoever computes."""

    reply: str
    ok: bool = True
    error: str | None = None
    """What kind of refusal it was, such as `syntax` or `budget`; None when `ok`."""
    test: TestOutcome | None = None
    submitted: int | None = None
    looks: tuple[Look, ...] = ()
    """What `screen` saw, in the order of the candidates."""
    best_look: int | None = None
    """The index of the best of them; None when all were rejected."""


@dataclass(frozen=True)
class Situation:
    """Where the search stands when a proposer is asked."""

    filename: str
    region: str
    editable: tuple[int, int]
    """First and last editable line, 1-based, inclusive; last = first − 1 when the region is empty."""
    tests_left: int
    tests: tuple[TestOutcome, ...]
    baseline: Accuracies
    best: int | None
    """The test with the best shrunk gain so far, which is the one to submit; None when none succeeded."""
    looks_left: int = 0
    """New candidates that `screen` may now be given; 0 when screening is off or its share is spent."""


class Proposer(Protocol):
    """Decides the next tool call. Deterministic for its seed and what it was told, so that a run can be resumed."""

    name: str

    def ask(self, situation: Situation) -> ToolCall | None:
        """The next call, or None when there is nothing more to do."""
        ...

    def tell(self, call: ToolCall, observation: Observation) -> None:
        """What came of the call."""
        ...


class ProposerEnd(Exception):
    """A proposer cannot go on: its money, its server, its model's manners or the search's time gave out."""

    def __init__(self, status: Literal["cost", "format", "api", "time"], message: str) -> None:
        super().__init__(message)
        self.status: Literal["cost", "format", "api", "time"] = status


def replace_region(situation: Situation, region: str) -> ToolCall:
    """The `edit` call that puts `region` in place of all editable lines, as a model would write it."""
    first, last = situation.editable
    if last < first:
        where: dict[str, Any] = {"op": "insert", "after_line": first - 1}
    else:
        where = {"op": "replace", "start_line": first, "end_line": last}
    return ToolCall("edit", {**where, "filename": situation.filename, "content": region})
