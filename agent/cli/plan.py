"""`agent plan`: estimates the cost of a search and its smallest detectable effect."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from agent.cli.app import DataRootOption, JsonFlag, ProfileOption, SeedsOption, WorkersOption, app
from agent.cli.output import print_json, print_next


@app.command()
def plan(
    budget: Annotated[int, typer.Option(min=1, max=1000, help="Tests.")] = 3,
    profile: ProfileOption = "auto",
    seeds: SeedsOption = None,
    baseline_seeds: Annotated[
        int | None, typer.Option(help="Training runs per visible task of the baseline (default: as --seeds).")
    ] = None,
    confirm: Annotated[int | None, typer.Option(help="As for search: fresh seeds for the finalists.")] = None,
    screen: Annotated[
        float | None, typer.Option(help="As for search: what screening may cost per test, as a share of a test.")
    ] = None,
    workers: WorkersOption = None,
    effect: Annotated[
        float | None,
        typer.Option(help="Find designs that detect this mean gain in points on the visible tasks."),
    ] = None,
    data_root: DataRootOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Estimate cost and detectable effect of a search. Measures a few training steps.

    \b
    Examples:
      agent plan --budget 3
      agent plan --budget 3 --effect 2
      agent plan --budget 10 --confirm 5
      agent plan --profile paper --seeds 3 --json
    """
    from agent.analysis.design import Design, duration, in_words, make_plan, points, with_overhead
    from agent.analysis.noise import noise_here
    from agent.config import load_config
    from agent.engine.auto_profile import choose_profile
    from agent.evaluation.workbench import plan_slots, side_by_side
    from agent.profiles import with_default_seeds
    from agent.report.cost import machine_in_words, measure
    from benchmark.executors import LocalExecutor

    config = load_config(
        {
            "budget": budget,
            "profile": profile,
            "seeds": seeds,
            "baseline_seeds": baseline_seeds,
            "confirm": confirm,
            "screen": screen,
            "workers": workers,
            "data_root": data_root,
        }
    )
    chosen, reason = choose_profile(config, lambda text: print(text, file=sys.stderr, flush=True))
    config = with_default_seeds(config, chosen)
    slots, threads, gpus = plan_slots(config, side_by_side(config, chosen))
    print("measuring the start of a search and a few training steps of each task", file=sys.stderr, flush=True)
    level = "none" if config.allow_unsandboxed else config.isolation
    with LocalExecutor(slots, threads=threads, gpus=gpus) as executor:
        cost, overhead, environment = measure(
            chosen, executor, precision=config.precision, level=level, kernels=config.kernels
        )
    noise = noise_here(chosen, environment, cache=config.cache, given=dict(chosen.noise))
    found = make_plan(chosen, cost, Design.of(config), slots=slots, effect=effect, noise=noise)
    found = {**with_overhead(found, overhead), "environment": environment}
    if as_json:
        print_json({**found, "reason": reason})
        return
    side = f"{slots} evaluation(s) side by side" + (f" with {threads} threads each" if threads > 1 else "")
    print(f"profile {chosen.name} ({reason}), {found['flags']}, {side}")
    for task in found["tasks"]:
        print(
            f"  {task['kind']:7} {task['name']}: {task['evaluations']} trainings of about {duration(task['seconds'])}; "
            f"smallest detectable effect {points(task['smallest_visible_effect'])}"
        )
    print("besides training: " + ", ".join(f"{name} {duration(part)}" for name, part in found["overhead"].items()))
    print(f"measured here and now: {machine_in_words(environment)}")
    print("\n".join(in_words(found)))
    print(chosen.caveat)
    print_next(f"agent search {found['flags']} --profile {config.profile if chosen.is_own else chosen.name}")
