"""The lines in which training is reported, the same by hand and in the reply of the `test` tool."""

from __future__ import annotations

from collections.abc import Sequence

from benchmark.results import EpochMetrics

_SHOWN = 5


def train_metrics_line(metrics: EpochMetrics) -> str:
    """One epoch: accuracies in percent, losses in nats."""
    return (
        f"TRAIN_METRICS: epoch={metrics.epoch} train_loss={metrics.train_loss:.4f} train_acc={metrics.train_acc:.2f} "
        f"test_loss={metrics.test_loss:.4f} test_acc={metrics.test_acc:.2f} lr={metrics.lr:.6f}"
    )


def training_progress_lines(curve: Sequence[EpochMetrics]) -> list[str]:
    """The end of a learning curve: the last epoch and up to four before it, a twentieth of the training apart.

    With 200 epochs that is every tenth, as in the public benchmark.
    """
    step = max(1, len(curve) // 20)
    shown = list(curve)[::-1][::step][:_SHOWN][::-1]
    return ["Training progress (last epochs):", *map(train_metrics_line, shown)]


def final_metrics_lines(task: str, best_test_acc: float) -> list[str]:
    """The task's score: best test accuracy over all epochs, percent."""
    return [f"Final metrics ({task}):", f"test_acc_{task}={best_test_acc:.2f}"]


def task_report(task: str, curve: Sequence[EpochMetrics], best_test_acc: float) -> str:
    """What the `test` tool says of one task."""
    return "\n".join([f"### {task}", *training_progress_lines(curve), "", *final_metrics_lines(task, best_test_acc)])
