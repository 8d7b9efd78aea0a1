"""The lines that report a training, on the terminal and in the reply of the `test` tool."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from benchmark.results import EpochMetrics, EvaluationResult
from benchmark.task import ACCURACY, Metric

_SHOWN = 5


def train_metrics_line(metrics: EpochMetrics) -> str:
    """Return the line of one epoch: accuracies in percent, losses in nats."""
    if metrics.own is not None:
        return " ".join([f"TRAIN_METRICS: epoch={metrics.epoch}", *(f"{k}={v:.6g}" for k, v in metrics.own.items())])
    return (
        f"TRAIN_METRICS: epoch={metrics.epoch} train_loss={metrics.train_loss:.4f} train_acc={metrics.train_acc:.2f} "
        f"test_loss={metrics.test_loss:.4f} test_acc={metrics.test_acc:.2f} lr={metrics.lr:.6f}"
    )


def training_progress_lines(curve: Sequence[EpochMetrics]) -> list[str]:
    """Return the lines of the last epoch and up to four before it, a twentieth of the training apart.

    With 200 epochs that is every tenth epoch, as in the public benchmark.
    """
    step = max(1, len(curve) // 20)
    shown = list(curve)[::-1][::step][:_SHOWN][::-1]
    return ["Training progress (last epochs):", *map(train_metrics_line, shown)]


def final_metrics_lines(task: str, best_test_acc: float) -> list[str]:
    """Return the lines of the task's score: the best test accuracy over all epochs in percent."""
    return [f"Final metrics ({task}):", f"test_acc_{task}={best_test_acc:.2f}"]


def task_report(
    task: str, results: Sequence[EvaluationResult], failures: Sequence[str] = (), *, metric: Metric = ACCURACY
) -> str:
    """Return the `test` tool's report of one task: a curve for each seed, the mean score, and the failures.

    `failures` has one sentence for each seed without a result. A task with a failure has no score.
    """
    parts = [f"### {task}"]
    for result in results:
        heading = [f"Seed {result.seed}:"] if len(results) + len(failures) > 1 else []
        if result.curve:
            parts.append("\n".join([*heading, *training_progress_lines(result.curve)]) + "\n")
        if result.status == "diverged":
            parts.append(f"[DIVERGED] the loss became NaN or infinite after epoch {result.curve[-1].epoch}\n")
    parts += [f"[FAILED] {failure}" for failure in failures]
    if results and not failures:
        mean = statistics.fmean(result.value for result in results)
        if not metric.is_accuracy:
            return "\n".join([*parts, f"Final metrics ({task}):", f"{metric.name}_{task}={metric.text(mean)}"])
        parts += final_metrics_lines(task, mean)
    return "\n".join(parts)
