"""Measures the recipe library on a profile: trains what is not stored, and compares each recipe with the baseline."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.analysis.against_baseline import in_metric, signed_scores
from agent.analysis.known_noise import noise_here
from agent.clock import Clock
from agent.config import SearchConfig
from agent.evaluation.batches import Candidate
from agent.evaluation.workbench import open_workbench
from agent.progress import Progress
from agent.protocol import CandidateFailure
from agent.runs.recorded_noise import Noise, prior_of
from benchmark.recipes import as_built, get_recipe
from benchmark.results import EpochMetrics, EvaluationResult
from benchmark.statistics import Comparison, compare
from benchmark.store import LayeredStore, ResultStore, user_store
from benchmark.task import ACCURACY, AS_BUILT, Metric
from benchmark.tasks import Profile, Task

BASELINE = "kaiming_normal"

Results = Mapping[str, Mapping[int, EvaluationResult | CandidateFailure]]
"""Recipe → seed → result, on one task."""


@dataclass(frozen=True)
class Row:
    """One recipe on one task. Accuracies are in percent, or scores of `metric`.

    The runs that reached the target took `epochs_to_target` and `seconds_to_target`. The epochs depend only on the
    code. The seconds were measured when the run was trained and depend on the load of that machine.
    """

    recipe: str
    task: str
    accuracies: dict[int, float]
    failed: dict[int, str]
    comparison: Comparison | None
    """Against the baseline; None for the baseline itself and where nothing can be compared."""
    target: float | None
    """The target accuracy (default: the baseline's mean); None when the baseline failed."""
    epochs_to_target: list[int]
    seconds_to_target: list[float]
    conditions: frozenset[str]
    """Device, precision, threads and torch version of the trainings, as text."""
    metric: Metric = ACCURACY

    def as_json(self) -> dict[str, Any]:
        """The row for `agent baselines --json`."""
        values = list(self.accuracies.values())
        comparison = self.comparison
        return {
            "recipe": self.recipe,
            "task": self.task,
            "n": len(values),
            "mean": _mean(values),
            "sd": _sd(values),
            "accuracies": self.accuracies,
            "failed": self.failed,
            "gain": comparison.gain if comparison else None,
            "ci": comparison.known_ci if comparison else None,
            "resolved": comparison.resolved if comparison else None,
            "target": self.target,
            "reached_target": len(self.epochs_to_target),
            "epochs_to_target": _mean(self.epochs_to_target),
            "seconds_to_target": _mean(self.seconds_to_target),
            **self.metric.as_json(),
        }


def measure(
    recipes: Sequence[str],
    profile: Profile,
    config: SearchConfig,
    progress: Progress,
    *,
    hidden: bool = False,
    target: float | None = None,
) -> list[Row]:
    """Train every recipe on the profile's tasks with the config's seeds. Results are read from and put into the store.

    The baseline is always among the recipes. `hidden` adds the hidden task; its results go to another store than the
    one of searches. `target` is the accuracy in percent, or the score, whose first epoch is reported (None: the
    baseline's mean).
    Raises UnknownRecipeError, and InfrastructureError when our own machinery failed.
    """
    names = [BASELINE, *(name for name in recipes if name != BASELINE)]
    candidates = [Candidate(name, get_recipe(name).region) for name in names]
    if profile.baseline == as_built.REGION:  # what a search on these tasks is measured against
        names.append(AS_BUILT)
        candidates.append(Candidate(AS_BUILT, as_built.REGION))
    seeds = config.evaluation_seeds
    tasks = profile.tasks if hidden else profile.visible
    progress.begin(len(candidates) * len(tasks) * len(seeds))
    with tempfile.TemporaryDirectory(prefix="initsearch-") as folder:
        user = user_store() if config.cache else None
        visible = LayeredStore(ResultStore(Path(folder) / "results"), user)
        with open_workbench(config, Clock(), progress) as workbench:
            evaluate = workbench.evaluator.evaluate
            outcomes = evaluate(candidates, profile.visible, seeds, results=visible)
            if hidden:
                kept = None if user is None else ResultStore(user.folder.with_name("hidden"))
                unseen = LayeredStore(ResultStore(Path(folder) / "hidden"), kept)
                outcomes |= evaluate(candidates, profile.hidden, seeds, results=unseen)
            # After the trainings: they enter the store, and a second call, which takes them from there, sees the same.
            noise = noise_here(profile, workbench.environment, cache=config.cache)
    rows = []
    for task in tasks:
        results = {name: {seed: outcomes[name, task.name, seed] for seed in seeds} for name in names}
        rows += make_rows(profile.name, task, results, n_candidates=len(names) - 1, target=target, noise=noise)
    return rows


def make_rows(
    profile: str,
    task: Task,
    results: Results,
    *,
    n_candidates: int,
    target: float | None = None,
    noise: Noise | None = None,
) -> list[Row]:
    """Compare every recipe with the baseline on one task. The intervals hold for all recipes together.

    `noise`: see `agent.analysis.against_baseline.compare_tasks`.
    """
    accuracies = {
        name: {seed: r.value for seed, r in by_seed.items() if isinstance(r, EvaluationResult)}
        for name, by_seed in results.items()
    }
    if target is None:
        target = _mean(list(accuracies[BASELINE].values()))
    rows = []
    for name, by_seed in results.items():
        comparison = None
        if name != BASELINE and accuracies[name] and accuracies[BASELINE]:
            signed = {other: signed_scores(values, task.metric) or {} for other, values in accuracies.items()}
            others = [values for other, values in signed.items() if other not in (name, BASELINE)]
            own_df = len(accuracies[BASELINE]) + len(accuracies[name]) - 2
            prior = prior_of(profile, noise, task.name, others, own_df)
            comparison = in_metric(
                compare(signed[BASELINE], signed[name], prior, n_candidates=max(1, n_candidates)), task.metric
            )
        trained = [result for result in by_seed.values() if isinstance(result, EvaluationResult)]
        reached = [
            next((epoch for epoch in result.curve if target is not None and _reaches(epoch, target, task.metric)), None)
            for result in trained
        ]
        rows.append(
            Row(
                recipe=name,
                task=task.name,
                accuracies=accuracies[name],
                failed={s: f"{r.kind}: {r.message}" for s, r in by_seed.items() if isinstance(r, CandidateFailure)},
                comparison=comparison,
                target=target,
                epochs_to_target=[epoch.epoch for epoch in reached if epoch is not None],
                seconds_to_target=[epoch.seconds for epoch in reached if epoch is not None],
                conditions=frozenset(_conditions(result) for result in trained),
                metric=task.metric,
            )
        )
    return rows


def _reaches(epoch: EpochMetrics, target: float, metric: Metric) -> bool:
    """Whether the score of an epoch is as good as the target."""
    return metric.sign * epoch.score(metric) >= metric.sign * target


def _conditions(result: EvaluationResult) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    return f"{result.device}, {result.precision}, threads per training: {result.threads}, {versions}"


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _sd(values: Sequence[float]) -> float | None:
    """The sample standard deviation; None below two values."""
    if len(values) < 2:
        return None
    mean = sum(values) / len(values)
    return float((sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5)
