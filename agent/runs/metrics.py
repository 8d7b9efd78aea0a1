"""What the scores of a run's tasks are, as its run.json says. Anybody may have written it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.runs.log_lines import Fields
from benchmark.task import ACCURACY, Metric

_LONGEST = 120


def task_metrics(summary: Fields) -> dict[str, Metric]:
    """Task → its metric, for the visible and the hidden tasks. Accuracy where it names none."""
    found = {}
    kinds = summary.get("tasks")
    for kind in ("visible", "hidden"):
        tasks = kinds.get(kind) if isinstance(kinds, Mapping) else None
        for task in tasks if isinstance(tasks, list) else []:
            if isinstance(task, Mapping) and isinstance(task.get("name"), str):
                found[task["name"]] = read_metric(task.get("metric"))
    return found


def read_metric(fields: object) -> Metric:
    """The metric that these fields, `name` and `direction`, describe; accuracy where they describe none."""
    if not isinstance(fields, Mapping) or not isinstance(fields.get("name"), str):
        return ACCURACY
    minimized = fields.get("direction") == "minimize"
    return Metric(fields["name"][:_LONGEST], "minimize" if minimized else "maximize")


def gains_by_metric(summary: Fields, kind: str) -> dict[Metric, float] | None:
    """Metric → mean gain over those `visible` or `hidden` tasks of run.json; None without tasks or where one failed."""
    tasks, metrics = summary.get(kind), task_metrics(summary)
    gains: dict[Metric, list[float]] = {}
    for task, one in tasks.items() if isinstance(tasks, Mapping) else ():
        gain: Any = one.get("gain") if isinstance(one, Mapping) else None
        if gain is None:
            return None
        gains.setdefault(metrics.get(task, ACCURACY), []).append(gain)
    return {metric: sum(values) / len(values) for metric, values in gains.items()} or None
