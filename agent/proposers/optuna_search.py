"""Optuna, or chance, as proposer: scales the numbers of the built-in strategy and writes them as readable code."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from agent.events import EventLog, Proposal
from agent.protocol import Observation, Situation, ToolCall, replace_region
from agent.strategy import ENQUEUED, describe, distributions, render, suggest

_REFUSALS_IN_A_ROW = 20


class OptunaProposer:
    """Edit, test, tell Optuna, and so on while tests are left; then submit the best.

    The objective is the mean accuracy over the visible tasks, in percent. `random` samples the same space by chance
    alone and starts without the enqueued points. A candidate that is refused or fails costs its trial, not a test.
    """

    def __init__(self, name: str, *, seed: int, architectures: Sequence[str], log: EventLog, journal: Path) -> None:
        self.name = name
        self._log = log
        self._architectures = architectures
        self._study = _new_study(name, seed, architectures, journal)
        self._trial: optuna.Trial | None = None
        self._edited = False
        self._refused = 0

    def ask(self, situation: Situation) -> ToolCall | None:
        """Edit a new point in, test what was edited, or submit when no test is left."""
        if self._edited:
            return ToolCall("test")
        if situation.tests_left <= 0 or self._refused >= _REFUSALS_IN_A_ROW:
            return ToolCall("submit", {"n": situation.best}) if situation.best else None
        self._trial = self._study.ask()
        parameters = suggest(self._trial, self._architectures)
        region = render(parameters)
        self._log.append(
            Proposal(
                proposer=self.name,
                content={
                    "trial": self._trial.number,
                    "strategy": describe(parameters),
                    "parameters": dataclasses.asdict(parameters),
                },
            )
        )
        if region == situation.region:
            self._edited = True
            return ToolCall("test")
        return replace_region(situation, region)

    def tell(self, call: ToolCall, observation: Observation) -> None:
        """Pass a test's score to the study."""
        if call.tool == "edit" and observation.ok:
            self._edited = True
            return
        if self._trial is None or call.tool not in ("edit", "test"):
            return
        self._edited = False
        test = observation.test
        if test is None or test.failed:
            self._study.tell(self._trial, state=TrialState.FAIL)
            self._refused += test is None
            return
        self._refused = 0
        self._study.tell(self._trial, test.score)


def _new_study(name: str, seed: int, architectures: Sequence[str], journal: Path) -> optuna.Study:
    """A fresh study in a journal; a resumed run makes its study again from the log, which is the source of truth."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    journal.unlink(missing_ok=True)
    samplers: dict[str, type[optuna.samplers.RandomSampler | optuna.samplers.TPESampler]] = {
        "random": optuna.samplers.RandomSampler,
        "optuna": optuna.samplers.TPESampler,
    }
    sampler = samplers[name](seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = JournalStorage(JournalFileBackend(str(journal)))
        study = optuna.create_study(storage=storage, sampler=sampler, direction="maximize", study_name="initsearch")
    if name == "optuna":
        searched = distributions(architectures)
        for parameters in ENQUEUED:
            study.enqueue_trial({name: value for name, value in parameters.as_dict().items() if name in searched})
    return study
