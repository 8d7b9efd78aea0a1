"""Plans a search: what it costs and can detect, and which other designs do better. Measures nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.analysis.design import (
    Costs,
    Design,
    Forecast,
    blindness,
    effect_of,
    forecast,
    makespan,
    rounded,
    seconds_of,
)
from agent.analysis.known_noise import MEASURING_SEEDS, as_json
from agent.runs.recorded_noise import Noise
from benchmark.task import ACCURACY, common_metric
from benchmark.tasks import Profile

MAX_SEEDS = 50
"""The most seeds that a search accepts."""

_POINTS = ACCURACY.points
_FEW_SEEDS = 3
_CONFIRM = (0, 1, 2, 3, 5, 8, 12, 20, 30, 50)
_SAME_TIME = 1.02
_CLEARLY = 0.95  # saving less than 5 % is not worth a suggestion


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

    Effects are in points, or in what `visible_unit` and `hidden_unit` say. `instead` lists other designs with the
    reason for each. With `effect`, `for_effect` has the cheapest
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
                    "smallest_visible_effect": rounded(effect_of(profile, [task], one, one.budget, noise)),
                    **task.metric.as_json(),
                }
            )
    plan = {"profile": profile.name, "slots": slots, "tasks": tasks, **asked.as_json()}
    for kind, members in (("visible", profile.visible), ("hidden", profile.hidden)):
        if (metric := common_metric(task.metric for task in members)) != ACCURACY:
            plan[f"{kind}_unit"] = metric.points
    plan["instead"] = [
        one.as_json(why=why) for one, why in alternatives(profile, cost, asked, slots=slots, noise=noise)
    ]
    if effect is not None:
        plan["effect"] = effect
        found = designs_for(
            profile,
            cost,
            effect,
            budget=design.budget,
            slots=slots,
            screen=design.screen,
            parallel=design.parallel,
            noise=noise,
        )
        plan["for_effect"] = [option.as_json() for option in found]
    if noise is not None:
        plan["noise"] = as_json(noise)
        plan["unresolvable"] = unresolvable(profile, design, noise)
        plan["measure"] = _measurement(profile, cost, noise, slots)
    return plan


def unresolvable(profile: Profile, design: Design, noise: Noise) -> list[str]:
    """The visible tasks on which the design resolves nothing, because no noise is known and one seed shows none."""
    known = (task for task in profile.visible if task.name in noise)
    return [task.name for task in known if math.isinf(effect_of(profile, [task], design, 1, noise))]


def _measurement(profile: Profile, cost: Costs, noise: Noise, slots: int) -> dict[str, Any] | None:
    """What measures the noise of the tasks that were not measured here; None if all were."""
    missing = [task for task in profile.tasks if noise[task.name].measured is None]
    if not missing:
        return None
    hidden = any(task in profile.hidden for task in missing)
    trained = profile.tasks if hidden else profile.visible
    codes = 2 if profile.is_own and profile.baseline is not None else 1  # agent baselines trains this one as well
    durations = [cost[task.name] for task in trained for _ in range(codes * MEASURING_SEEDS)]
    return {
        "tasks": [task.name for task in missing],
        "trainings": len(durations),
        "seconds": round(makespan(durations, slots), 1),
        "command": f"agent baselines --recipes kaiming_normal --seeds {MEASURING_SEEDS} "
        f"--profile {profile.file or profile.name}" + (" --hidden" if hidden else ""),
    }


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
        like = asked.design
        designs = _designs(profile, cost, budget, slots, like.screen, like.parallel, most=_SAME_TIME * asked.seconds)
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
    parallel: int = 1,
    noise: Noise | None = None,
) -> list[Forecast]:
    """The cheapest designs that detect a mean gain of `effect` points, with `budget` tests and with fewer."""
    designs = (_designs(profile, cost, n, slots, screen, parallel) for n in _budgets(budget))
    cheapest = (_first(profile, cost, of_size, effect, slots, noise) for of_size in designs)
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
    return effect_of(profile, profile.visible, design, 1, noise)


def _budgets(most: int) -> list[int]:
    return sorted({most, math.ceil(most / 2), math.ceil(most / 4)}, reverse=True)


def _designs(
    profile: Profile,
    cost: Costs,
    budget: int,
    slots: int,
    screen: float = 0.0,
    parallel: int = 1,
    most: float = math.inf,
) -> list[Design]:
    """The designs with `budget` tests that take at most `most` seconds, the cheapest first.

    With k candidates about √k times as many baseline seeds are best (Dunnett 1955). The middle between 1 and √k is
    tried too. Confirmation is tried only with few seeds per test, because its purpose is to save seeds.
    """
    root = math.sqrt(budget)
    designs = {
        Design(budget, seeds, min(MAX_SEEDS, math.ceil(seeds * factor)), confirm, screen, min(parallel, budget))
        for seeds in range(1, MAX_SEEDS + 1)
        for factor in (1, (1 + root) / 2, root)
        for confirm in (_CONFIRM if seeds <= _FEW_SEEDS and budget > 1 else (0,))
    }
    timed = [(seconds_of(profile, cost, design, slots), design) for design in designs]
    return [design for seconds, design in sorted(timed, key=lambda one: (one[0], one[1].seeds)) if seconds <= most]


def in_words(plan: Mapping[str, Any]) -> Iterator[str]:
    """The lines of a plan that follow its tasks."""
    visible, hidden = plan.get("visible_unit", _POINTS), plan.get("hidden_unit", _POINTS)
    unseen = f", {effect_in_words(plan['hidden_effect'], hidden)} on the hidden task"
    yield (
        f"about {duration(plan['seconds'])} in all; smallest detectable mean gain (power 80 %): "
        f"{effect_in_words(plan['visible_effect'], visible)} on the visible tasks"
        f"{unseen if plan['hidden_effect'] != 0 else ''}"
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
            f"to measure the noise of {', '.join(measure['tasks'])}: {measure['command']} "
            f"({measure['trainings']} trainings, {duration(measure['seconds'])})"
        )
    if plan.get("parallel", 1) > 1:
        yield f"{plan['parallel']} tests in flight: {blindness(plan['parallel'], plan['budget'])}"
    for other in plan["instead"]:
        yield f"or: {other['flags']} ({_outlook(other, visible)}): {other['why']}"
    if "effect" in plan and not plan["for_effect"]:
        yield f"no design with up to {MAX_SEEDS} seeds detects a mean gain of {plan['effect']:g} {visible}"
    for other in plan.get("for_effect", []):
        yield f"to detect {plan['effect']:g} {visible}: {other['flags']} ({_outlook(other, visible)})"


def effect_in_words(effect: float | None, unit: str = _POINTS) -> str:
    """A detectable effect with its unit; "nothing" where the noise is not known."""
    if effect is None:
        return "nothing"
    return f"{effect:.1f} {unit}" if unit == _POINTS else f"{effect:.3g} {unit}"


def duration(seconds: float) -> str:
    """A number of seconds as text with a readable unit."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _outlook(design: Mapping[str, Any], unit: str) -> str:
    return f"{duration(design['seconds'])}, detects {effect_in_words(design['visible_effect'], unit)}"
