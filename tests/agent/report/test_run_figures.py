"""Learning curves of 200 epochs, as `paper` has them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.report.run_figures import curve_line, learning_curves
from benchmark.results import EpochMetrics, EvaluationResult
from tests.benchmark.test_store import make_result


def long_result(final: float, epochs: int) -> EvaluationResult:
    """A curve that rises to `final` percent."""
    curve = tuple(
        EpochMetrics(
            epoch=epoch,
            train_loss=1.0,
            train_acc=50.0,
            test_loss=1.0,
            test_acc=final * (1 - 0.5 ** (1 + 8 * epoch / epochs)),
            lr=0.1,
            seconds=float(epoch),
        )
        for epoch in range(1, epochs + 1)
    )
    return make_result("0" * 64, final).model_copy(update={"curve": curve})


@pytest.mark.parametrize(("epochs", "titles"), [(3, ["task"]), (200, ["task", "task, epochs 151 to 200"])])
def test_the_end_of_a_long_training_has_a_figure(epochs: int, titles: list[str]) -> None:
    """Half a point between two curves that climb from 1 to 75 % was less than the width of a line."""
    sides = {"baseline": 74.5, "test/1": 75.0}
    record = SimpleNamespace(
        metrics={},
        tasks=lambda kind: [{"name": "task"}] if kind == "visible" else [],
        curves=lambda role, name: [long_result(sides[role] + seed / 10, epochs) for seed in range(3)],
    )
    drawings = learning_curves(cast(Any, record), cast(Any, SimpleNamespace(subject=1)))
    assert [drawing.title for drawing in drawings] == titles
    line = curve_line("test 1", record.curves("test/1", "task"))
    assert line is not None
    assert len(line.x) == epochs
    if epochs == 200:
        assert "baseline, 3 seeds from 74.0 " in drawings[1].svg
        assert "test 1, 3 seeds from 74.5 " in drawings[1].svg
