"""The hybrid proposer: a language model writes the structure, Optuna scales its numbers. They share the budget.

After each test of a new structure, half of the tests that are then left (rounded down) go to its numbers. The model
gets the table of these trials with the reply to its test, and the region holds the best of them. With several tests in
flight, the trials of one structure are trained side by side. The model's own test is waited for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState, create_trial

from agent.llm import prompting
from agent.proposers.llm import LLMProposer
from agent.proposers.optuna_search import fresh_journal, new_study
from agent.protocol import Observation, Situation, TestOutcome, ToolCall
from agent.runs.events import Proposal
from agent.runs.log import EventLog
from agent.spaces.literals import (
    ScalableNumber,
    ScaleCommentError,
    current,
    distributions,
    find_numbers,
    rescale,
)
from benchmark.task import ACCURACY, SEED_SD, Metric, common_metric

_REFUSALS_IN_A_ROW = 5


@dataclass(frozen=True)
class _Trial:
    """One trial of the numbers, and its region."""

    trial: optuna.Trial
    region: str


@dataclass
class _Scaling:
    """The numbers of one structure while they are being scaled."""

    structure: str
    numbers: list[ScalableNumber]
    study: optuna.Study
    call: ToolCall
    observation: Observation
    """The reply to the model's own test. The model gets it after the scaling."""
    trials_left: int
    rows: list[dict[str, Any]] = field(default_factory=list)
    regions: dict[int, str] = field(default_factory=dict)
    outcomes: dict[int, TestOutcome] = field(default_factory=dict)
    trial: _Trial | None = None
    """The trial that is being written into the region."""
    tested: list[tuple[ToolCall, _Trial]] = field(default_factory=list)
    """The tests that were asked for and not told, with their trials."""
    written: bool = False
    refused: int = 0
    restoring: bool = False


class HybridProposer:
    """Forwards the model's calls and inserts Optuna's trials after each of its tests; see the module docstring."""

    name = "hybrid"

    def __init__(self, model: LLMProposer, *, seed: int, log: EventLog, journal: Path) -> None:
        self._model = model
        self._seed = seed
        self._log = log
        self._storage = fresh_journal(journal)
        self._structures = 0
        self._region = ""
        self._tests_left = 0
        self._tests = 0
        self._scaling: _Scaling | None = None

    def prepare(self, situation: Situation) -> None:
        """See `LLMProposer.prepare`."""
        self._model.prepare(situation)

    def ask(self, situation: Situation) -> ToolCall | None:
        """The next call of the current scaling; without a scaling, the model's next call."""
        if self._scaling is not None:
            call = self._scale(self._scaling, situation)
            if call is not None or situation.in_flight:
                return call
            self._hand_over(self._scaling, situation)
        elif situation.in_flight:  # the model's own test: its numbers are scaled before anything else
            return None
        self._region, self._tests_left = situation.region, situation.tests_left
        return self._model.ask(situation)

    def tell(self, call: ToolCall, observation: Observation) -> None:
        """Pass a reply to the model, or the score of a trial to Optuna."""
        test = observation.test
        if self._scaling is not None:
            self._record(self._scaling, call, observation)
        elif call.tool == "test" and test is not None and not test.failed and test.number > self._tests:
            self._tests = test.number
            self._begin(call, observation, test)
        else:
            self._model.tell(call, observation)

    # -- scaling one structure ------------------------------------------------------------------------------------

    def _begin(self, call: ToolCall, observation: Observation, test: TestOutcome) -> None:
        """Start to scale the region that the model just tested, if it has numbers and enough tests are left."""
        trials = (self._tests_left - 1) // 2  # the model's own test was counted as left when it was asked for
        if trials < 1:
            self._model.tell(call, observation)
            return
        try:
            numbers = find_numbers(self._region)
        except (ScaleCommentError, SyntaxError) as error:
            self._tell_with(call, observation, prompting.note("numbers", detail=str(error)))
            return
        if not numbers:
            self._tell_with(call, observation, prompting.note("numbers", detail="there are none"))
            return
        self._structures += 1
        study = new_study(self._storage, f"structure {self._structures}", self._seed + self._structures)
        study.add_trial(create_trial(params=current(numbers), distributions=distributions(numbers), value=test.score))
        scaling = _Scaling(self._region, numbers, study, call, observation, trials)
        self._scaling = scaling
        _keep(scaling, {number.name: number.value for number in numbers}, self._region, test, self._model.metrics)

    def _scale(self, scaling: _Scaling, situation: Situation) -> ToolCall | None:
        """The next call of the scaling, or None when it is over."""
        if scaling.written:
            assert scaling.trial is not None
            call = ToolCall("test")
            scaling.tested.append((call, scaling.trial))
            scaling.written = False
            return call
        left = scaling.trials_left - len(scaling.tested)
        if left > 0 and situation.tests_left > 0 and scaling.refused < _REFUSALS_IN_A_ROW:
            trial = scaling.study.ask(distributions(scaling.numbers))
            scaling.trial = _Trial(trial, rescale(scaling.structure, trial.params))
            content = {"structure": self._structures, "trial": trial.number, "parameters": trial.params}
            self._log.append(Proposal(proposer=self.name, content=content))
            return ToolCall("rewrite", {"content": scaling.trial.region})
        if scaling.tested:
            return None
        best = _best(scaling)
        if scaling.regions[best] != situation.region and not scaling.restoring:
            scaling.restoring = True
            return ToolCall("rewrite", {"content": scaling.regions[best]})
        return None

    def _record(self, scaling: _Scaling, call: ToolCall, observation: Observation) -> None:
        if scaling.restoring:
            return
        if call.tool == "rewrite" and observation.ok:
            scaling.written = True
            return
        if call.tool == "rewrite":
            assert scaling.trial is not None
            tried = scaling.trial
        else:
            index = next(index for index, (asked, _) in enumerate(scaling.tested) if asked is call)
            _, tried = scaling.tested.pop(index)
        test = observation.test
        if test is None:
            scaling.study.tell(tried.trial, state=TrialState.FAIL)
            scaling.refused += 1
            return
        # A point with the same digits as an earlier one costs no test. It counts as a trial, so that the scaling ends.
        scaling.trials_left -= 1
        if test.failed:
            scaling.study.tell(tried.trial, state=TrialState.FAIL)
        else:
            scaling.study.tell(tried.trial, test.score)
        if test.number > self._tests:
            self._tests = test.number
            _keep(scaling, tried.trial.params, tried.region, test, self._model.metrics)

    def _hand_over(self, scaling: _Scaling, situation: Situation) -> None:
        """Give the model its reply with the table of trials."""
        self._scaling = None
        test = scaling.observation.test
        assert test is not None
        table = prompting.trials_table(
            names=[number.name for number in scaling.numbers],
            tasks=[_heading(task, self._model.metrics.get(task, ACCURACY)) for task in test.accuracies],
            trials=scaling.rows,
            first=test.number,
            best=_best(scaling),
            left=situation.tests_left,
        )
        self._tell_with(scaling.call, scaling.observation, table, look_first=True)

    def _tell_with(self, call: ToolCall, observation: Observation, text: str, *, look_first: bool = False) -> None:
        together = Observation(
            f"{observation.reply}\n\n{text}", observation.ok, observation.error, observation.test, observation.submitted
        )
        self._model.tell(call, together, look_first=look_first)


def _keep(
    scaling: _Scaling, values: dict[str, float], region: str, test: TestOutcome, metrics: Mapping[str, Metric]
) -> None:
    accuracies = {
        task: " ".join(
            "failed" if value is None else metrics.get(task, ACCURACY).text(value) for value in seeds.values()
        )
        for task, seeds in test.accuracies.items()
    }
    common = common_metric(
        metrics.get(task, ACCURACY) for task in test.accuracies
    )  # a score counts upwards, and its sign is not the metric's
    score = "failed" if test.failed else "" if common == SEED_SD else common.text(common.sign * test.score)
    scaling.rows.append({"test": test.number, "values": dict(values), "accuracies": accuracies, "score": score})
    scaling.regions[test.number] = region
    scaling.outcomes[test.number] = test


def _heading(task: str, metric: Metric) -> str:
    """A task's column, with its metric unless that is accuracy."""
    return task if metric.is_accuracy else f"{task}, {metric.name} ({metric.better} is better)"


def _best(scaling: _Scaling) -> int:
    """Number of the test with the highest score, the earlier one on a tie. The model's own test is included."""
    return max(scaling.outcomes, key=lambda number: (scaling.outcomes[number].score, -number))
