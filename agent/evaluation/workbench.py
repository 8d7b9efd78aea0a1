"""Where candidates are evaluated: isolation, processes and an evaluator, opened and closed together."""

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
class Laboratory:
    """One isolation, in this process, for checks and evaluations; `slots` processes, which train what it made."""

    isolation: Isolation
    evaluator: Evaluator
    environment: dict[str, str]
    slots: int
    executor: Executor
    stop_evaluating: Callable[[], None]
    """Give back the processes and their memory before something else needs it; the isolation stays."""


@contextmanager
def open_laboratory(
    config: SearchConfig,
    clock: Clock,
    progress: Progress,
    record: Callable[[Evaluated], None] = lambda event: None,
    *,
    log: Path | None = None,
) -> Iterator[Laboratory]:
    """Start everything that `config` asks for, warm; stop it when the block is left, however it is left.

    No process that is started meanwhile inherits a key or token, whichever command asked for the laboratory.
    Raises UsageError when no acceptable isolation works here.
    """
    with ExitStack() as stack:
        stack.enter_context(kept_from_children())
        slots, threads, gpus = plan_slots(config)
        executor = stack.enter_context(LocalExecutor(slots, threads=threads, gpus=gpus, log=log))
        count = f"{slots} training process{'' if slots == 1 else 'es'}"
        progress.message(f"starting {count}, and the isolation with its self-test")
        # While the isolation starts and its canary flies, the processes import torch.
        describe = [executor.submit(DescribeEnvironment(config.precision)) for _ in range(slots)]
        try:
            isolation = Isolation(level="none" if config.allow_unsandboxed else config.isolation)
        except IsolationUnavailable as error:
            raise UsageError(str(error)) from None
        stack.enter_context(isolation)
        # It started beside the slots, which a search needs anyway: its share of the cores is what it cost.
        clock.add("isolation", isolation.seconds / min(slots + 1, cpu_count()))
        progress.message(f"isolation: {in_words(isolation)}")
        environment, *_ = [future.result() for future in describe]
        progress.message(f"{count} ready: {environment.get('device')}, precision {environment.get('precision')}")
        isolation.start_second()  # in the background, and after everything that a search waits for
        settings = Settings(environment, config.precision, config.data_root)
        evaluator = Evaluator(settings, executor, isolation, clock, progress, record)
        yield Laboratory(isolation, evaluator, environment, slots, executor, executor.close)


def in_words(isolation: Isolation) -> str:
    """The level, how long it took to start, and why no stronger one was taken."""
    stronger = isolation.evidence["stronger_levels"]
    reasons = [f"; not {name}: {reason}" for name, reason in dict(stronger).items()]  # type: ignore[call-overload]
    return f"{isolation.level}, started and tested in {isolation.seconds:.0f} s{''.join(reasons)}"


def plan_slots(config: SearchConfig) -> tuple[int, int, int]:
    """(slots, CPU threads per slot, GPUs). `auto`: a slot per GPU, else a slot per core with one thread each."""
    gpus, cores = gpu_count(), cpu_count()
    slots = config.workers if isinstance(config.workers, int) else (gpus or cores)
    return slots, max(1, cores // slots), gpus
