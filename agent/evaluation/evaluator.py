"""The evaluator: checks regions, looks up stored results, trains the missing ones in parallel, records outcomes."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, InvalidStateError, wait
from dataclasses import dataclass, field
from pathlib import Path

from agent.clock import Clock
from agent.evaluation.calls import EvaluationCall, SignalCall, job_for
from agent.evaluation.check import CheckReport, check, difference
from agent.progress import Progress
from agent.protocol import Accuracies, CandidateFailure, Outcome
from agent.runs.log import Evaluated
from benchmark.cost import pictures, rough_seconds
from benchmark.executors import Executor, InfrastructureError, Priority
from benchmark.recipes.as_built import REGION as AS_BUILT
from benchmark.results import EvaluationResult
from benchmark.store import LayeredStore
from benchmark.task import Task
from sandbox.isolate import Initialised, Isolation, Job
from sandbox.region import scaffold
from sandbox.rules import check_region


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
    """Evaluations that were begun together. `Evaluator.finish` has their outcomes, in the order of `jobs`."""

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
            value = outcome.value if isinstance(outcome, EvaluationResult) else None
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
        self._trusted = {scaffold().region, AS_BUILT}
        """Regions of our own, which are not run twice."""
        self._seconds: dict[str, float] = {}
        """Task name → seconds that one training of it has taken here."""
        self._note = record
        self._clock = clock
        self._progress = progress

    def check(self, region: str, tasks: Sequence[Task], seed: int) -> CheckReport:
        """Check the region on the networks of these tasks, without training. Raises IsolationCrashed."""
        jobs = jobs_for(tasks, region, seed)
        with self._clock.phase("isolation"):
            report = check(region, jobs, self._isolation)
        if report.accepted:
            self._made |= {jobs[name]: made["sha256"] for name, made in report.archs.items()}
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
        return self.finish(self.begin(candidates, tasks, seeds, results=results))

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

        Each outcome is stored as soon as it is there, and nothing is recorded before `finish`.
        """
        batch = Batch(
            [
                (candidate.role, self._call(candidate.region, task, seed))
                for seed in seeds  # outermost, so that after an interruption all candidates have the same seeds
                for candidate in candidates
                for task in tasks
            ],
            results,
        )
        for index, (role, call) in enumerate(batch.jobs):
            accepted = self._made.get(job_for(call.task, call.region, call.seed))
            stored = results.find(call.key, weights_sha256=accepted)
            if stored is not None:
                batch.known[index] = stored
                continue
            # Of each seed, the longest first: what is begun last decides how long the other slots stand idle.
            rank = -1.0 if first else float(seeds.index(call.seed))
            self._submit(batch, index, role, call, (rank, -self._expected(call)))
        return batch

    def finish(self, batch: Batch) -> Outcomes:
        """Wait for the outcomes of a batch and record them in its order. Raises InfrastructureError."""
        started = time.monotonic()
        outcomes: Outcomes = {}
        try:
            for index, (role, call) in enumerate(batch.jobs):
                cached = index in batch.known
                outcome = batch.known[index] if cached else self._wait(batch, index)
                self._record(role, call, outcome, cached=cached, places=batch.places.get(index, []))
                outcomes[role, call.task.name, call.seed] = outcome
        except BaseException:
            batch.cancel()
            self._book_isolation()
            raise
        rest = max(0.0, time.monotonic() - started - self._book_isolation())
        self._clock.add("training" if batch.running else "other", rest)
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
        """Seconds of its training; a rough guess before the task was trained for the first time."""
        return self._seconds.get(call.task.name, rough_seconds(call.task))

    def _submit(self, batch: Batch, index: int, role: str, call: EvaluationCall, priority: Priority) -> None:
        epochs = call.task.recipe.epochs
        stored: Future[Outcome] = Future()

        def started(place: str) -> None:
            batch.places.setdefault(index, []).append(place)
            self._progress.placed(role, call.task.name, call.seed, place, attempt=len(batch.places[index]))

        def store(done: Future[Outcome]) -> None:
            """Store it at once, so that a later crash does not lose it. Runs in a thread of the executor."""
            try:
                outcome = done.result()
                if isinstance(outcome, EvaluationResult):
                    batch.results.put(outcome)
                    self._seconds[outcome.task] = outcome.training_seconds
            except BaseException as error:  # noqa: BLE001 - `finish` raises it
                with contextlib.suppress(InvalidStateError):  # only the first counts
                    batch.failed.set_exception(error)
                stored.set_exception(error)
            else:
                stored.set_result(outcome)

        batch.running[index] = stored
        self._progress.started(role, call.task.name, call.seed, epochs, pictures(call.task)[0] // epochs)
        future = self._executor.submit(
            call,
            timeout=None if call.task.trainer else 600 + 300 * epochs,
            on_report=lambda metrics: self._progress.epoch(role, call.task.name, call.seed, metrics, epochs),
            on_ask=self._answer,
            on_start=started,
            priority=priority,
        )
        batch.waiting.append(future)
        future.add_done_callback(store)

    def _wait(self, batch: Batch, index: int) -> Outcome:
        """The outcome of one evaluation. Raises as soon as another one of the batch has failed."""
        future = batch.running[index]
        wait((future, batch.failed), return_when=FIRST_COMPLETED)
        return batch.failed.result() if batch.failed.done() else future.result()

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
        if not made.ok or job.region in self._trusted:
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

    def _record(
        self, role: str, call: EvaluationCall, outcome: Outcome, *, cached: bool, places: Sequence[str]
    ) -> None:
        self._note(
            Evaluated(
                role=role,
                task=call.task.name,
                seed=call.seed,
                key=call.key,
                accuracy=None if isinstance(outcome, CandidateFailure) else outcome.value,
                failure=f"{outcome.kind}: {outcome.message}" if isinstance(outcome, CandidateFailure) else None,
                cached=cached,
                seconds=0.0 if isinstance(outcome, CandidateFailure) or cached else outcome.training_seconds,
                place=places[-1] if places and self._executor.remote else None,
                attempts=max(1, len(places)),
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


class EvaluatorOnDemand(Evaluator):
    """An evaluator whose isolation and processes start at its first use. It applies the static rules without them."""

    def __init__(self, start: Callable[[], Evaluator]) -> None:
        self._start = start

    def check(self, region: str, tasks: Sequence[Task], seed: int) -> CheckReport:
        """See `Evaluator.check`."""
        if (rejection := check_region(region)) is not None:
            return CheckReport(False, rejection.kind, rejection.message)
        return self._start().check(region, tasks, seed)

    def begin(
        self,
        candidates: Sequence[Candidate],
        tasks: Sequence[Task],
        seeds: Sequence[int],
        *,
        results: LayeredStore,
        first: bool = False,
    ) -> Batch:
        """See `Evaluator.begin`."""
        return self._start().begin(candidates, tasks, seeds, results=results, first=first)

    def finish(self, batch: Batch) -> Outcomes:
        """See `Evaluator.finish`."""
        return self._start().finish(batch)

    def signal_faults(self, region: str, tasks: Sequence[Task], seed: int) -> list[tuple[str, str]]:
        """See `Evaluator.signal_faults`."""
        return self._start().signal_faults(region, tasks, seed)
