"""Chooses and opens what carries out a search's evaluations: processes of this machine, a Ray cluster or Slurm jobs."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.config import SearchConfig
from agent.errors import UsageError
from benchmark.data.pocket import EMBEDDED_NAMES
from benchmark.executors import EngineError, Executor, LocalExecutor
from benchmark.executors.checks import DescribeData
from benchmark.hardware import DescribeEnvironment, cpu_count

RUNNING_RAY = Path("/tmp/ray/ray_current_cluster")
DEFAULT_ADDRESS = "auto"
SUBMITIT = ".submitit"
"""Folder beside the runs for submitit's scripts, pickled calls and logs. Only the jobs read it."""


@dataclass(frozen=True)
class Engine:
    """An executor, how it is called in a message, and the environment of its workers if it has asked them."""

    executor: Executor
    words: str
    environment: dict[str, str] | None = None


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


def check_engine(config: SearchConfig) -> None:
    """Check what can be checked for free: packages, programs, options, and whether something listens at the address.

    Raises UsageError.
    """
    try:
        if config.executor == "ray":
            from benchmark.executors.ray_cluster import require_reachable

            require_reachable(config.ray_address or DEFAULT_ADDRESS)
        elif config.executor == "slurm":
            from benchmark.executors.slurm_jobs import parse_options, require_programs

            parse_options(config.slurm)
            require_programs()
    except EngineError as error:
        raise UsageError(str(error)) from None


@contextmanager
def open_engine(
    config: SearchConfig,
    say: Callable[[str], None],
    *,
    folder: Path,
    log: Path | None = None,
    plan: tuple[int, int, int],
    evaluations: int | None = None,
    datasets: tuple[str, ...] = (),
) -> Iterator[Engine]:
    """The executor that `config` names; it is closed when the block ends.

    `plan`: slots, threads and GPUs of this machine. `evaluations`: how many can run at a time. `folder` is where jobs
    leave their answers. `datasets` are compared between machines, but for the embedded ones, which are part of the
    package. Raises UsageError.
    """
    describe = DescribeEnvironment(config.precision, config.kernels)
    data = DescribeData(tuple(sorted(set(datasets) - set(EMBEDDED_NAMES))), config.data_root)
    slots, threads, gpus = plan
    workers = config.workers if isinstance(config.workers, int) else None
    try:
        if config.executor == "ray":
            from benchmark.executors.ray import RayExecutor
            from benchmark.executors.ray_cluster import connected

            address = config.ray_address or DEFAULT_ADDRESS
            say(f"connecting to Ray at {address}, and starting workers")
            with (
                connected(address, cpus=cpu_count()),
                RayExecutor(
                    slots=evaluations,
                    workers=workers,
                    threads=threads,
                    describe=describe,
                    data=data,
                    say=say,
                ) as on_ray,
            ):
                _require_gpu(config, on_ray.environment)
                yield Engine(on_ray, f"Ray at {address}, {on_ray.slots} slots", on_ray.environment)
        elif config.executor == "slurm":
            from benchmark.executors.slurm import SlurmExecutor
            from benchmark.executors.slurm_jobs import parse_options

            options = parse_options(config.slurm)
            say(f"submitting a first job to Slurm ({config.slurm or 'its default partition'})")
            lanes = int(options.get("lanes", 1))
            jobs = workers or -(-(evaluations or 1) // lanes)
            with SlurmExecutor(
                folder / "slurm",
                options,
                slots=jobs,
                describe=describe,
                data=data,
                say=say,
                jobs_folder=folder.parent / SUBMITIT,  # it makes links, which a run must not contain
            ) as on_slurm:
                _require_gpu(config, on_slurm.environment)
                words = f"Slurm, up to {jobs} job{'' if jobs == 1 else 's'}" + (f" of {lanes} lanes" * (lanes > 1))
                yield Engine(on_slurm, words, on_slurm.environment)
        else:
            words = f"{slots} training process{'' if slots == 1 else 'es'}"
            if gpus:
                words = f"{slots} lane{'' if slots == 1 else 's'} on {gpus} GPU{'' if gpus == 1 else 's'}"
            with LocalExecutor(slots, threads=threads, gpus=gpus, log=log, say=say) as here:
                yield Engine(here, words)
    except EngineError as error:
        raise UsageError(str(error)) from None


def _require_gpu(config: SearchConfig, environment: dict[str, str]) -> None:
    """Raise EngineError when the kernels of a GPU were asked for and the machines have none."""
    device = environment.get("device", "")
    if config.kernels not in ("auto", "eager") and device.startswith("cpu"):
        raise EngineError(
            f"--set kernels={config.kernels} needs GPUs, and torch on the machines of {config.executor} uses none "
            f"(device {device}): add them to the cluster or to --slurm, or leave kernels out"
        )
    if environment.get("triton") == "missing":
        raise EngineError(
            f"--set kernels=triton needs a GPU and the package triton, which the machines of {config.executor} lack: "
            "pip install triton there, or leave kernels out"
        )
