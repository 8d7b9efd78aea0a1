"""Opens what carries out a search's evaluations: processes of this machine, a Ray cluster or Slurm jobs."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.config import SearchConfig
from agent.errors import UsageError
from agent.evaluation.gpu_lanes import UNMEASURED, known_lanes
from benchmark.data.pocket import EMBEDDED_NAMES
from benchmark.executors import EngineError, Executor, LocalExecutor
from benchmark.executors.checks import DescribeData
from benchmark.hardware import DescribeEnvironment, cpu_count, gpu_count
from benchmark.tasks import Profile

RUNNING_RAY = Path("/tmp/ray/ray_current_cluster")
DEFAULT_ADDRESS = "auto"


@dataclass(frozen=True)
class Engine:
    """An executor, how it is called in a message, and the environment of its workers if it has asked them."""

    executor: Executor
    words: str
    environment: dict[str, str] | None = None


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
    if gpus:
        lanes = config.workers if isinstance(config.workers, int) else known_lanes(config) or UNMEASURED
        slots = gpus * lanes
        return slots if config.workers != "auto" else min(slots, evaluations or slots), threads or 1, gpus
    if config.kernels not in ("auto", "eager"):
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


def chosen_engine(config: SearchConfig) -> tuple[SearchConfig, tuple[str, ...]]:
    """The configuration with the engine that `auto` means, and the sentence that says which and why."""
    if config.executor != "auto":
        return config, ()
    if importlib.util.find_spec("ray") is not None and RUNNING_RAY.exists():
        name, why = "ray", "a Ray cluster runs here"
    elif importlib.util.find_spec("submitit") is not None and shutil.which("sbatch") is not None:
        name, why = "slurm", "the commands of Slurm are here"
    else:
        name, why = "local", "neither Ray nor Slurm is here"
    return config.model_copy(update={"executor": name}), (f"--executor auto: {name}, because {why}",)


@contextmanager
def open_engine(
    config: SearchConfig,
    say: Callable[[str], None],
    *,
    folder: Path,
    log: Path | None = None,
    evaluations: int | None = None,
    threads: int | None = None,
    datasets: tuple[str, ...] = (),
) -> Iterator[Engine]:
    """The executor that `config` names; it is closed when the block ends.

    `folder` is where jobs leave their answers. `datasets` are compared between machines, but for the embedded ones,
    which are part of the package. See `plan_slots`. Raises UsageError.
    """
    describe = DescribeEnvironment(config.precision, config.kernels)
    data = DescribeData(tuple(sorted(set(datasets) - set(EMBEDDED_NAMES))), config.data_root)
    workers = config.workers if isinstance(config.workers, int) else None
    try:
        if config.executor == "ray":
            from benchmark.executors.ray import RayExecutor, connected

            address = config.ray_address or DEFAULT_ADDRESS
            slots, own_threads, _ = plan_slots(config, evaluations, threads)
            say(f"connecting to Ray at {address}, and starting workers")
            with (
                connected(address, cpus=cpu_count()),
                RayExecutor(
                    slots=workers or evaluations,
                    lanes=workers or 1,
                    threads=threads or own_threads,
                    describe=describe,
                    data=data,
                    say=say,
                ) as on_ray,
            ):
                yield Engine(on_ray, f"Ray at {address}, {on_ray.slots} slots", on_ray.environment)
        elif config.executor == "slurm":
            from benchmark.executors.slurm import SlurmExecutor, parse_options

            options = parse_options(config.slurm)
            say(f"submitting a first job to Slurm ({config.slurm or 'its default partition'})")
            jobs = workers or evaluations or 1
            with SlurmExecutor(
                folder / "slurm", options, slots=jobs, describe=describe, data=data, say=say
            ) as on_slurm:
                yield Engine(on_slurm, f"Slurm, up to {jobs} jobs", on_slurm.environment)
        else:
            slots, own_threads, gpus = plan_slots(config, evaluations, threads)
            words = f"{slots} training process{'' if slots == 1 else 'es'}"
            if gpus:
                words = f"{slots} lane{'' if slots == 1 else 's'} on {gpus} GPU{'' if gpus == 1 else 's'}"
            with LocalExecutor(slots, threads=own_threads, gpus=gpus, log=log, say=say) as here:
                yield Engine(here, words)
    except EngineError as error:
        raise UsageError(str(error)) from None
