"""Optuna or random search as proposer: chooses numbers, writes them as code, screens, tests, submits the best."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import TrialState, create_trial

from agent.protocol import Observation, Situation, ToolCall, replace_region
from agent.runs.events import Proposal
from agent.runs.log import EventLog
from agent.spaces.base import Space

_REFUSALS_IN_A_ROW = 20
_CARRIED = 2
"""How many screened candidates are kept for the next round, best first. Screening them again costs nothing."""


@dataclass
class _Point:
    """A trial and its region. If Optuna already has a `reported` look, a test's score is added as a new trial."""

    trial: optuna.Trial
    region: str
    reported: bool = False


class OptunaProposer:
    """Edits, tests and tells Optuna the score while tests are left, then submits the best test.

    The objective is the mean accuracy over the visible tasks, in percent. With screening, several points are screened
    before each test and the best one is tested. The others are reported to Optuna as pruned trials with their held-out
    loss. `random` samples the same space at random, without the enqueued points. A refused or failed candidate costs
    its trial. With `test_start` the region in the workspace is tested first.
    With tests in flight, the sampler counts their points as bad ones (constant liar), so that the next is another.
    """

    ignores_baseline = True

    def __init__(
        self, name: str, *, seed: int, space: Space, log: EventLog, journal: Path, test_start: bool = False
    ) -> None:
        self.name = name
        self._log = log
        self._space = space
        self._study = new_study(fresh_journal(journal), "initsearch", seed, random=name == "random")
        if name == "optuna":
            for point in space.first():
                self._study.enqueue_trial(dict(point))
        self._point: _Point | None = None
        self._pool: list[_Point] = []
        self._chosen = False
        self._edited = test_start  # the workspace already holds the start region
        self._refused = 0
        self._tested: list[tuple[ToolCall, _Point | None]] = []
        """The tests that were asked for and not told, with their points."""

    def ask(self, situation: Situation) -> ToolCall | None:
        """Screen new points, edit the best one in, test what was edited, or submit when no test is left."""
        if self._edited:
            return self._test()
        if not self._chosen:
            if situation.tests_left <= 0 or self._refused >= _REFUSALS_IN_A_ROW:
                if situation.in_flight:
                    return None
                return ToolCall("submit", {"n": situation.best}) if situation.best else None
            if situation.looks_left and situation.looks_left + len(self._pool) > 1:
                self._pool += [self._new_point() for _ in range(situation.looks_left)]
                return ToolCall("screen", {"candidates": [point.region for point in self._pool]})
            self._point = self._new_point()
        assert self._point is not None
        self._chosen = False
        if self._point.region == situation.region:
            return self._test()
        return replace_region(situation, self._point.region)

    def tell(self, call: ToolCall, observation: Observation) -> None:
        """Report the result to the study."""
        if call.tool == "screen":
            self._record_looks(observation)
        elif call.tool == "edit" and observation.ok:
            self._edited = True
        elif call.tool == "edit" and self._point is not None:
            self._record_test(self._point, observation)
        elif call.tool == "test":
            index = next(index for index, (asked, _) in enumerate(self._tested) if asked is call)
            _, point = self._tested.pop(index)
            if point is not None:
                self._record_test(point, observation)

    def _test(self) -> ToolCall:
        """The call that tests the present point."""
        call = ToolCall("test")
        self._tested.append((call, self._point))
        self._edited = False
        return call

    def _new_point(self) -> _Point:
        trial = self._study.ask(dict(self._space.distributions()))
        region, described = self._space.point(trial)
        self._log.append(Proposal(proposer=self.name, content={"trial": trial.number, **described}))
        return _Point(trial, region)

    def _record_looks(self, observation: Observation) -> None:
        """Choose the best look. Report the others as pruned and the rejected ones as failed."""
        if not observation.looks:  # refused: the points are tried one by one
            self._point, self._chosen = self._pool[0], True
            self._pool = self._pool[1 : 1 + _CARRIED]
            return
        for index, (point, look) in enumerate(zip(self._pool, observation.looks, strict=True)):
            if point.reported or index == observation.best_look:
                continue
            point.reported = True
            if look.loss is None:
                self._study.tell(point.trial, state=TrialState.FAIL)
            else:
                point.trial.report(-look.loss, step=look.rung)
                self._study.tell(point.trial, state=TrialState.PRUNED)
        if observation.best_look is None:
            self._pool, self._refused = [], self._refused + len(observation.looks)
            return
        self._point, self._chosen = self._pool[observation.best_look], True
        ranked = sorted(zip(observation.looks, self._pool, strict=True), key=lambda pair: pair[0].rank)
        others = [point for look, point in ranked if look.rejected is None and point is not self._point]
        self._pool = others[:_CARRIED]

    def _record_test(self, point: _Point, observation: Observation) -> None:
        test = observation.test
        if test is None or test.failed:
            self._refused += test is None
            if not point.reported:
                self._study.tell(point.trial, state=TrialState.FAIL)
            return
        self._refused = 0
        if point.reported:
            known: Mapping[str, Any] = point.trial.params
            distributions = dict(point.trial.distributions)
            self._study.add_trial(create_trial(params=dict(known), distributions=distributions, value=test.score))
        else:
            self._study.tell(point.trial, test.score)


class _HeldWithTheRun(JournalFileOpenLock):
    """No lock of its own: whoever writes to the journal holds the lock of the run.

    Optuna's own lock is a link, renamed before it is removed. A process killed in between left a link in the run.
    """

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def fresh_journal(journal: Path) -> JournalStorage:
    """Replace an old journal by an empty one. A resumed run makes its studies again from the log."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    journal.unlink(missing_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return JournalStorage(JournalFileBackend(str(journal), lock_obj=_HeldWithTheRun(str(journal))))


def new_study(storage: JournalStorage, name: str, seed: int, *, random: bool = False) -> optuna.Study:
    """A study that maximises, with TPE or, if `random`, a random sampler."""
    sampler_class = optuna.samplers.RandomSampler if random else optuna.samplers.TPESampler
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.create_study(
            storage=storage, sampler=sampler_class(seed=seed), direction="maximize", study_name=name
        )
