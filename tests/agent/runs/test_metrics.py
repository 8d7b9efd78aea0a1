"""The gains of a run under names that say their unit, for other programs."""

from __future__ import annotations

from typing import Any

import pytest

from agent.errors import UsageError
from agent.runs.metrics import named_gains, reward_metric
from benchmark.task import ACCURACY, Metric

LOSS = Metric("val_loss", "minimize")


def summary(visible: dict[str, tuple[Metric, float | None]], hidden: dict[str, tuple[Metric, float | None]]) -> Any:
    """A run.json: task → its metric and the gain of the submission on it."""
    kinds = {"visible": visible, "hidden": hidden}
    found: dict[str, Any] = {
        kind: {task: {"gain": gain} for task, (_, gain) in tasks.items()} for kind, tasks in kinds.items()
    }
    found["tasks"] = {
        kind: [
            {"name": task, **({} if metric == ACCURACY else {"metric": vars(metric)})}
            for task, (metric, _) in tasks.items()
        ]
        for kind, tasks in kinds.items()
    }
    return found


def test_gains_in_points_keep_their_names() -> None:
    run = summary({"a": (ACCURACY, 1.0), "b": (ACCURACY, 2.0)}, {"c": (ACCURACY, -0.5)})
    assert named_gains(run) == {"visible_gain": 1.5, "hidden_gain": -0.5}


def test_gains_in_another_metric_have_its_name() -> None:
    """An Inspect log showed a gain in val_loss as if it were points, and averaged it with points."""
    run = summary({"a": (ACCURACY, 1.0), "b": (LOSS, 0.2), "d": (LOSS, 0.4)}, {"c": (LOSS, None)})
    assert named_gains(run) == {
        "visible_gain": 1.0,
        "visible_gain_val_loss": pytest.approx(0.3),
        "hidden_gain_val_loss": 0.0,
    }


def test_nothing_submitted_is_no_gain_in_each_metric_and_no_hidden_task_has_none() -> None:
    run = summary({"b": (LOSS, 0.2)}, {})
    assert named_gains({**run, "visible": {}}) == {"visible_gain_val_loss": 0.0}


def test_one_reward_has_one_metric() -> None:
    assert reward_metric([ACCURACY, LOSS], [LOSS]) == LOSS
    assert reward_metric([LOSS], []) == LOSS
    assert reward_metric([LOSS], [ACCURACY, ACCURACY]) == ACCURACY
    with pytest.raises(UsageError, match="accuracy and val_loss, so there is no one reward"):
        reward_metric([ACCURACY, LOSS], [])
