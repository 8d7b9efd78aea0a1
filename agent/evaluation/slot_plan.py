"""How many slots a search gets on this machine, and how many CPU threads each. For GPUs see also `gpu_lanes`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from agent.config import SearchConfig
from agent.errors import UsageError
from agent.evaluation.gpu_lanes import UNMEASURED, known_lanes, require_triton
from benchmark.hardware import cpu_count, gpu_count
from benchmark.tasks import Profile


def plan_slots(
    config: SearchConfig, evaluations: int | None = None, threads: int | None = None
) -> tuple[int, int, int]:
    """(slots, CPU threads per slot, GPUs). `auto`: as many as have work. On a CPU they share the cores.

    On a GPU a slot is a lane, and `workers` is the number of lanes on each. A lane has one thread, whatever runs
    beside it: threads are part of a result's key. `evaluations`: how many can run at a time (None: enough for all
    cores). `threads`: those of earlier results, which decide their last digits (None: the cores are divided among the
    slots).
    """
    gpus, cores = gpu_count(), cpu_count()
    require_triton(config, gpus)
    if gpus:
        lanes = config.workers if isinstance(config.workers, int) else known_lanes(config) or UNMEASURED
        slots = gpus * lanes
        return slots if config.workers != "auto" else min(slots, evaluations or slots), threads or 1, gpus
    if config.kernels not in ("auto", "eager") and config.executor == "local":
        raise UsageError(f"--set kernels={config.kernels}: torch sees no GPU here; a CPU has only eager")
    if isinstance(config.workers, int):
        slots = config.workers
    else:
        slots = max(1, min(cores // (threads or 1), evaluations or cores))
    return slots, threads or max(1, cores // slots), gpus


def side_by_side(config: SearchConfig, profile: Profile) -> int:
    """How many evaluations of the tests in flight, or of the hidden pair, can run at a time: most of a search."""
    tests = min(config.parallel, config.budget)
    return config.seeds * max(tests * len(profile.visible), 2 * len(profile.hidden))


def recorded_threads(environment: object) -> int | None:
    """The threads of an environment from a run directory; None where it has none that a machine could have."""
    text = environment.get("threads") if isinstance(environment, Mapping) else None
    return int(text) if isinstance(text, str) and re.fullmatch("[1-9][0-9]{0,2}", text) else None
