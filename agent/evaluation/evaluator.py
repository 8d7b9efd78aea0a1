"""The evaluator: checks regions, looks up stored results, trains the missing ones in parallel, records outcomes."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path

from agent.clock import Clock
from agent.evaluation.calls import EvaluationCall, SignalCall
from agent.evaluation.check import CheckReport, check, difference
from agent.progress import Progress
from agent.protocol import Accuracies, CandidateFailure, Outcome
from agent.runs.log import Evaluated
from benchmark.cost import pictures
from benchmark.data import NUM_CLASSES
from benchmark.executor import Executor, InfrastructureError
from benchmark.results import EvaluationResult
from benchmark.store import LayeredStore
from benchmark.tasks import Task
from sandbox.isolate import Initialised, Isolation, Job
from sandbox.region import scaffold


@dataclass(frozen=True)
class Candidate:
    """A region to evaluate, and its role: `baseline`, `test/1`, `hidden/submission`, …"""

    role: str
    region: str


@dataclass(frozen=True)
class Settings:
    """Settings that all evaluations of a search share."""

    environment: dict[str, str]
    precision: str = "auto"
    data_root: Path | None = None
    checkpoints: Path | None = None
    """The folder for checkpoints of trainings; None: they have none."""


Outcomes = dict[tuple[str, str, int], Outcome]
"""(role, task name, seed) → result or failure."""


def require_baseline(outcomes: Outcomes, role: str) -> None:
    """Raise InfrastructureError when the baseline failed with any task and seed. `role` is the baseline's role.

    The baseline is our own code, so its failure is not a candidate's fault.
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
            value = outcome.best_test_acc if isinstance(outcome, EvaluationResult) else None
            accuracies.setdefault(task, {})[seed] = value
    return accuracies


class Evaluator:
    """Turns candidates into accuracies. The order of recorded outcomes does not depend on which finishes first."""

    def __init__(
        self,
        settings: Settings,
        executor: Executor,
        isolation: Isolation,
        clock: Clock,
        progress: Progress,
        record: Callable[[Evaluated], None] = lambda event: None,
    ) -> None:
        self.settings = settings
        self._executor = executor
        self._isolation = isolation
        self._made: dict[Job, str] = {}
        """Job (with `out` None) → SHA-256 of the parameters that it gave in both interpreters."""
        self._waits: list[float] = []
        """Seconds that calls waited for an initialisation and that are not added to the clock yet."""
        self._seconds: dict[str, float] = {}
        """Task name → seconds that one training of it has taken here."""
        self._note = record
        self._clock = clock
        self._progress = progress

    def check(self, region: str, tasks: Sequence[Task], seed: int) -> CheckReport:
        """Check the region on the networks of these tasks, without training. Raises IsolationCrashed."""
        archs = {task.arch: NUM_CLASSES[task.dataset] for task in tasks}
        with self._clock.phase("isolation"):
            report = check(region, archs, self._isolation, seed=seed)
        if report.accepted:
            self._made |= {Job(region, arch, archs[arch], seed): made["sha256"] for arch, made in report.archs.items()}
        return report

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
        jobs = [
            (candidate.role, self._call(candidate.region, task, seed))
            for seed in seeds  # outermost, so that after an interruption all candidates have the same seeds
            for candidate in candidates
            for task in tasks
        ]
        started = time.monotonic()
        pending: dict[int, Future[Outcome]] = {}
        known: dict[int, Outcome] = {}
        # Of each seed, the longest first: what is begun last decides how long the other slots stand idle.
        longest = sorted(enumerate(jobs), key=lambda job: (seeds.index(job[1][1].seed), -self._expected(job[1][1])))
        for index, (role, call) in longest:
            accepted = self._made.get(Job(call.region, call.task.arch, NUM_CLASSES[call.task.dataset], call.seed))
            stored = results.find(call.key, weights_sha256=accepted)
            if stored is not None:
                known[index] = stored
                continue
            pending[index] = self._submit(role, call)
        from_store = set(known)
        outcomes: Outcomes = {}
        try:
            for index, (role, call) in enumerate(jobs):
                while index not in known:
                    self._collect(pending, known, results)
                outcome = known[index]
                self._record(role, call, outcome, cached=index in from_store)
                outcomes[role, call.task.name, call.seed] = outcome
        except BaseException:
            for future in pending.values():
                future.cancel()
            self._book_isolation()
            raise
        rest = max(0.0, time.monotonic() - started - self._book_isolation())
        self._clock.add("training" if len(known) > len(from_store) else "other", rest)
        return outcomes

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

    def signal_faults(self, region: str, tasks: Sequence[Task], seed: int) -> list[tuple[str, str]]:
        """(task, sentence) for each fault at step 0 that keeps `region` from learning; see `SignalCall`."""
        calls = [SignalCall(region, task, seed, self.settings.data_root) for task in tasks]
        futures = [(call.task.name, self._executor.submit(call, on_ask=self._answer)) for call in calls]
        faults = [(name, fault) for name, future in futures for fault in future.result()]
        self._book_isolation()
        return faults

    def _call(self, region: str, task: Task, seed: int) -> EvaluationCall:
        settings = self.settings
        environment = tuple(sorted(settings.environment.items()))
        return EvaluationCall(
            region, task, seed, environment, settings.precision, settings.data_root, settings.checkpoints
        )

    def _expected(self, call: EvaluationCall) -> float:
        """Seconds of its training; 0 before the task was trained for the first time."""
        return self._seconds.get(call.task.name, 0.0)

    def _submit(self, role: str, call: EvaluationCall) -> Future[Outcome]:
        epochs = call.task.recipe.epochs
        self._progress.started(role, call.task.name, call.seed, epochs, pictures(call.task)[0] // epochs)
        return self._executor.submit(
            call,
            timeout=600 + 300 * epochs,
            on_report=lambda metrics: self._progress.epoch(role, call.task.name, call.seed, metrics, epochs),
            on_ask=self._answer,
        )

    def _answer(self, job: Job) -> Initialised:
        """Initialise for a call. Runs in the executor's threads, one candidate at a time."""
        started = time.monotonic()
        try:
            return self._reproducible(job, self._isolation.initialise(job))
        finally:
            self._waits.append(time.monotonic() - started)

    def _reproducible(self, job: Job, made: Initialised) -> Initialised:
        """Return `made`, or a failure if the check or the second interpreter gave other parameters.

        The untouched region is our own code and is not run twice.
        """
        if not made.ok or job.region == scaffold().region:
            return made
        here = dataclasses.replace(job, out=None)
        if here not in self._made:
            again = self._isolation.repeat(here)
            if again.sha256 != made.sha256:
                kind, message = difference(again)
                return dataclasses.replace(again, ok=False, kind=kind, message=message, payload=None, sha256=None)
            self._made[here] = made.sha256 or ""
        if self._made[here] != made.sha256:
            message = "the parameters are not those that the check accepted for the same seed"
            return dataclasses.replace(made, ok=False, kind="nondeterministic", message=message, weights=None)
        return made

    def _collect(self, pending: dict[int, Future[Outcome]], known: dict[int, Outcome], results: LayeredStore) -> None:
        """Wait for the next evaluation to finish and store it at once, so that a later crash does not lose it."""
        done, _ = wait(pending.values(), return_when=FIRST_COMPLETED)
        for index in [index for index, future in pending.items() if future in done]:
            outcome = pending.pop(index).result()
            if isinstance(outcome, EvaluationResult):
                results.put(outcome)
                self._seconds[outcome.task] = outcome.training_seconds
            known[index] = outcome

    def _record(self, role: str, call: EvaluationCall, outcome: Outcome, *, cached: bool) -> None:
        self._note(
            Evaluated(
                role=role,
                task=call.task.name,
                seed=call.seed,
                key=call.key,
                accuracy=None if isinstance(outcome, CandidateFailure) else outcome.best_test_acc,
                failure=f"{outcome.kind}: {outcome.message}" if isinstance(outcome, CandidateFailure) else None,
                cached=cached,
                seconds=0.0 if isinstance(outcome, CandidateFailure) or cached else outcome.training_seconds,
            )
        )
        self._progress.evaluated(role, call.task.name, call.seed, outcome, cached=cached)

    def _book_isolation(self) -> float:
        """Add to the clock, and return, the wall time that slots waited for initialisations since the last call.

        This is an approximation. A slot that waits for another slot's candidate counts too. If one of two slots waits,
        half of that time is counted, unless the other slot had nothing to do.
        """
        waits, self._waits = self._waits, []
        isolation = sum(waits) / max(1, min(self._executor.slots, len(waits)))
        self._clock.add("isolation", isolation)
        return isolation
