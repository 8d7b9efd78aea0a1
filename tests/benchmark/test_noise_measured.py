"""Noise measured from stored results: what counts, what does not, and what a comparison makes of it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from benchmark.noise import NO_PRIOR, NoisePrior, StatisticsError, TaskNoise, learn_noise
from benchmark.noise_measured import Scatter, measured_noise, scatter_of
from benchmark.results import EpochMetrics, EvaluationResult, StepZero, region_sha256, task_sha256
from benchmark.statistics import combine, compare, smallest_visible_effect
from benchmark.store import ResultStore
from benchmark.tasks import Task, get_profile

TASK = get_profile("pocket").visible[0]
HERE = {"device": "cpu x86_64", "capability": "AVX2", "precision": "bf16", "threads": "1", "torch": "2.13.0"}
PRIOR = NoisePrior(0.5, 14, 0.25)


def result(code: str, seed: int, accuracy: float, task: Task | None = TASK, **changes: object) -> EvaluationResult:
    """A stored result of one training."""
    epoch = EpochMetrics(epoch=1, train_loss=1, train_acc=50, test_loss=1, test_acc=accuracy, lr=0.1, seconds=1)
    return EvaluationResult(
        key=region_sha256(f"{code} {seed} {task} {changes}"),
        task=TASK.name,
        seed=seed,
        region_sha256=region_sha256(code),
        status="ok",
        best_test_acc=accuracy,
        last_test_acc=accuracy,
        test_loss=1.0,
        curve=(epoch,),
        step_zero=StepZero(accuracy=1.0, loss=4.6, p_value=0.5, suspicious=False),
        isolation_level="bubblewrap",
        isolation_seconds=0.1,
        training_seconds=1.0,
        device="cpu x86_64",
        precision="bf16",
        threads=1,
        versions={"torch": "2.13.0"},
        task_sha256=None if task is None else task_sha256(task),
    ).model_copy(update=changes)


def test_equal_code_over_seeds_is_pooled_by_task_device_and_precision(tmp_path: Path) -> None:
    """Two codes with three and two seeds give 2 + 1 degrees of freedom. All else in the store does not count."""
    store = ResultStore(tmp_path / "results")
    for one in [result("a", seed, 50.0 + seed) for seed in range(3)] + [result("b", 7, 60.0), result("b", 9, 64.0)]:
        store.put(one)
    others = [
        result("a", 3, 90.0, precision="fp32"),
        result("a", 3, 90.0, device="NVIDIA H200"),
        result("a", 3, 90.0, isolation_level="none"),
        result("a", 3, 90.0, task=get_profile("mini").visible[0]),  # another recipe
        result("a", 3, 90.0, task=None),  # an older result, which does not say its recipe
        result("a", 3, 90.0, threads=2),  # its own group, of one run
        result("c", 1, 55.0),  # one seed has no scatter
    ]
    for other in others:
        store.put(other)
    found = measured_noise(TASK, PRIOR, HERE, [store])
    assert (found.measured_df, found.groups) == (3, 2)
    assert found.squares == pytest.approx(2 + 8)
    assert measured_noise(TASK, PRIOR, {**HERE, "precision": "fp32"}, [store]).measured is None
    assert measured_noise(TASK, PRIOR, HERE, [ResultStore(tmp_path / "nothing")]) == TaskNoise.of(PRIOR)


def test_code_that_did_not_train_says_nothing_about_the_noise() -> None:
    """At chance level the accuracies hardly scatter, and a divergence scatters by whole accuracies."""
    trained = [result("a", seed, 50.0 + seed) for seed in range(3)]
    failed = [result("dead", seed, 1.0) for seed in range(5)]
    diverged = [result("wild", 0, 60.0), result("wild", 1, 10.0, status="diverged")]
    assert scatter_of([*trained, *failed, *diverged]) == Scatter(2.0, 2, 1)
    assert scatter_of([]) == Scatter()


def test_a_damaged_file_of_the_store_is_passed_over(tmp_path: Path) -> None:
    """A file that is no result, or was changed, is as good as absent."""
    store = ResultStore(tmp_path / "results")
    for seed in range(3):
        store.put(result("a", seed, 50.0 + seed))
    changed = store.path(result("a", 2, 52.0).key)
    changed.write_text(changed.read_text().replace("52.0", "99.0"))
    (store.folder / "notes.json").write_text(task_sha256(TASK))
    assert measured_noise(TASK, PRIOR, HERE, [store]).measured_df == 1


def test_a_measurement_replaces_the_allowance_step_by_step() -> None:
    """More degrees of freedom give shorter intervals; a measurement of a loud machine gives longer ones."""
    priors = [TaskNoise.of(PRIOR, df * 0.25, df).prior_for([], 0) for df in (0, 4, 16, 60)]
    width = [compare({0: 0.0}, {0: 0.0}, prior).ci[1] for prior in priors]
    assert width == sorted(width, reverse=True)
    loud = TaskNoise.of(PRIOR, 16 * 2.25, 16).prior_for([], 0)
    assert loud.sd >= 1.5
    quiet = TaskNoise.of(PRIOR, 16 * 1e-4, 16).prior_for([], 0)
    assert quiet.sd >= 0.5 / 1.5


def test_the_scatter_comes_from_the_store_or_from_the_run_but_never_from_both() -> None:
    """A run may use results again that were measured: counted twice, they would make it too sure."""
    noise = TaskNoise.of(PRIOR, 8 * 0.25, 8)
    few, many = noise.prior_for([], 0), noise.prior_for([{seed: float(seed) for seed in range(9)}], 4)
    assert few.settled
    assert not many.settled
    side = {1: 0.0, 2: 1.0}
    assert compare(side, side, few).df <= few.df
    assert many == learn_noise(noise.base, [{seed: float(seed) for seed in range(9)}])


def test_without_any_prior_the_interval_comes_from_the_seeds_at_hand() -> None:
    """The two-sample t interval where there are seeds; nothing is resolved where there is one."""
    prior = TaskNoise.of(NO_PRIOR).prior_for([], 4)
    found = compare({0: 1.0, 1: 2.0, 2: 3.0}, {3: 11.0, 4: 12.0, 5: 13.0}, prior)
    assert found.ci[1] - found.gain == pytest.approx(2.776 * math.sqrt(2 / 3), rel=1e-3)
    assert found.resolved == "improvement"
    alone = compare({0: 1.0}, {0: 3.0}, TaskNoise.of(NO_PRIOR).prior_for([], 0))
    assert (alone.resolved, alone.known_ci, alone.p_better) == ("not resolved", None, 0.5)
    alike = compare({0: 1.0, 1: 1.0}, {0: 3.0, 1: 3.0}, TaskNoise.of(NO_PRIOR).prior_for([], 2))
    assert alike.resolved == "not resolved"
    better = compare({0: 1.0}, {0: 4.0}, TaskNoise.of(NO_PRIOR).prior_for([], 0))
    assert combine({"a": better}).score > combine({"a": alone}).score  # the better one is still submitted
    assert combine({"a": alone, "b": found}).known_ci is None
    assert math.isinf(smallest_visible_effect(NO_PRIOR, 1, 1))
    assert math.isfinite(smallest_visible_effect(NO_PRIOR, 3, 1))


def test_a_measurement_alone_is_a_prior() -> None:
    """A task without any prior that was measured here has intervals with one seed, too."""
    noise = TaskNoise.of(NO_PRIOR, 4 * 0.25, 4)
    found = compare({0: 1.0}, {0: 4.0}, noise.prior_for([], 0))
    assert found.ci[1] - found.gain == pytest.approx(2.776 * 0.5 * math.sqrt(2), rel=1e-3)


@pytest.mark.parametrize("bad", [{"squares": -1.0}, {"squares": math.nan}, {"sd": 0.0}, {"df": -1.0}, {"sd": 1e300}])
def test_noise_that_none_has_is_refused(bad: dict[str, float]) -> None:
    """A log of somebody else may say anything."""
    with pytest.raises(StatisticsError):
        TaskNoise(**{"sd": 0.5, "df": 14.0, "measured_df": 3, **bad})  # type: ignore[arg-type]
