"""`agent plan`: what a search would cost here, and which effect it could see."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from agent.cli import print_json
from agent.config import SearchConfig
from agent.laboratory import plan_slots
from agent.profiles import resolve_profile
from benchmark.cost import MeasureCost
from benchmark.executor import LocalExecutor
from benchmark.statistics import noise_prior, smallest_visible_effect
from benchmark.tasks import Profile


def run_plan(budget: int, profile_name: str, seeds: int, data_root: Path | None, *, as_json: bool) -> None:
    """Measure, extrapolate, print."""
    profile, reason = resolve_profile(profile_name, data_root=data_root)
    slots, threads, gpus = plan_slots(SearchConfig())
    with LocalExecutor(slots, threads=threads, gpus=gpus) as executor:
        tasks = (*profile.visible, *profile.hidden)
        futures = {task.name: executor.submit(MeasureCost(task), timeout=600) for task in tasks}
        cost = {name: future.result() for name, future in futures.items()}
    plan = make_plan(profile, cost, budget=budget, seeds=seeds, slots=slots)
    if as_json:
        print_json({**plan, "reason": reason})
        return
    print(f"profile {profile.name} ({reason}), budget {budget}, {seeds} seed(s), {slots} evaluation(s) side by side")
    for task in plan["tasks"]:
        print(
            f"  {task['kind']:7} {task['name']}: {task['evaluations']} trainings of about {_time(task['seconds'])}; "
            f"smallest visible effect {task['smallest_visible_effect']:.1f} points"
        )
    print(f"about {_time(plan['seconds'])} in all; {profile.caveat}")
    print(f"next: agent search --budget {budget} --profile {profile.name} --seeds {seeds}", file=sys.stderr)


def make_plan(profile: Profile, cost: dict[str, float], *, budget: int, seeds: int, slots: int) -> dict[str, Any]:
    """Evaluations, seconds and the smallest visible effect (80 % power, best of the tests) per task, and in all.

    `cost` is seconds of one training by task name. Visible tasks train for the baseline and each test, the hidden one
    for baseline and submission.
    """
    tasks = []
    for kind, members, rounds in (("visible", profile.visible, budget + 1), ("hidden", profile.hidden, 2)):
        for task in members:
            effect = smallest_visible_effect(
                noise_prior(profile.name, task.name), seeds, seeds, n_candidates=budget if kind == "visible" else 1
            )
            tasks.append(
                {
                    "name": task.name,
                    "kind": kind,
                    "evaluations": rounds * seeds,
                    "seconds": round(cost[task.name], 1),
                    "smallest_visible_effect": round(effect, 3),
                }
            )
    visible = [cost[task.name] for task in profile.visible for _ in range(seeds)]
    hidden = [cost[task.name] for task in profile.hidden for _ in range(2 * seeds)]
    seconds = (budget + 1) * _makespan(visible, slots) + _makespan(hidden, slots)
    return {
        "profile": profile.name,
        "budget": budget,
        "seeds": seeds,
        "slots": slots,
        "tasks": tasks,
        "seconds": round(seconds, 1),
    }


def _makespan(durations: list[float], slots: int) -> float:
    """When the last of these evaluations ends, if each free slot takes the next one."""
    free = [0.0] * slots
    for duration in durations:
        free.sort()
        free[0] += duration
    return max(free)


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
