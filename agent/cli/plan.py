"""`agent plan`: what a search would cost here, and which effect it could see."""

from __future__ import annotations

import sys
from pathlib import Path

from agent.analysis.design import Design, duration, in_words, make_plan
from agent.cli.output import print_json
from agent.config import load_config
from agent.evaluation.workbench import plan_slots
from agent.profiles import resolve_profile
from benchmark.cost import MeasureCost
from benchmark.executor import LocalExecutor


def run_plan(
    budget: int,
    profile_name: str,
    seeds: int,
    data_root: Path | None,
    *,
    baseline_seeds: int | None = None,
    confirm: int | None = None,
    screen: float | None = None,
    workers: str | None = None,
    effect: float | None = None,
    as_json: bool,
) -> None:
    """Measure, extrapolate, print."""
    flags = {"budget": budget, "seeds": seeds, "baseline_seeds": baseline_seeds, "workers": workers}
    config = load_config(
        {**flags, "confirm": confirm, "screen": screen, "profile": profile_name, "data_root": data_root}
    )
    profile, reason = resolve_profile(config.profile, data_root=data_root)
    slots, threads, gpus = plan_slots(config)
    with LocalExecutor(slots, threads=threads, gpus=gpus) as executor:
        tasks = (*profile.visible, *profile.hidden)
        futures = {task.name: executor.submit(MeasureCost(task), timeout=600) for task in tasks}
        cost = {name: future.result() for name, future in futures.items()}
    plan = make_plan(profile, cost, Design.of(config), slots=slots, effect=effect)
    if as_json:
        print_json({**plan, "reason": reason})
        return
    print(f"profile {profile.name} ({reason}), {plan['flags']}, {slots} evaluation(s) side by side")
    for task in plan["tasks"]:
        print(
            f"  {task['kind']:7} {task['name']}: {task['evaluations']} trainings of about {duration(task['seconds'])}; "
            f"smallest visible effect {task['smallest_visible_effect']:.1f} points"
        )
    print("\n".join(in_words(plan)))
    print(profile.caveat)
    print(f"next: agent search {plan['flags']} --profile {profile.name}", file=sys.stderr)
