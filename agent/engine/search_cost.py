"""What a search takes on this machine, measured: its start, its checks, a training of each task, and its page."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.analysis.planning import Overhead
from agent.evaluation.calls import job_for
from agent.profiles import baseline_region
from benchmark.cost import MeasureCost, measure_costs, work
from benchmark.executors import Executor, Parent
from benchmark.hardware import DescribeEnvironment
from benchmark.tasks import Profile, Task

if TYPE_CHECKING:
    from sandbox.isolate import Level

_CHECKS = 3
"""Initialisations of each visible network before a test."""
_SIDES = 2
"""The page measures each network with the baseline and with the submission."""
_PAGE_STARTS = 1.0
"""Importing torch and the libraries that draw, and drawing, in units of the start of a training process."""


@dataclass(frozen=True)
class MeasureSignal:
    """A call for an executor: seconds that the page needs to measure the network of `task`, without its start."""

    task: Task

    def __call__(self, parent: Parent) -> float:
        """Build the network and send pictures of noise through it, as the page does with real ones."""
        import torch

        from agent.report.network import IMAGES, describe_parameters
        from benchmark.building import build_task_model
        from benchmark.hardware import threads
        from benchmark.signal_stats import signal_statistics

        torch.set_num_threads(threads())
        started = time.monotonic()
        if self.task.trainer is not None:
            return 0.0  # the page has no signal of such a network
        model = build_task_model(self.task, 0)
        labels = torch.arange(IMAGES) % self.task.num_classes
        signal_statistics(model, torch.randn(IMAGES, *self.task.picture), labels)
        describe_parameters(model)
        return time.monotonic() - started


def measure(
    profile: Profile, executor: Executor, *, precision: str, level: Level, kernels: str = "auto"
) -> tuple[dict[str, float], Overhead, dict[str, str]]:
    """Seconds of one training by task name, what comes on top of training, and the environment they hold for.

    Raises InfrastructureError when our own machinery fails. Where candidates cannot be isolated, their checks count 0.
    """
    tasks = profile.tasks
    started = time.monotonic()
    describe = [executor.submit(DescribeEnvironment(precision, kernels)) for _ in range(executor.slots)]
    process: list[float] = []
    describe[0].add_done_callback(lambda _: process.append(time.monotonic() - started))
    made = _initialisations(tasks, level, baseline_region(profile))  # while the processes import torch, as in a search
    environment, *_ = [future.result() for future in describe]
    ready = time.monotonic() - started - sum(made.values())
    again = time.monotonic()
    cost = {
        task.name: seconds
        for task, seconds in measure_costs(tasks, executor, precision=precision, kernels=kernels).items()
    }
    warm = time.monotonic() - again - sum(_steps(task, cost[task.name]) for task in tasks) / executor.slots
    signals = [executor.submit(MeasureSignal(task), timeout=600) for task in tasks]
    page = _SIDES * (sum(future.result() for future in signals) + sum(made.values())) + _PAGE_STARTS * process[0]
    checks = _CHECKS * sum(made[task.name] for task in profile.visible)
    return cost, Overhead(max(0.0, ready) + max(0.0, warm), checks, page), environment


def engine_seconds(executor: Executor) -> float:
    """Seconds of an evaluation that does nothing, on another machine: for Slurm a job in its queue. 0 on this one."""
    if not executor.remote:
        return 0.0
    started = time.monotonic()
    executor.submit(DescribeEnvironment()).result()
    return time.monotonic() - started


def _steps(task: Task, cost: float) -> float:
    """Seconds of the two passes that `MeasureCost` trains; what it takes beyond them is warming up."""
    whole = work(task)
    if not whole:
        return 0.0  # a task with a trainer of its own, of which no step can be taken
    return 2 * MeasureCost(task).steps * task.recipe.batch_size * cost / whole


def _initialisations(tasks: tuple[Task, ...], level: Level, region: str) -> dict[str, float]:
    """Seconds of one isolated initialisation by task name."""
    from sandbox.isolate import Isolation, IsolationUnavailable

    try:
        with Isolation(level=level) as isolation:
            jobs = {task.name: job_for(task, region, 0) for task in tasks}
            return {name: isolation.initialise(job).seconds for name, job in jobs.items()}
    except IsolationUnavailable:
        return {task.name: 0.0 for task in tasks}


def machine_in_words(environment: Mapping[str, str]) -> str:
    """The processor and its precision; on one without bfloat16, that it costs twice the time."""
    precision = environment["precision"]
    slow = precision == "fp32" and environment["device"].startswith("cpu")
    note = " (a processor with bfloat16 takes about half the time)" if slow else ""
    return f"{environment['device']} {environment['capability']}, precision {precision}{note}"
