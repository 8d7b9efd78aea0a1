"""Compares a submission with the baseline, task by task, by the rules of `benchmark/`: data, sentences, a verdict."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from agent.protocol import Accuracies
from agent.runs.recorded_noise import Noise, prior_of
from benchmark.statistics import Comparison, combine, compare, in_words
from benchmark.task import ACCURACY, Metric


def compare_tasks(
    profile: str,
    baseline: Accuracies,
    submission: Accuracies,
    *,
    n_candidates: int = 1,
    others: Sequence[Accuracies] = (),
    look: float | None = None,
    noise: Noise | None = None,
    metrics: Mapping[str, Metric] = {},
) -> dict[str, Comparison | None]:
    """The comparison for each task; None where baseline or submission failed with any seed.

    `others` are other candidates on the same tasks. If they have two or more seeds, the noise is estimated from them
    too. `look` is the submission's score from screening, if it had one (`agent.analysis.look_scores`). `noise` is what
    the run recorded (None: a run of an older version, which used the profile's priors). `metrics`: task → what its
    score is in this run; a task that is not in it has an accuracy.
    """
    comparisons: dict[str, Comparison | None] = {}
    for task in submission:
        before, after = _complete(baseline[task]), _complete(submission[task])
        groups = [seeds for other in others if (seeds := _complete(other[task])) is not None]
        metric = metrics.get(task, ACCURACY)
        before, after = signed_scores(before, metric), signed_scores(after, metric)
        groups = [signed for seeds in groups if (signed := signed_scores(seeds, metric)) is not None]
        if before is None or after is None:
            comparisons[task] = None
            continue
        prior = prior_of(profile, noise, task, groups, len(before) + len(after) - 2)
        prior = prior if look is None else prior.after_look(look)
        comparisons[task] = in_metric(compare(before, after, prior, n_candidates=n_candidates), metric)
    return comparisons


def mean_scores(metrics: Mapping[str, Metric], accuracies: Accuracies) -> dict[Metric, float] | None:
    """Metric → the mean over its tasks of the means over seeds; None when there is no task or any value is missing."""
    means: dict[Metric, list[float]] = {}
    for task, seeds in accuracies.items():
        known = _complete(seeds)
        if not known:
            return None
        means.setdefault(metrics.get(task, ACCURACY), []).append(sum(known.values()) / len(known))
    return {metric: sum(values) / len(values) for metric, values in means.items()} or None


def scores_in_words(means: Mapping[Metric, float] | None) -> str:
    """`75.20 %`, or `75.20 %, val_loss 1.234` where the tasks have several metrics; `failed` for None."""
    return "failed" if means is None else ", ".join(metric.shown(value) for metric, value in means.items())


def signed_scores(seeds: dict[int, float] | None, metric: Metric) -> dict[int, float] | None:
    """The scores so that higher is better."""
    return seeds if seeds is None or metric.sign > 0 else {seed: -value for seed, value in seeds.items()}


def in_metric(comparison: Comparison, metric: Metric) -> Comparison:
    """The comparison of signed scores, with its means as the metric has them."""
    if metric.is_accuracy:
        return comparison
    return dataclasses.replace(
        comparison,
        baseline_mean=metric.sign * comparison.baseline_mean,
        candidate_mean=metric.sign * comparison.candidate_mean,
        metric=metric,
    )


def as_json(comparisons: Mapping[str, Comparison | None]) -> dict[str, Any]:
    """Task → baseline, submitted, gain and ci (the JSON contract), and further statistics."""
    return {task: _task_json(comparison) for task, comparison in comparisons.items()}


def describe_tasks(kind: str, comparisons: Mapping[str, Comparison | None]) -> list[str]:
    """One line per task, and one for the mean if there are several tasks."""
    lines = [
        f"{kind} {task}: "
        + (
            "failed: no comparison"
            if comparison is None
            else f"{comparison.metric.shown(comparison.candidate_mean)} against "
            f"{comparison.metric.shown(comparison.baseline_mean)}, {in_words(comparison)}"
        )
        for task, comparison in comparisons.items()
    ]
    if len(comparisons) > 1:
        lines.append(f"{kind}, all tasks: {in_words(combine(comparisons))}")
    return lines


def verdict(
    visible: Mapping[str, Comparison | None], hidden: Mapping[str, Comparison | None], *, hides: bool = True
) -> str:
    """One sentence: does the submission beat the baseline on the visible tasks and on the hidden task?

    `hides`: whether the profile has a hidden task at all.
    """
    unseen = _verdict_on("the hidden task", hidden) if hides else "there is no hidden task"
    return f"{_verdict_on('the visible tasks', visible)}; {unseen}."


def _verdict_on(where: str, comparisons: Mapping[str, Comparison | None]) -> str:
    if not comparisons:
        return f"{where} were not run" if where.endswith("s") else f"{where} was not run"
    overall = combine(comparisons)
    if overall.failed:
        return f"on {where} it failed ({', '.join(overall.failed)})"
    return {
        "improvement": f"on {where} it beats the baseline, resolved",
        "worse": f"on {where} it is worse than the baseline, resolved",
        "not resolved": f"on {where} no difference to the baseline is shown",
    }[overall.resolved]


def _complete(seeds: Mapping[int, float | None]) -> dict[int, float] | None:
    """Seed → accuracy if every accuracy is known and finite, else None."""
    known = {seed: value for seed, value in seeds.items() if value is not None and math.isfinite(value)}
    return known if len(known) == len(seeds) else None


def _task_json(comparison: Comparison | None) -> dict[str, Any]:
    if comparison is None:
        return {"baseline": None, "submitted": None, "gain": None, "ci": None, "failed": True}
    known = comparison.known_ci is not None
    return {
        "baseline": comparison.baseline_mean,
        "submitted": comparison.candidate_mean,
        "gain": comparison.gain,
        "ci": comparison.known_ci,
        "shrunk_gain": comparison.shrunk_gain,
        "p_better": comparison.p_better if known else None,
        "smallest_visible_effect": comparison.smallest_visible_effect if known else None,
        "resolved": comparison.resolved,
        "seeds": comparison.n_candidate,
        **comparison.metric.as_json(),
    }
