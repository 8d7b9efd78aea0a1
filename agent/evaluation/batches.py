"""Evaluations that are begun together: the candidates, their outcomes, and what those say of the baseline."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from agent.errors import UsageError
from agent.evaluation.calls import EvaluationCall, job_for
from agent.evaluation.check import CheckReport
from agent.protocol import Accuracies, CandidateFailure, Outcome
from benchmark.executors import InfrastructureError
from benchmark.results import EvaluationResult
from benchmark.store import LayeredStore
from benchmark.task import Task
from sandbox.isolate import Job


@dataclass(frozen=True)
class Candidate:
    """A region to evaluate, and its role: `baseline`, `test/1`, `hidden/submission`, …"""

    role: str
    region: str


def jobs_for(tasks: Sequence[Task], region: str, seed: int) -> dict[str, Job]:
    """The initialisations that a check of `region` makes: architecture, or task where two have one's name → job."""
    jobs: dict[str, Job] = {}
    for task in tasks:
        job = job_for(task, region, seed)
        if jobs.get(task.arch, job) == job:
            jobs[task.arch] = job
        else:
            jobs[task.name] = job
    return jobs


Outcomes = dict[tuple[str, str, int], Outcome]
"""(role, task name, seed) → result or failure."""


@dataclass
class Batch:
    """Evaluations that were begun together. `Evaluations.finish` has their outcomes, in the order of `jobs`."""

    jobs: list[tuple[str, EvaluationCall]]
    """(role, call)."""
    results: LayeredStore
    known: dict[int, Outcome] = field(default_factory=dict)
    """Index of a job → its outcome, for those that were in the store."""
    running: dict[int, Future[Outcome]] = field(default_factory=dict)
    """Index of a job → its outcome, for those that are trained. It is stored before the future has it."""
    failed: Future[Outcome] = field(default_factory=Future)
    """Raises what the first of them raised because our own machinery failed."""
    waiting: list[Future[Outcome]] = field(default_factory=list)
    """The executor's own futures, to cancel them."""
    places: dict[int, list[str]] = field(default_factory=dict)
    """Index of a job → where it began to run, once for each attempt."""

    def cancel(self) -> None:
        """Do not begin those that wait."""
        for future in self.waiting:
            future.cancel()


_OF_THE_TASK = frozenset({"trainer", "network", "not_finite"})
"""Kinds of failures that a task's own network or trainer is to blame for, if our own baseline fails."""


def require_baseline(outcomes: Outcomes, role: str) -> None:
    """Raise InfrastructureError when the baseline failed with any task and seed. `role` is the baseline's role.

    The baseline is our own code, so its failure is not a candidate's fault. Raises UsageError if it is the task's.
    """
    failed = {
        f"{task} with seed {seed}": outcome
        for (of_role, task, seed), outcome in outcomes.items()
        if of_role == role and isinstance(outcome, CandidateFailure)
    }
    failures = [f"{where}: {outcome.kind}: {outcome.message}" for where, outcome in failed.items()]
    if failed and all(outcome.kind == "unset_parameter" for outcome in failed.values()):
        raise InfrastructureError(
            f"the baseline does not set every parameter of the network: on {'; on '.join(failures)}. It sets the "
            "parameters of Conv2d, Linear and normalisation layers, and the machine is not to blame: leave parameters "
            "of other kinds out of the network, or make them part of such a layer"
        )
    if failed and all(outcome.kind in _OF_THE_TASK for outcome in failed.values()):
        raise UsageError(
            f"the baseline has no score, so nothing can be compared: on {'; on '.join(failures)}; mend it, and look "
            "with agent task check"
        )
    if failures:
        raise InfrastructureError(
            f"the baseline itself failed on {'; on '.join(failures)}. Nothing can be compared without it, and no "
            "candidate is to blame; agent doctor looks at this machine"
        )


def accuracies_of(outcomes: Outcomes, role: str) -> dict[str, dict[int, float | None]]:
    """The best test accuracies of one role: task → seed → percent, None for a failure."""
    accuracies: dict[str, dict[int, float | None]] = {}
    for (of_role, task, seed), outcome in outcomes.items():
        if of_role == role:
            value = outcome.value if isinstance(outcome, EvaluationResult) else None
            accuracies.setdefault(task, {})[seed] = value
    return accuracies


class Evaluations(ABC):
    """What a search asks for: checks of regions, and their accuracies."""

    @abstractmethod
    def check(self, region: str, tasks: Sequence[Task], seed: int) -> CheckReport:
        """Check the region on the networks of these tasks, without training. Raises IsolationCrashed."""

    @abstractmethod
    def begin(
        self,
        candidates: Sequence[Candidate],
        tasks: Sequence[Task],
        seeds: Sequence[int],
        *,
        results: LayeredStore,
        first: bool = False,
    ) -> Batch:
        """Begin to evaluate, and do not wait. Several batches may be under way; `first`: before all that wait.

        Nothing is recorded before `finish`.
        """

    @abstractmethod
    def finish(self, batch: Batch) -> Outcomes:
        """Wait for the outcomes of a batch and record them in its order. Raises InfrastructureError."""

    @abstractmethod
    def signal_faults(self, region: str, tasks: Sequence[Task], seed: int) -> list[tuple[str, str]]:
        """(task, sentence) for each fault at step 0 that keeps `region` from learning; see `SignalCall`."""

    def evaluate(
        self,
        candidates: Sequence[Candidate],
        tasks: Sequence[Task],
        seeds: Sequence[int],
        *,
        results: LayeredStore,
    ) -> Outcomes:
        """Evaluate every candidate on every task with every seed. Results are read from and written to `results`.

        Raises InfrastructureError when our own machinery failed. A candidate's failure is an outcome.
        """
        return self.finish(self.begin(candidates, tasks, seeds, results=results))

    def measure(
        self,
        baseline: Candidate,
        candidates: Sequence[Candidate],
        tasks: Sequence[Task],
        seeds: Sequence[int],
        *,
        results: LayeredStore,
    ) -> dict[str, Accuracies]:
        """Evaluate the baseline and the candidates: role → accuracies. See `evaluate`.

        Also raises InfrastructureError when the baseline failed.
        """
        sides = [baseline, *candidates]
        outcomes = self.evaluate(sides, tasks, seeds, results=results)
        require_baseline(outcomes, baseline.role)
        return {side.role: accuracies_of(outcomes, side.role) for side in sides}
