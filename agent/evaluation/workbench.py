"""The workbench: isolation, training processes and an evaluator, which are opened and closed together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
from sandbox.isolate import Isolation, IsolationUnavailable


@dataclass(frozen=True)
class Workbench:
    """One isolation for checks and evaluations, owned by this process, and `slots` processes that train."""

    isolation: Isolation
    evaluator: Evaluator
    environment: dict[str, str]
    slots: int
    executor: Executor
    stop_evaluating: Callable[[], None]
    """Stops the training processes to free their memory. The isolation stays open."""


@contextmanager
def open_workbench(
    config: SearchConfig,
    clock: Clock,
    progress: Progress,
    record: Callable[[Evaluated], None] = lambda event: None,
    *,
    log: Path | None = None,
) -> Iterator[Workbench]:
    """Start isolation and processes as `config` says, and stop them when the block ends.

    Processes that are started in the block inherit no key or token. Raises UsageError when no acceptable isolation
    works here.
    """
    with ExitStack() as stack:
        stack.enter_context(kept_from_children())
        slots, threads, gpus = plan_slots(config)
        executor = stack.enter_context(LocalExecutor(slots, threads=threads, gpus=gpus, log=log))
        count = f"{slots} training process{'' if slots == 1 else 'es'}"
        progress.message(f"starting {count}, and the isolation with its self-test")
        # Submit first, so that workers import torch while isolation starts and runs its self-test.
        describe = [executor.submit(DescribeEnvironment(config.precision)) for _ in range(slots)]
        try:
            isolation = Isolation(level="none" if config.allow_unsandboxed else config.isolation)
        except IsolationUnavailable as error:
            raise UsageError(str(error)) from None
        stack.enter_context(isolation)
        # Isolation started in parallel with the slots, so it cost only its share of the cores.
        clock.add("isolation", isolation.seconds / min(slots + 1, cpu_count()))
        progress.message(f"isolation: {in_words(isolation)}")
        environment, *_ = [future.result() for future in describe]
        progress.message(f"{count} ready: {environment.get('device')}, precision {environment.get('precision')}")
        isolation.start_second()  # in the background, after everything that a search waits for
        settings = Settings(environment, config.precision, config.data_root)
        evaluator = Evaluator(settings, executor, isolation, clock, progress, record)
        yield Workbench(isolation, evaluator, environment, slots, executor, executor.close)


def in_words(isolation: Isolation) -> str:
    """The level, how long it took to start, and why no stronger one was taken."""
    stronger = isolation.evidence["stronger_levels"]
    reasons = [f"; not {name}: {reason}" for name, reason in dict(stronger).items()]  # type: ignore[call-overload]
    return f"{isolation.level}, started and tested in {isolation.seconds:.0f} s{''.join(reasons)}"


def plan_slots(config: SearchConfig) -> tuple[int, int, int]:
    """(slots, CPU threads per slot, GPUs). `auto`: one slot per GPU, else one slot per core with one thread each."""
    gpus, cores = gpu_count(), cpu_count()
    slots = config.workers if isinstance(config.workers, int) else (gpus or cores)
    return slots, max(1, cores // slots), gpus
