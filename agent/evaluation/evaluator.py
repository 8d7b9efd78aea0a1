"""The evaluator: checks regions, looks up stored results, trains missing ones within a time limit, logs outcomes."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, InvalidStateError, wait
from dataclasses import dataclass
from pathlib import Path

from agent.clock import Clock
from agent.evaluation.batches import Batch, Candidate, Evaluations, Outcomes, jobs_for
from agent.evaluation.calls import EvaluationCall, SignalCall, job_for
from agent.evaluation.check import CheckReport, check, difference
from agent.progress import Progress
from agent.protocol import CandidateFailure, Outcome
from agent.runs.events import Evaluated
from agent.runs.places import Places
from benchmark.cost import pictures, rough_seconds
from benchmark.executors import Executor, Priority
from benchmark.recipes.as_built import REGION as AS_BUILT
from benchmark.results import EvaluationResult
from benchmark.store import LayeredStore
from benchmark.task import Task
from sandbox.isolate import Initialised, Isolation, Job
from sandbox.region import scaffold
from sandbox.rules import check_region


@dataclass(frozen=True)
class Settings:
    """Settings that all evaluations of a search share."""

    environment: dict[str, str]
    precision: str = "auto"
    data_root: Path | None = None
    checkpoints: Path | None = None
    """The folder for checkpoints of trainings; None: they have none."""


class Evaluator(Evaluations):
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
        self.places: Places | None = None
        """Keeps where evaluations run, for other commands; only of use if that is not here."""
        self._note = record
        self._clock = clock
        self._progress = progress

    def check(self, region: str, tasks: Sequence[Task], seed: int) -> CheckReport:
        """See `Evaluations.check`."""
        jobs = jobs_for(tasks, region, seed)
        with self._clock.phase("isolation"):
            report = check(region, jobs, self._isolation)
        if report.accepted:
            self._made |= {jobs[name]: made["sha256"] for name, made in report.archs.items()}
        return report

    def begin(
        self,
        candidates: Sequence[Candidate],
        tasks: Sequence[Task],
        seeds: Sequence[int],
        *,
        results: LayeredStore,
        first: bool = False,
    ) -> Batch:
        """See `Evaluations.begin`. Each outcome is stored as soon as it is there."""
        self._progress.scores({task.name: task.metric for task in tasks})
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
        """See `Evaluations.finish`."""
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

    def signal_faults(self, region: str, tasks: Sequence[Task], seed: int) -> list[tuple[str, str]]:
        """See `Evaluations.signal_faults`."""
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
        epochs, name = call.task.recipe.epochs, f"{role} {call.task.name} seed {call.seed}"
        stored: Future[Outcome] = Future()

        def started(place: str) -> None:
            batch.places.setdefault(index, []).append(place)
            attempt = len(batch.places[index])
            if self._executor.remote or attempt > 1:
                self._progress.placed(role, call.task.name, call.seed, place, attempt=attempt)
            if self.places is not None:
                self.places.started(name, place)

        def store(done: Future[Outcome]) -> None:
            """Store it at once, so that a later crash does not lose it. Runs in a thread of the executor."""
            if self.places is not None:
                self.places.ended(name)
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


class EvaluatorOnDemand(Evaluations):
    """An evaluator whose isolation and processes start at its first use. It applies the static rules without them."""

    def __init__(self, start: Callable[[], Evaluator]) -> None:
        self._start = start

    def check(self, region: str, tasks: Sequence[Task], seed: int) -> CheckReport:
        """See `Evaluations.check`."""
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
        """See `Evaluations.begin`."""
        return self._start().begin(candidates, tasks, seeds, results=results, first=first)

    def finish(self, batch: Batch) -> Outcomes:
        """See `Evaluations.finish`."""
        return self._start().finish(batch)

    def signal_faults(self, region: str, tasks: Sequence[Task], seed: int) -> list[tuple[str, str]]:
        """See `Evaluations.signal_faults`."""
        return self._start().signal_faults(region, tasks, seed)
