"""Where candidates are evaluated: isolation, processes and an evaluator, opened and closed together."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.clock import Clock
from agent.config import SearchConfig
from agent.errors import UsageError
from agent.evaluation.evaluator import Evaluator, Settings
from agent.progress import Progress
from agent.runs.log import Evaluated
from agent.secrets import kept_from_children
from benchmark.executor import Executor, LocalExecutor
from benchmark.hardware import DescribeEnvironment, cpu_count, gpu_count
from benchmark.tasks import Profile
from sandbox.isolate import Isolation, IsolationUnavailable


@dataclass(frozen=True)
class Laboratory:
    """One isolation, in this process, for checks and evaluations; `slots` processes, which train what it made."""

    isolation: Isolation
    evaluator: Evaluator
    environment: dict[str, str]
    slots: int
    executor: Executor


@contextmanager
def open_laboratory(
    config: SearchConfig,
    clock: Clock,
    progress: Progress,
    record: Callable[[Evaluated], None] = lambda event: None,
    *,
    log: Path | None = None,
    evaluations: int | None = None,
    threads: int | None = None,
) -> Iterator[Laboratory]:
    """Start everything that `config` asks for, warm; stop it when the block is left, however it is left.

    `evaluations` and `threads`: see `plan_slots`.
    No process that is started meanwhile inherits a key or token, whichever command asked for the laboratory.
    Raises UsageError when no acceptable isolation works here.
    """
    with ExitStack() as stack:
        stack.enter_context(kept_from_children())
        slots, threads, gpus = plan_slots(config, evaluations, threads)
        executor = stack.enter_context(LocalExecutor(slots, threads=threads, gpus=gpus, log=log))
        # While the isolation starts and its canary flies, the processes import torch.
        describe = [executor.submit(DescribeEnvironment(config.precision)) for _ in range(slots)]
        try:
            isolation = Isolation(level="none" if config.allow_unsandboxed else config.isolation)
        except IsolationUnavailable as error:
            raise UsageError(str(error)) from None
        stack.enter_context(isolation)
        # It started beside the slots, which a search needs anyway: its share of the cores is what it cost.
        clock.add("isolation", isolation.seconds / min(slots + 1, cpu_count()))
        environment, *_ = [future.result() for future in describe]
        isolation.start_second()  # in the background, and after everything that a search waits for
        settings = Settings(environment, config.precision, config.data_root)
        evaluator = Evaluator(settings, executor, isolation, clock, progress, record)
        yield Laboratory(isolation, evaluator, environment, slots, executor)


def side_by_side(config: SearchConfig, profile: Profile) -> int:
    """How many evaluations of a test, or of the hidden pair, can run at a time; most of a search consists of these."""
    return config.seeds * max(len(profile.visible), 2 * len(profile.hidden))


def plan_slots(
    config: SearchConfig, evaluations: int | None = None, threads: int | None = None
) -> tuple[int, int, int]:
    """(slots, CPU threads per slot, GPUs). `auto`: a slot per GPU, else as many as have work, which share the cores.

    evaluations: how many can run at a time (None: enough for all cores). threads: what earlier results were computed
    with, which decides their last digits; None: the cores divided among the slots.
    """
    gpus, cores = gpu_count(), cpu_count()
    if isinstance(config.workers, int):
        slots = config.workers
    else:
        slots = gpus or max(1, min(cores // (threads or 1), evaluations or cores))
    return slots, threads or max(1, cores // slots), gpus


def recorded_threads(environment: object) -> int | None:
    """The threads of an environment from a run directory; None where it has none that a machine could have."""
    text = environment.get("threads") if isinstance(environment, Mapping) else None
    return int(text) if isinstance(text, str) and re.fullmatch("[1-9][0-9]{0,2}", text) else None
