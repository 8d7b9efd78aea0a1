"""The tools of a proposer: edit, undo, view, rewrite, screen, test, submit. The log has each call and each reply."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from agent.analysis.choosing import ranked
from agent.analysis.confirming import confirmation_reply, finalists_of, pooled, pooled_test, winner
from agent.analysis.look_scores import look_scores
from agent.engine.baseline_beside import BaselineBeside
from agent.engine.replies import SituationOnDemand, looks_report, refused, test_report, to_screen, to_submit
from agent.engine.screening import Screen
from agent.evaluation.batches import Batch, Candidate, Evaluations, accuracies_of
from agent.profiles import baseline_region
from agent.protocol import Accuracies, Observation, Situation, TestOutcome, ToolCall
from agent.runs.events import (
    Confirmed,
    Event,
    Screened,
    Submitted,
    TestFinished,
    TestStarted,
    ToolCalled,
    ToolReplied,
    accuracies_by_role,
)
from agent.runs.log import EventLog
from agent.runs.recorded_noise import Noise, score_units
from benchmark.results import region_sha256
from benchmark.store import LayeredStore
from benchmark.tasks import Profile
from sandbox.workspace import Workspace


@dataclass(frozen=True)
class _InFlight:
    """A test that was begun and whose reply is not told yet. `batch` None: it repeats an earlier test."""

    step: int
    call: ToolCall
    number: int
    batch: Batch | None


@dataclass(kw_only=True, eq=False)
class Toolbox:
    """Carries out tool calls on one workspace with one budget.

    `dispatch` waits for a test. With several in flight, `begin` starts one, and `settle` waits for the oldest: tests
    are told, and logged, in the order in which they were asked for.
    """

    workspace: Workspace
    evaluator: Evaluations
    log: EventLog
    profile: Profile
    seeds: tuple[int, ...]
    budget: int
    baseline: Accuracies
    results: LayeredStore
    screen: Screen | None = None
    confirmation_seeds: Sequence[int] = ()
    noise: Noise | None = None
    tests: list[TestOutcome] = field(default_factory=list, init=False)
    regions: dict[int, str] = field(default_factory=dict, init=False)
    """Number → region of each test that was begun, in the order of the numbers."""
    ran: list[int] = field(default_factory=list, init=False)
    """Numbers of the tests that succeeded when they were run. A test can still fail on a fresh seed later."""
    submitted: int | None = field(default=None, init=False)
    confirmed: tuple[int, ...] = field(default=(), init=False)
    """Numbers of the finalists that were trained again. Their tests and the baseline include the fresh seeds."""
    begun_in_record: int | None = field(default=None, init=False)
    """When a record is repeated call by call: tests that had been begun when the next reply was given."""
    baseline_failed: bool = field(default=False, init=False)
    """Whether our own machinery failed while the baseline was measured."""
    _reports: dict[int, str] = field(default_factory=dict, init=False)
    _in_flight: deque[_InFlight] = field(default_factory=deque, init=False)
    _beside: BaselineBeside | None = field(default=None, init=False)

    @property
    def in_flight(self) -> int:
        """Tests that were begun and whose replies are not told yet."""
        return len(self._in_flight)

    @property
    def tests_left(self) -> int:
        """Tests that may still be begun."""
        return self.budget - len(self.regions)

    def begin_baseline(self, seeds: Sequence[int]) -> None:
        """Begin to train the baseline, beside what does not depend on it: the first tests above all."""
        self._beside = BaselineBeside(self.evaluator, self.log, self.profile, seeds, self.results)

    def finish_baseline(self) -> None:
        """Wait for the baseline, if it is not known yet. Raises InfrastructureError if it failed."""
        beside, self._beside = self._beside, None
        if beside is None:
            return
        try:
            self.baseline = beside.finish()
        except BaseException:
            self.baseline_failed = True
            self._abandon()
            raise

    def situation(self) -> Situation:
        """The state of the search that the proposer gets before its next call."""
        return SituationOnDemand(
            self.best,
            filename=self.workspace.filename,
            region=self.workspace.region,
            editable=self.workspace.editable,
            tests_left=self.tests_left,
            tests=tuple(self.tests),
            baseline=self.baseline,
            looks_left=self._looks_left,
            noise=self.noise,
            in_flight=self.in_flight,
        )

    def _outcome(self, number: int, accuracies: Accuracies) -> TestOutcome:
        """The outcome of a test. It depends on the record alone, so a resumed search computes the same."""
        metrics = {task.name: task.metric for task in self.profile.visible}
        lower = frozenset(task for task, metric in metrics.items() if metric.sign < 0)
        units, _ = score_units(self.profile.name, self.noise, metrics, self.baseline)
        return TestOutcome(number, accuracies, region_sha256(self.regions[number]), lower, units)

    def _add(self, outcome: TestOutcome) -> None:
        """Take in the outcome of a test that is on record."""
        self.tests.append(outcome)
        if not outcome.failed:
            self.ran.append(outcome.number)

    @property
    def look_scores(self) -> dict[str, float]:
        """Hash of a region → its score from screening; empty without screening."""
        return {} if self.screen is None else look_scores(self.screen.seen)

    def best(self) -> int | None:
        """The number of the test that should be submitted now, or None when none succeeded."""
        return next((test.number for test in self._ranked()), None)

    def dispatch(self, step: int, call: ToolCall) -> Observation:
        """Carry out one call and log it. A wrong call gets a reply with the error. Only our own failures raise.

        A test is waited for. No test may be in flight then.
        """
        return self.begin(step, call) or self.settle()[1]

    def begin(self, step: int, call: ToolCall) -> Observation | None:
        """Carry out one call and log it, but do not wait for a test: None then, and `settle` has its reply."""
        self.log.append(ToolCalled(step=step, tool=call.tool, arguments=dict(call.arguments)))
        observation = self._begin_test(step, call) if call.tool == "test" else self._carry_out(call)
        if observation is not None:
            self._replied(step, observation, region_sha256(self.workspace.region))
        return observation

    def settle(self) -> tuple[ToolCall, Observation]:
        """Wait for the oldest test in flight, and log its outcome and reply. Returns its call and its reply."""
        self.finish_baseline()
        flight = self._in_flight.popleft()
        try:
            number, batch = flight.number, flight.batch
            observation = self._repeated(number) if batch is None else self._finish_test(number, batch)
        except BaseException:
            self._abandon()
            raise
        self._replied(flight.step, observation, region_sha256(self.regions[number]))
        return flight.call, observation

    def _replied(self, step: int, observation: Observation, digest: str) -> None:
        self.log.append(
            ToolReplied(
                step=step, ok=observation.ok, error=observation.error, reply=observation.reply, region_sha256=digest
            )
        )

    def _abandon(self) -> None:
        """Do not begin what waits: the search stops."""
        for flight in self._in_flight:
            if flight.batch is not None:
                flight.batch.cancel()

    def restore(self, events: Sequence[Event], region: str, reply: str) -> None:
        """Take in what the log records of one finished call, without repeating it.

        `region` is the one in the workspace at the time, and `reply` the call's reply.
        """
        if looks := [event for event in events if isinstance(event, Screened)]:
            assert self.screen is not None
            self.screen.restore(looks)
        for event in events:
            match event:
                case TestStarted(number=number):
                    self.regions[number], self._reports[number] = region, reply
                case TestFinished(number=number):
                    self._add(self._outcome(number, event.accuracies))
                case Confirmed():
                    self._pool(accuracies_by_role(events), event.tests)
                case Submitted(number=number):
                    self.submitted = number

    def submit(self, number: object, *, by: Literal["proposer", "harness"]) -> Observation:
        """Make test `number` final, if it is one that succeeded.

        With confirmation, all finalists are trained again, and the best of them by all seeds becomes final.
        """
        outcome = to_submit(number, self.tests)
        if isinstance(outcome, Observation):
            return outcome
        self.workspace.verify()
        confirmed = ""
        if self.confirmation_seeds:
            chosen, confirmed = self._confirm(outcome)
            if chosen is None:
                return refused("failed_test", f"ERROR: {confirmed} These tests failed; choose another.")
            outcome = chosen
        number = outcome.number
        self.log.append(Submitted(number=number, region_sha256=outcome.region_sha256, by=by))
        self.workspace.tag(f"submit/{number}", at=f"test/{number}")
        self.submitted = number
        parts = [f"[submit] Submitting result from test #{number} as final.", confirmed, self._reports[number]]
        return Observation("\n\n".join(filter(None, parts)), submitted=number)

    def _confirm(self, nominee: TestOutcome) -> tuple[TestOutcome | None, str]:
        """Train the finalists again. Returns the best of them by all seeds, and a sentence for the reply.

        This happens a second time, with other finalists, only when all of them failed on a fresh seed.
        """
        seeds = self.confirmation_seeds
        finalists = finalists_of(self._ranked(), nominee.number)
        fresh = self.evaluator.measure(
            Candidate("baseline", baseline_region(self.profile)),
            [Candidate(f"test/{number}", self.regions[number]) for number in finalists],
            self.profile.visible,
            seeds,
            results=self.results,
        )
        self._pool(fresh, finalists)
        chosen = winner(self._ranked(), self.confirmed)
        self.log.append(
            Confirmed(seeds=list(seeds), tests=list(self.confirmed), chosen=None if chosen is None else chosen.number)
        )
        return chosen, confirmation_reply(self.confirmed, seeds)

    def _pool(self, fresh: Mapping[str, Accuracies], finalists: Sequence[int]) -> None:
        """Add the accuracies on fresh seeds (by role) to the baseline and to those finalists that have any."""
        self.baseline = pooled(self.baseline, fresh["baseline"])
        self.tests = [pooled_test(test, fresh) for test in self.tests]
        self.confirmed = tuple(sorted({*self.confirmed, *finalists}))

    def _ranked(self) -> list[TestOutcome]:
        return ranked(self.profile.name, self.baseline, self.tests, self.look_scores, self.noise, self.profile.metrics)

    def _carry_out(self, call: ToolCall) -> Observation:
        match call.tool:
            case "edit":
                reply = self.workspace.edit(call.arguments)
            case "undo":
                reply = self.workspace.undo(call.arguments.get("n", 1))
            case "view":
                reply = self.workspace.view()
            case "rewrite":
                reply = self.workspace.rewrite(call.arguments.get("content"))
            case "screen":
                return self._look(call.arguments.get("candidates"))
            case "submit":
                return self.submit(call.arguments.get("n"), by="proposer")
            case unknown:
                return refused("unknown_tool", f"ERROR: Unknown tool '{unknown}'")
        return Observation(reply.text, reply.ok, reply.kind)

    @property
    def _looks_left(self) -> int:
        """New candidates that may be screened; 0 when no test is left, because looks only choose what to test."""
        if self.screen is None or self.tests_left <= 0:
            return 0
        return self.screen.affordable(len(self.regions))

    def _look(self, candidates: object) -> Observation:
        """Screen the candidates, or the present region when none are given."""
        if self.screen is None:
            return refused("screening_off", "ERROR: Screening is off in this search; call test().")
        candidates = [self.workspace.region] if candidates is None else candidates
        regions = to_screen(candidates, self.screen, self._looks_left)
        if isinstance(regions, Observation):
            return regions
        seen = self.screen.run(regions, len(self.regions))
        return Observation(looks_report(seen), looks=seen.looks, best_look=seen.best)

    def _begin_test(self, step: int, call: ToolCall) -> Observation | None:
        """Begin a test of the present region, or refuse it at no cost.

        None when the reply comes later: it trains now, or repeats a test that does.
        """
        self.workspace.verify()
        region = self.workspace.region
        earlier = next((number for number, tested in self.regions.items() if tested == region), None)
        if earlier is not None:
            if any(test.number == earlier for test in self.tests):
                return self._repeated(earlier)
            self._in_flight.append(_InFlight(step, call, earlier, None))
            return None
        if self.tests_left <= 0:
            used = f"{len(self.regions)}/{self.budget}"
            return refused(
                "budget", f"ERROR: Test budget exhausted ({used}). You MUST call submit(n=N) to choose a test result."
            )
        report = self.evaluator.check(region, self.profile.visible, self.seeds[0])
        if not report.accepted:
            return refused(
                report.kind or "rejected", f"ERROR: Test refused, nothing was spent: {report.message} [{report.kind}]"
            )
        number = len(self.regions) + 1
        self.log.append(TestStarted(number=number, region_sha256=region_sha256(region)))
        self.workspace.tag(f"test/{number}")
        self.regions[number] = region
        batch = self.evaluator.begin(
            [Candidate(f"test/{number}", region)], self.profile.visible, self.seeds, results=self.results
        )
        self._in_flight.append(_InFlight(step, call, number, batch))
        return None

    def _repeated(self, number: int) -> Observation:
        """The reply to a test of a region that was tested before."""
        note = f"This region is the one of test #{number}; its result is repeated and costs nothing."
        earlier = next(test for test in self.tests if test.number == number)
        return Observation(f"{note}\n\n{self._reports[number]}", test=earlier)

    def _finish_test(self, number: int, batch: Batch) -> Observation:
        """Wait for a test, and record it."""
        outcomes = self.evaluator.finish(batch)
        accuracies = accuracies_of(outcomes, f"test/{number}")
        outcome = self._outcome(number, accuracies)
        self.log.append(
            TestFinished(
                number=number,
                status="failed" if outcome.failed else "ok",
                accuracies={task: dict(seeds) for task, seeds in accuracies.items()},
            )
        )
        self._add(outcome)
        left = self.tests_left if self.begun_in_record is None else self.budget - self.begun_in_record
        self._reports[number] = test_report(number, outcomes, self.profile.visible, self.seeds, left)
        error = "candidate_failed" if outcome.failed else None
        return Observation(self._reports[number], not outcome.failed, error, test=outcome)
