"""`agent plan`: estimates the cost of a search and its smallest detectable effect."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli.app import (
    DataRootOption,
    ExecutorOption,
    JsonFlag,
    ParallelOption,
    ProfileOption,
    RayAddressOption,
    SeedsOption,
    SlurmOption,
    WorkersOption,
    app,
    settings_given,
)
from agent.cli.output import print_json, print_next, say

if TYPE_CHECKING:
    from agent.config import SearchConfig


@app.command()
def plan(
    ctx: typer.Context,
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
    parallel: ParallelOption = None,
    executor: ExecutorOption = None,
    ray_address: RayAddressOption = None,
    slurm: SlurmOption = None,
    effect: Annotated[
        float | None,
        typer.Option(help="Find designs that detect this mean gain on the visible tasks (points, or their metric)."),
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
      agent plan --profile paper --parallel 3 --executor ray
    """
    from agent.analysis.design import Design
    from agent.analysis.known_noise import noise_here
    from agent.analysis.planning import duration, effect_in_words, in_words, make_plan, with_overhead
    from agent.config import load_config
    from agent.engine.auto_profile import choose_profile
    from agent.engine.resuming import EngineGiven
    from agent.engine.search_cost import engine_seconds, machine_in_words, measure
    from agent.engine.setup import settled
    from agent.evaluation.engines import open_engine
    from agent.evaluation.slot_plan import plan_slots, side_by_side
    from agent.profiles import with_default_seeds

    config = load_config(settings_given(ctx))
    chosen, reason = choose_profile(config, say)
    config, notes = settled(with_default_seeds(config, chosen))
    for note in (*notes, "measuring the start of a search and a few training steps of each task"):
        say(note)
    most = side_by_side(config, chosen)
    level = "none" if config.allow_unsandboxed else config.isolation
    with (
        tempfile.TemporaryDirectory(prefix="initsearch-plan-", dir=_shared(config)) as folder,
        open_engine(config, say, folder=Path(folder), plan=plan_slots(config, most), evaluations=most) as engine,
    ):
        slots, words = engine.executor.slots, engine.words
        cost, overhead, environment = measure(
            chosen, engine.executor, precision=config.precision, level=level, kernels=config.kernels
        )
        each = engine_seconds(engine.executor)
    cost = {task: seconds + each for task, seconds in cost.items()}
    noise = noise_here(chosen, environment, cache=config.cache)
    found = make_plan(chosen, cost, Design.of(config), slots=slots, effect=effect, noise=noise)
    found = {**with_overhead(found, overhead), "environment": environment}
    if config.executor != "local":
        found["engine_seconds"] = round(each, 2)
    if as_json:
        print_json({**found, "reason": reason})
        return
    threads = int(environment.get("threads", "1"))
    evaluations = "1 evaluation" if slots == 1 else f"{slots} evaluations"
    side = f"{evaluations} side by side" + (f" with {threads} threads each" if threads > 1 else "")
    if config.executor != "local":
        side += f" on {words}"
    print(f"profile {chosen.name} ({reason}), {found['flags']}, {side}")
    for task in found["tasks"]:
        detected = effect_in_words(task["smallest_visible_effect"], task.get("metric", "points"))
        print(
            f"  {task['kind']:7} {task['name']}: {task['evaluations']} trainings of about {duration(task['seconds'])}; "
            f"smallest detectable effect {detected}"
        )
    if config.executor != "local":
        print(f"each training includes {each:.1f} s that {config.executor} took for an evaluation that does nothing")
    print("besides training: " + ", ".join(f"{name} {duration(part)}" for name, part in found["overhead"].items()))
    print(f"measured here and now: {machine_in_words(environment)}")
    print("\n".join(in_words(found)))
    if chosen.caveat:
        print(chosen.caveat)
    where = f" {EngineGiven.of(config).flags}" if config.executor != "local" else ""
    print_next(f"agent search {found['flags']} --profile {config.profile if chosen.is_own else chosen.name}{where}")


def _shared(config: SearchConfig) -> Path | None:
    """The folder for what Slurm's jobs leave: on the shared file system, as a run would be."""
    return Path.cwd() if config.executor == "slurm" else None
