"""Computes the cost of a search and its smallest detectable effect. Measures nothing.

A design is the number of tests, the seeds per test, for the baseline and for confirmation, and the cost of screening.
The smallest detectable effect is the mean gain over the visible tasks that the best of all tests must have to be
resolved with a probability of 80 %. With confirmation, that test must be among the finalists.
"""

from __future__ import annotations

import dataclasses
import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from agent.analysis.confirming import finalist_count
from agent.config import SearchConfig
from agent.runs.recorded_noise import Noise, prior_of
from benchmark.statistics import smallest_visible_effect
from benchmark.task import SEED_SD, common_metric
from benchmark.tasks import Profile, Task

Costs = Mapping[str, float]
"""Seconds of one training by task name."""


@dataclass(frozen=True)
class Design:
    """`budget` tests with `seeds` each, against a baseline with `baseline_seeds`.

    The finalists and the baseline get `confirm` more seeds. Looks may cost `screen` tests before each test.
    """

    budget: int
    seeds: int
    baseline_seeds: int
    confirm: int = 0
    screen: float = 0.0
    parallel: int = 1
    """Tests in flight."""

    @classmethod
    def of(cls, config: SearchConfig) -> Design:
        """The design of a search."""
        parallel = min(config.parallel, config.budget)
        return cls(
            *(config.budget, config.seeds, len(config.baseline_evaluation_seeds)),
            *(config.confirm, config.screen, parallel),
        )

    @property
    def confirmations(self) -> int:
        """Trainings of each visible task for the confirmation of finalists and baseline."""
        return (finalist_count(self.budget) + 1) * self.confirm

    @property
    def trainings(self) -> int:
        """Trainings of each visible task, without looks."""
        return self.budget * self.seeds + self.baseline_seeds + self.confirmations

    @property
    def hidden(self) -> Design:
        """The design on the hidden task: one submission against the baseline."""
        return Design(1, self.seeds, self.seeds)

    @property
    def flags(self) -> str:
        """The flags of `agent search` for this design."""
        unequal = f" --baseline-seeds {self.baseline_seeds}" if self.baseline_seeds != self.seeds else ""
        confirm = f" --confirm {self.confirm}" if self.confirm else ""
        screen = f" --screen {self.screen:g}" if self.screen else ""
        parallel = f" --parallel {self.parallel}" if self.parallel > 1 else ""
        return f"--budget {self.budget} --seeds {self.seeds}{unequal}{confirm}{screen}{parallel}"


@dataclass(frozen=True)
class Forecast:
    """The cost of a design in seconds, and its smallest detectable mean gains in the unit of `effect_of`."""

    design: Design
    seconds: float
    visible_effect: float
    hidden_effect: float

    def as_json(self, **more: Any) -> dict[str, Any]:
        """The design's numbers and the forecast's in one object."""
        effects = {"visible_effect": rounded(self.visible_effect), "hidden_effect": rounded(self.hidden_effect)}
        design = asdict(self.design)
        if self.design.parallel == 1:
            del design["parallel"]
        return {**design, "seconds": round(self.seconds, 1), **effects, **more, "flags": self.design.flags}


def forecast(profile: Profile, cost: Costs, design: Design, *, slots: int, noise: Noise | None = None) -> Forecast:
    """The cost and the smallest detectable effects of a design on this machine, with its `noise`."""
    return Forecast(
        design,
        seconds_of(profile, cost, design, slots),
        effect_of(profile, profile.visible, design, design.budget, noise),
        effect_of(profile, profile.hidden, design.hidden, 1, noise),
    )


def rounded(effect: float) -> float | None:
    """Three digits after the point, or three that count; None where the noise is not known: JSON has no infinity."""
    if not math.isfinite(effect):
        return None
    return round(effect, 3 if effect >= 0.01 or effect <= 0 else 2 - math.floor(math.log10(effect)))


def seconds_of(profile: Profile, cost: Costs, design: Design, slots: int) -> float:
    """Seconds of the whole search: baseline, tests, looks and finalists on visible tasks, then the hidden task.

    Looks are many and short, so they use every slot.
    """

    def batch(tasks: Sequence[Task], rounds: int) -> float:
        return makespan([cost[task.name] for task in tasks for _ in range(rounds)], slots)

    # The tests in flight share the slots; the first of them begins beside the baseline.
    waves, rest = divmod(design.budget, design.parallel)
    tests = waves * batch(profile.visible, design.seeds * design.parallel) + batch(profile.visible, design.seeds * rest)
    looks = design.screen * design.budget * design.seeds * sum(cost[task.name] for task in profile.visible) / slots
    again = batch(profile.visible, design.confirmations)
    baseline, hidden = batch(profile.visible, design.baseline_seeds), batch(profile.hidden, design.hidden.trainings)
    return baseline + tests + looks + again + hidden


def effect_of(profile: Profile, tasks: Sequence[Task], design: Design, n_candidates: int, noise: Noise | None) -> float:
    """The smallest detectable mean gain over these tasks; infinite where nothing can be resolved.

    It is in points, in the tasks' metric, or, where their metrics differ, in seed SDs (see `common_metric`). The
    scatter of the other tests is not counted, although a search learns from it.
    """
    if not tasks:  # a task file need not have a hidden task
        return 0.0
    seeds, baseline_seeds = design.seeds + design.confirm, design.baseline_seeds + design.confirm
    priors = [prior_of(profile.name, noise, task.name, [], seeds + baseline_seeds - 2) for task in tasks]
    if common_metric(task.metric for task in tasks) == SEED_SD:
        priors = [dataclasses.replace(one, sd=1.0, effect_sd=one.effect / one.sd) for one in priors]
    return smallest_visible_effect(priors, baseline_seeds, seeds, n_candidates=n_candidates)


def makespan(durations: Sequence[float], slots: int) -> float:
    """Seconds until the last evaluation ends, if each free slot takes the next evaluation."""
    free = [0.0] * slots
    for duration in durations:
        heapq.heapreplace(free, free[0] + duration)
    return max(free)


def blindness(parallel: int, budget: int) -> str:
    """What tests in flight cost: how many tests are chosen without the results of others."""
    if parallel >= budget:
        return f"all {budget} tests are chosen blind, without the result of any other"
    return f"the first {parallel} tests are chosen blind, later ones without the results of the {parallel - 1} before"
