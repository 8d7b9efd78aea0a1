"""The workbench: isolation, training processes and an evaluator, which are opened and closed together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.clock import Clock
from agent.config import SearchConfig
from agent.errors import UsageError
from agent.evaluation.engines import open_engine
from agent.evaluation.evaluator import Evaluator, Settings
from agent.evaluation.slot_plan import plan_slots
from agent.progress import Progress
from agent.runs.events import Evaluated
from agent.secrets import kept_from_children
from benchmark.executors import Executor
from benchmark.hardware import DescribeEnvironment, cpu_count
from sandbox.isolate import Isolation, IsolationUnavailable


@dataclass(frozen=True)
class Workbench:
    """One isolation for checks and evaluations, owned by this process, and `slots` processes that train."""

    isolation: Isolation
    evaluator: Evaluator
    environment: dict[str, str]
    slots: int
    executor: Executor


@contextmanager
def open_workbench(
    config: SearchConfig,
    clock: Clock,
    progress: Progress,
    record: Callable[[Evaluated], None] = lambda event: None,
    *,
    log: Path | None = None,
    evaluations: int | None = None,
    threads: int | None = None,
    checkpoints: Path | None = None,
    datasets: tuple[str, ...] = (),
    repeats: bool = True,
) -> Iterator[Workbench]:
    """Start isolation and processes as `config` says, and stop them when the block ends.

    `evaluations` and `threads`: see `plan_slots`. `checkpoints`: a folder for those of long trainings. `datasets`: see
    `open_engine`. `repeats`: start the interpreter that runs candidates a second time, before one needs it. Processes
    that are started in the block inherit no key or token. Raises UsageError when no acceptable isolation works here, or
    the engine does not.
    """
    with ExitStack() as stack:
        stack.enter_context(kept_from_children())
        folder = config.runs if log is None else log.parent
        engine = stack.enter_context(
            open_engine(
                config,
                progress.message,
                folder=folder,
                log=log,
                plan=plan_slots(config, evaluations, threads),
                evaluations=evaluations,
                datasets=datasets,
            )
        )
        executor = engine.executor
        slots = executor.slots
        progress.message(f"starting {engine.words}, and the isolation with its self-test")
        # Submit first, so that workers import torch while isolation starts and runs its self-test.
        call = DescribeEnvironment(config.precision, config.kernels)
        describe = [] if engine.environment else [executor.submit(call) for _ in range(slots)]
        try:
            isolation = Isolation(level="none" if config.allow_unsandboxed else config.isolation, at_once=repeats)
        except IsolationUnavailable as error:
            raise UsageError(str(error)) from None
        stack.enter_context(isolation)
        # Isolation started in parallel with the slots, so it cost only its share of the cores.
        clock.add("isolation", isolation.seconds / min(slots + 1, cpu_count()))
        progress.message(f"isolation: {in_words(isolation)}")
        known = [future.result() for future in describe]
        environment = engine.environment or known[0]
        progress.message(f"{engine.words} ready: {environment.get('device')}, precision {environment.get('precision')}")
        settings = Settings(environment, config.precision, config.data_root, checkpoints)
        evaluator = Evaluator(settings, executor, isolation, clock, progress, record)
        yield Workbench(isolation, evaluator, environment, slots, executor)


def in_words(isolation: Isolation) -> str:
    """The level, how long it took to start, and why no stronger one was taken."""
    stronger = isolation.evidence["stronger_levels"]
    reasons = [f"; not {name}: {reason}" for name, reason in dict(stronger).items()]  # type: ignore[call-overload]
    return f"{isolation.level}, started and tested in {isolation.seconds:.0f} s{''.join(reasons)}"
