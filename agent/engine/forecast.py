"""Tells a person, before a long search starts, its cost and its smallest detectable effect."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from agent.analysis.design import Design
from agent.analysis.planning import in_words, make_plan, unresolvable
from agent.config import SearchConfig
from agent.runs.recorded_noise import Noise
from benchmark.cost import KnownCosts, pictures
from benchmark.executors import Executor, InfrastructureError
from benchmark.store import user_store
from benchmark.tasks import Profile

LONG_SECONDS = 600.0

_SURELY_SHORT = 20_000
"""Training pictures. Fewer take less than ten minutes on any machine that trains on more than 33 a second."""


def say_if_long(
    config: SearchConfig,
    profile: Profile,
    executor: Executor,
    environment: Mapping[str, str],
    say: Callable[[str], None],
    noise: Noise | None = None,
) -> None:
    """Before a search of over ten minutes, say its cost, its smallest detectable effect, and better designs.

    Before any search that can resolve nothing, say so, and what would.
    This measures two training steps of each task once, and keeps the result beside the store of results.
    """
    design = Design.of(config)
    for task in unresolvable(profile, design, noise or {}):
        say(
            f"nothing can be resolved on {task}: no noise is known for it, and one seed shows none; --baseline-seeds 3 "
            "can resolve a gain (agent plan says what that costs)"
        )
    if _training_pictures(profile, design) < _SURELY_SHORT or (config.max_seconds or math.inf) <= LONG_SECONDS:
        return
    known = KnownCosts(user_store().folder.with_name("costs") if config.cache else None)
    try:
        machine = {**environment, "slots": str(executor.slots)}
        cost = known.measure(profile.tasks, executor, machine)
    except InfrastructureError as error:
        say(f"the cost of this search could not be measured ({error})")
        return
    plan = make_plan(profile, cost, design, slots=executor.slots, noise=noise)
    if plan["seconds"] > LONG_SECONDS:
        for line in in_words(plan):
            say(line)


def _training_pictures(profile: Profile, design: Design) -> int:
    visible = sum(pictures(task)[0] for task in profile.visible)
    hidden = sum(pictures(task)[0] for task in profile.hidden)
    looks = design.budget * design.seeds * design.screen
    return round((design.trainings + looks) * visible) + design.hidden.trainings * hidden
