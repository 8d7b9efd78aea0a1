"""What the scores of a run's tasks are, as its run.json says. Anybody may have written it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from agent.errors import UsageError
from agent.runs.log_lines import Fields
from agent.runs.untrusted import mapping, mappings
from benchmark.task import ACCURACY, Metric, common_metric

_LONGEST = 120


def task_metrics(summary: Fields, kinds: Sequence[str] = ("visible", "hidden")) -> dict[str, Metric]:
    """Task → its metric, for the tasks of these kinds. Accuracy where a task names none."""
    found = {}
    for kind in kinds:
        for task in mappings(mapping(summary.get("tasks")).get(kind)):
            if isinstance(task.get("name"), str):
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
    metrics = task_metrics(summary)
    gains: dict[Metric, list[float]] = {}
    for task, one in mapping(summary.get(kind)).items():
        gain = mapping(one).get("gain")
        if gain is None:
            return None
        gains.setdefault(metrics.get(task, ACCURACY), []).append(gain)
    return {metric: sum(values) / len(values) for metric, values in gains.items()} or None


def gain_name(kind: str, metric: Metric, end: str = "") -> str:
    """The name of a mean gain for other programs: `hidden_gain` in points, `hidden_gain_val_loss` in another metric."""
    return f"{kind}_gain{end}" + ("" if metric.is_accuracy else f"_{metric.name}")


def named_gains(summary: Fields) -> dict[str, float]:
    """The mean gains of run.json by their names, one for each kind of task and metric; 0 if it is not known."""
    found = {}
    for kind in ("visible", "hidden"):
        gains = gains_by_metric(summary, kind) or {}
        for metric in dict.fromkeys(task_metrics(summary, [kind]).values()):
            found[gain_name(kind, metric)] = gains.get(metric, 0.0)
    return found


def reward_metric(visible: Iterable[Metric], hidden: Iterable[Metric]) -> Metric:
    """What the reward is made of: the metric of the hidden tasks, or of the visible ones where none is hidden.

    Raises UsageError where these tasks have several metrics, which no single number can be the mean of.
    """
    judged = set(hidden) or set(visible)
    if len(judged) > 1:
        names = " and ".join(sorted(metric.name for metric in judged))
        raise UsageError(f"the tasks that a submission is judged on have scores of {names}, so there is no one reward")
    return common_metric(judged)
