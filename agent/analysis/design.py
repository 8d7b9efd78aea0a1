"""Computes the cost of a search and its smallest detectable effect, and finds better designs. Measures nothing.

A design is the number of tests, the seeds per test, for the baseline and for confirmation, and the cost of screening.
The smallest detectable effect is the mean gain over the visible tasks that the best of all tests must have to be
resolved with a probability of 80 %. With confirmation, that test must be among the finalists.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from agent.analysis.finalists import finalist_count
from agent.analysis.noise import MEASURING_SEEDS, Noise, as_json, prior_of, unresolvable
from agent.config import SearchConfig
from benchmark.statistics import smallest_visible_effect
from benchmark.tasks import Profile, Task

MAX_SEEDS = 50
"""The most seeds that a search accepts."""

_FEW_SEEDS = 3
_CONFIRM = (0, 1, 2, 3, 5, 8, 12, 20, 30, 50)
_SAME_TIME = 1.02
_CLEARLY = 0.95  # saving less than 5 % is not worth a suggestion

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

    @classmethod
    def of(cls, config: SearchConfig) -> Design:
        """The design of a search."""
        return cls(config.budget, config.seeds, len(config.baseline_evaluation_seeds), config.confirm, config.screen)

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
        return f"--budget {self.budget} --seeds {self.seeds}{unequal}{confirm}{screen}"


@dataclass(frozen=True)
class Forecast:
    """The cost of a design in seconds, and its smallest detectable mean gains in points."""

    design: Design
    seconds: float
    visible_effect: float
    hidden_effect: float

    def as_json(self, **more: Any) -> dict[str, Any]:
        """The design's numbers and the forecast's in one object."""
        effects = {"visible_effect": _rounded(self.visible_effect), "hidden_effect": _rounded(self.hidden_effect)}
        return {**asdict(self.design), "seconds": round(self.seconds, 1), **effects, **more, "flags": self.design.flags}


def forecast(profile: Profile, cost: Costs, design: Design, *, slots: int, noise: Noise | None = None) -> Forecast:
    """The cost and the smallest detectable effects of a design on this machine, with its `noise`."""
    return Forecast(
        design,
        _seconds(profile, cost, design, slots),
        _effect(profile, profile.visible, design, design.budget, noise),
        _effect(profile, profile.hidden, design.hidden, 1, noise),
    )


def make_plan(
    profile: Profile,
    cost: Costs,
    design: Design,
    *,
    slots: int,
    effect: float | None = None,
    noise: Noise | None = None,
) -> dict[str, Any]:
    """Evaluations, seconds and the smallest detectable effect per task and in all, and better designs.

    `instead` lists other designs with the reason for each. With `effect` (points), `for_effect` has the cheapest
    designs that detect a mean gain of that size on the visible tasks, with as many tests and with fewer. With `noise`,
    what is known of each task's noise (None: the profile's priors), `noise` says it, `measure` has the command, the
    trainings and the seconds that measure what was not measured here, and `unresolvable` lists the visible tasks on
    which the design can resolve nothing.
    """
    asked = forecast(profile, cost, design, slots=slots, noise=noise)
    tasks = []
    for kind, members, one in (("visible", profile.visible, design), ("hidden", profile.hidden, design.hidden)):
        for task in members:
            tasks.append(
                {
                    "name": task.name,
                    "kind": kind,
                    "evaluations": one.trainings,
                    "seconds": round(cost[task.name], 1),
                    "smallest_visible_effect": _rounded(_effect(profile, [task], one, one.budget, noise)),
                }
            )
    plan = {"profile": profile.name, "slots": slots, "tasks": tasks, **asked.as_json()}
    plan["instead"] = [
        one.as_json(why=why) for one, why in alternatives(profile, cost, asked, slots=slots, noise=noise)
    ]
    if effect is not None:
        plan["effect"] = effect
        found = designs_for(profile, cost, effect, budget=design.budget, slots=slots, screen=design.screen, noise=noise)
        plan["for_effect"] = [option.as_json() for option in found]
    if noise is not None:
        names = [task.name for task in profile.visible]
        plan["noise"] = as_json(noise)
        plan["unresolvable"] = unresolvable(noise, names, design.baseline_seeds + design.confirm, _tested(design))
        plan["measure"] = _measurement(profile, cost, noise, slots)
    return plan


def _measurement(profile: Profile, cost: Costs, noise: Noise, slots: int) -> dict[str, Any] | None:
    """What measures the noise of the tasks that were not measured here; None if all were."""
    missing = [task for task in (*profile.visible, *profile.hidden) if noise[task.name].measured is None]
    if not missing:
        return None
    hidden = any(task in profile.hidden for task in missing)
    trained = (*profile.visible, *profile.hidden) if hidden else profile.visible
    durations = [cost[task.name] for task in trained for _ in range(MEASURING_SEEDS)]
    return {
        "tasks": [task.name for task in missing],
        "trainings": len(durations),
        "seconds": round(_makespan(durations, slots), 1),
        "command": f"agent baselines --recipes kaiming_normal --seeds {MEASURING_SEEDS} --profile {profile.name}"
        + (" --hidden" if hidden else ""),
    }


def _tested(design: Design) -> int:
    return design.seeds + design.confirm


def _rounded(effect: float) -> float | None:
    """None where the noise is not known: JSON has no infinity."""
    return round(effect, 3) if math.isfinite(effect) else None


@dataclass(frozen=True)
class Overhead:
    """Seconds that a search takes besides training: to start and warm up, for the checks of each test, for its page."""

    start: float
    test: float
    page: float

    def of(self, budget: int) -> float:
        """Of a whole search with so many tests."""
        return self.start + self.page + budget * self.test


def with_overhead(plan: Mapping[str, Any], overhead: Overhead) -> dict[str, Any]:
    """A plan whose seconds, and those of every design that it suggests, count what is not training too."""

    def more(design: Mapping[str, Any]) -> dict[str, Any]:
        return {**design, "seconds": round(design["seconds"] + overhead.of(design["budget"]), 1)}

    suggested = {name: [more(one) for one in plan[name]] for name in ("instead", "for_effect") if name in plan}
    parts = {"start": overhead.start, "checks": plan["budget"] * overhead.test, "page": overhead.page}
    return {**more(plan), **suggested, "overhead": {name: round(seconds, 1) for name, seconds in parts.items()}}


def alternatives(
    profile: Profile, cost: Costs, asked: Forecast, *, slots: int, noise: Noise | None = None
) -> list[tuple[Forecast, str]]:
    """Designs that detect a clearly smaller effect in the same time, or the same effect in clearly less time.

    Each has its reason in words. Fewer tests mean fewer ideas tried, and only a person can weigh that. So there is at
    most one design of either kind for each number of tests.
    """
    found: dict[Design, tuple[Forecast, str]] = {}
    for budget in _budgets(asked.design.budget):
        designs = _designs(profile, cost, budget, slots, asked.design.screen, most=_SAME_TIME * asked.seconds)
        cheapest = _first(profile, cost, designs, asked.visible_effect, slots, noise)
        best = cheapest
        for design in sorted(designs, key=lambda design: _at_least(profile, design, noise)):
            best = _first(profile, cost, [design], best.visible_effect, slots, noise) or best if best else None
        for option in filter(None, (cheapest, best)):
            more = option.visible_effect < _CLEARLY * asked.visible_effect
            less = option.seconds < _CLEARLY * asked.seconds
            if more or less:
                why = f"detects {'a smaller' if more else 'the same'} effect in {'less' if less else 'the same'} time"
                found[option.design] = (
                    option,
                    f"{why}, with fewer ideas tried" if budget < asked.design.budget else why,
                )
    return list(found.values())


def designs_for(
    profile: Profile,
    cost: Costs,
    effect: float,
    *,
    budget: int,
    slots: int,
    screen: float = 0.0,
    noise: Noise | None = None,
) -> list[Forecast]:
    """The cheapest designs that detect a mean gain of `effect` points, with `budget` tests and with fewer."""
    cheapest = (
        _first(profile, cost, _designs(profile, cost, n, slots, screen), effect, slots, noise) for n in _budgets(budget)
    )
    return [option for option in cheapest if option is not None]


def _first(
    profile: Profile, cost: Costs, designs: Sequence[Design], effect: float, slots: int, noise: Noise | None
) -> Forecast | None:
    """The first of the designs that detects `effect`."""
    for design in designs:
        if _at_least(profile, design, noise) <= effect:
            one = forecast(profile, cost, design, slots=slots, noise=noise)
            if one.visible_effect <= effect:
                return one
    return None


def _at_least(profile: Profile, design: Design, noise: Noise | None) -> float:
    """A lower bound of the detectable effect, quick to compute: without the correction for picking the best."""
    return _effect(profile, profile.visible, design, 1, noise)


def _budgets(most: int) -> list[int]:
    return sorted({most, math.ceil(most / 2), math.ceil(most / 4)}, reverse=True)


def _designs(
    profile: Profile, cost: Costs, budget: int, slots: int, screen: float = 0.0, most: float = math.inf
) -> list[Design]:
    """The designs with `budget` tests that take at most `most` seconds, the cheapest first.

    With k candidates about √k times as many baseline seeds are best (Dunnett 1955). The middle between 1 and √k is
    tried too. Confirmation is tried only with few seeds per test, because its purpose is to save seeds.
    """
    root = math.sqrt(budget)
    designs = {
        Design(budget, seeds, min(MAX_SEEDS, math.ceil(seeds * factor)), confirm, screen)
        for seeds in range(1, MAX_SEEDS + 1)
        for factor in (1, (1 + root) / 2, root)
        for confirm in (_CONFIRM if seeds <= _FEW_SEEDS and budget > 1 else (0,))
    }
    timed = [(_seconds(profile, cost, design, slots), design) for design in designs]
    return [design for seconds, design in sorted(timed, key=lambda one: (one[0], one[1].seeds)) if seconds <= most]


def _seconds(profile: Profile, cost: Costs, design: Design, slots: int) -> float:
    """Seconds of the whole search: baseline, tests, looks and finalists on visible tasks, then the hidden task.

    Looks are many and short, so they use every slot.
    """

    def batch(tasks: Sequence[Task], rounds: int) -> float:
        return _makespan([cost[task.name] for task in tasks for _ in range(rounds)], slots)

    tests = design.budget * batch(profile.visible, design.seeds)
    looks = design.screen * design.budget * design.seeds * sum(cost[task.name] for task in profile.visible) / slots
    again = batch(profile.visible, design.confirmations)
    baseline, hidden = batch(profile.visible, design.baseline_seeds), batch(profile.hidden, design.hidden.trainings)
    return baseline + tests + looks + again + hidden


def _effect(profile: Profile, tasks: Sequence[Task], design: Design, n_candidates: int, noise: Noise | None) -> float:
    """The smallest detectable mean gain over these tasks in points; infinite where nothing can be resolved.

    The scatter of the other tests is not counted, although a search learns from it.
    """
    if not tasks:  # a task file need not have a hidden task
        return 0.0
    seeds, baseline_seeds = _tested(design), design.baseline_seeds + design.confirm
    priors = [prior_of(profile.name, noise, task.name, [], seeds + baseline_seeds - 2) for task in tasks]
    return smallest_visible_effect(priors, baseline_seeds, seeds, n_candidates=n_candidates)


def _makespan(durations: Sequence[float], slots: int) -> float:
    """Seconds until the last evaluation ends, if each free slot takes the next evaluation."""
    free = [0.0] * slots
    for duration in durations:
        heapq.heapreplace(free, free[0] + duration)
    return max(free)


def in_words(plan: Mapping[str, Any]) -> Iterator[str]:
    """The lines of a plan that follow its tasks."""
    yield (
        f"about {duration(plan['seconds'])} in all; smallest detectable mean gain (power 80 %): "
        f"{points(plan['visible_effect'])} on the visible tasks"
        + (f", {points(plan['hidden_effect'])} on the hidden task" if plan["hidden_effect"] != 0 else "")
    )
    if plan.get("unresolvable"):
        yield (
            f"nothing can be resolved on {', '.join(plan['unresolvable'])}: no noise is known and one seed shows none; "
            "--baseline-seeds 3 can resolve a gain"
        )
    for task, one in plan.get("noise", {}).items():
        yield f"noise of {task}: {one['words']}"
    if measure := plan.get("measure"):
        yield (
            f"to measure the noise of {', '.join(measure['tasks'])}: {measure['command']}: "
            f"{measure['trainings']} trainings, {duration(measure['seconds'])}"
        )
    for other in plan["instead"]:
        yield f"or: {other['flags']}: {_outlook(other)}; {other['why']}"
    if "effect" in plan and not plan["for_effect"]:
        yield f"no design with up to {MAX_SEEDS} seeds detects a mean gain of {plan['effect']:g} points"
    for other in plan.get("for_effect", []):
        yield f"to detect {plan['effect']:g} points: {other['flags']}: {_outlook(other)}"


def points(effect: float | None) -> str:
    """A detectable effect as text; "nothing" where the noise is not known."""
    return "nothing" if effect is None else f"{effect:.1f} points"


def duration(seconds: float) -> str:
    """A number of seconds as text with a readable unit."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _outlook(design: Mapping[str, Any]) -> str:
    return f"{duration(design['seconds'])}, detects {points(design['visible_effect'])}"
