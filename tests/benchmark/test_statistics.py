"""What a person reads about a difference: values against references, odd input, and words."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from benchmark.comparison import signed
from benchmark.dunnett import critical_value, visible_effect
from benchmark.statistics import (
    DuplicateSeedError,
    MissingSeedsError,
    NoisePrior,
    Overall,
    StatisticsError,
    UnusableAccuracyError,
    by_seed,
    combine,
    compare,
    in_words,
    learn_noise,
    noise_prior,
    smallest_visible_effect,
)

PRIOR = NoisePrior(sd=0.5, df=14, effect_sd=0.25)
KAIMING = {42: 72.07, 123: 72.49, 456: 71.87}
FIXUP = {42: 72.37, 123: 72.88, 456: 72.33}


def test_published_gain_of_fixup_is_not_resolved_at_three_seeds() -> None:
    """The table of the public task looks like a win for Fixup; three seeds cannot show it."""
    comparison = compare(KAIMING, FIXUP, noise_prior("paper", "resnet56-cifar100"))
    assert comparison.gain == pytest.approx(72.5267 - 72.1433, abs=1e-3)
    assert comparison.resolved == "not resolved"
    assert comparison.ci[0] < 0 < comparison.ci[1]
    assert 0 < comparison.shrunk_gain < comparison.gain
    assert 0.5 < comparison.p_better < 0.9


def test_a_vague_prior_gives_the_textbook_t_interval() -> None:
    """With a prior worth nothing the interval is scipy's two-sample one."""
    ours = compare(KAIMING, FIXUP, NoisePrior(sd=0.1, df=1e-9))
    reference = stats.ttest_ind(list(FIXUP.values()), list(KAIMING.values())).confidence_interval(0.95)
    assert ours.ci == pytest.approx((reference.low, reference.high), rel=1e-6)


def test_paired_seeds_give_the_textbook_paired_interval() -> None:
    """Where five or more common seeds clearly move together, the interval is that of the differences."""
    rng = np.random.default_rng(0)
    shared, noise = rng.normal(size=8), rng.normal(size=(2, 8)) * 0.6
    baseline, candidate = dict(enumerate(70 + shared + noise[0])), dict(enumerate(70.5 + shared + noise[1]))
    ours = compare(baseline, candidate, NoisePrior(1.0, 14))
    reference = stats.ttest_rel(list(candidate.values()), list(baseline.values())).confidence_interval(0.95)
    assert ours.paired
    assert ours.ci == pytest.approx((reference.low, reference.high))


@pytest.mark.parametrize("drop", ["too few", "other seeds", "no correlation"])
def test_differences_are_not_paired_without_support(drop: str) -> None:
    """Four seeds, different seeds, or seeds without correlation are not paired."""
    values = np.array([70.0, 71.0, 72.0, 73.0, 74.0, 75.0])
    baseline, candidate = dict(enumerate(values)), dict(enumerate(values + np.array([0.1, 0, 0.1, 0, 0.1, 0])))
    assert compare(baseline, candidate, PRIOR).paired
    if drop == "too few":
        baseline, candidate = ({seed: side[seed] for seed in range(4)} for side in (baseline, candidate))
    elif drop == "other seeds":
        candidate = {seed + 1: value for seed, value in candidate.items()}
    else:
        candidate = dict(enumerate(np.array([73.0, 70.0, 75.0, 71.0, 74.0, 72.0])))
    assert not compare(baseline, candidate, PRIOR).paired


def test_identical_results_are_no_gain_and_no_error() -> None:
    """A relabelled copy of the baseline (an A/A run) gets gain 0 and P(better) one half, paired or not."""
    for n in (1, 3, 6):
        side = {seed: 70.0 + seed for seed in range(n)}
        comparison = compare(side, side, PRIOR)
        assert comparison.gain == comparison.shrunk_gain == 0
        assert comparison.p_better == 0.5
        assert comparison.resolved == "not resolved"
        assert comparison.ci[0] < 0 < comparison.ci[1]


def test_constant_accuracies_have_no_correlation() -> None:
    """Accuracies without any spread (a tiny test set) compare without a division by zero."""
    flat = dict.fromkeys(range(6), 10.0)
    assert compare(flat, flat, PRIOR).correlation is None


def test_mirrored_accuracies_compare() -> None:
    """Two accuracies that swap places seed by seed (r = −1 exactly) once ended in a division by zero."""
    baseline = {seed: 70.0 + seed % 2 for seed in range(5)}
    mirrored = compare(baseline, {seed: 141.0 - value for seed, value in baseline.items()}, PRIOR)
    assert mirrored.correlation == pytest.approx(-1)
    assert not mirrored.paired
    assert compare(baseline, {seed: value + 0.3 for seed, value in baseline.items()}, PRIOR).paired


@pytest.mark.parametrize("counts", [(1, 5), (5, 1), (2, 10)])
def test_duplicated_accuracies_do_not_make_certainty(counts: tuple[int, int]) -> None:
    """Runs that all end at the same accuracy (an untrained network, say) leave the interval wider than zero."""
    m, n = counts
    flat = compare(dict.fromkeys(range(m), 10.0), dict.fromkeys(range(n), 10.0), PRIOR, n_candidates=50)
    assert (flat.gain, flat.resolved, flat.p_better) == (0, "not resolved", 0.5)
    assert flat.ci[1] > PRIOR.sd / 2
    assert math.isfinite(flat.smallest_visible_effect)


def test_the_prior_carries_a_single_seed() -> None:
    """One seed a side gives the prior's own t interval: 2.145 (t with 14 degrees of freedom) × 0.5 × √2 points."""
    comparison = compare({1: 70.0}, {1: 71.0}, PRIOR)
    assert comparison.ci[1] - comparison.gain == pytest.approx(stats.t.ppf(0.975, 14) * 0.5 * math.sqrt(2))
    assert (comparison.sd, comparison.df) == (0.5, 14)


def test_more_candidates_and_fewer_seeds_widen_what_is_visible() -> None:
    """Planning: the smallest detectable effect falls with seeds and grows with the number of candidates."""
    by_seeds = [smallest_visible_effect(PRIOR, n, n) for n in (1, 2, 3, 5, 10)]
    by_candidates = [smallest_visible_effect(PRIOR, 3, 3, n_candidates=k) for k in (1, 3, 20, 50)]
    assert by_seeds == sorted(by_seeds, reverse=True)
    assert by_candidates == sorted(by_candidates)


def test_the_smallest_visible_effect_is_resolved_four_times_in_five() -> None:
    """A true gain of that size is found in about 80 % of comparisons."""
    rng = np.random.default_rng(0)
    gain = smallest_visible_effect(PRIOR, 3, 3)
    found = 0
    for _ in range(2000):
        baseline, candidate = 70 + 0.5 * rng.normal(size=3), 70 + gain + 0.5 * rng.normal(size=3)
        found += compare(dict(enumerate(baseline)), dict(enumerate(candidate)), PRIOR).resolved == "improvement"
    assert 0.75 < found / 2000 < 0.85


@pytest.mark.parametrize(("k", "df", "expected"), [(1, 20, 2.086), (2, 20, 2.38), (3, 20, 2.54), (9, 20, 2.95)])
def test_critical_values_match_dunnetts_table(k: int, df: int, expected: float) -> None:
    """Two-sided 5 % points as printed in textbooks (Dunnett 1964, table II)."""
    assert critical_value(k, df, 0.5) == pytest.approx(expected, abs=0.006)


def test_critical_values_for_many_candidates_match_simulation() -> None:
    """No published table covers fifty candidates with few degrees of freedom; a direct simulation agrees."""
    rng = np.random.default_rng(0)
    draws = (rng.normal(size=(40_000, 50)) - rng.normal(size=(40_000, 1))) / math.sqrt(2)
    largest = np.abs(draws).max(axis=1) / np.sqrt(rng.chisquare(5, 40_000) / 5)
    assert np.mean(largest <= critical_value(50, 5, 0.5)) == pytest.approx(0.95, abs=0.004)


def test_visible_effect_inverts_the_noncentral_t() -> None:
    """The planning figure agrees with scipy's noncentral t distribution."""
    assert stats.nct.sf(2.2, 10, visible_effect(2.2, 10)) == pytest.approx(0.8, abs=1e-4)


def test_learned_noise_counts_the_runs_and_doubts_a_contradicted_prior() -> None:
    """Runs that agree with the prior make it more certain. Runs that scatter five times as much replace it."""
    like = learn_noise(PRIOR, [{1: 70.0, 2: 70.5, 3: 71.0}] * 4)
    assert like.sd == pytest.approx(0.5)
    assert like.df == 14 + 8
    wild = learn_noise(PRIOR, [{1: 70.0, 2: 72.5, 3: 75.0}] * 4)
    assert wild.sd > 0.9 * 2.5
    assert wild.df < 14
    assert learn_noise(PRIOR, [{1: 70.0}, {}, {1: math.nan, 2: 70.0}]) == PRIOR


@pytest.mark.parametrize("profile", ["paper", "pocket"])
def test_every_task_of_a_profile_has_a_prior(profile: str) -> None:
    """No task that ships is compared with the guess for unknown tasks."""
    from benchmark.tasks import get_profile

    unknown = noise_prior("paper", "no such task")
    tasks = get_profile(profile)
    for task in (*tasks.visible, *tasks.hidden):
        assert noise_prior(profile, task.name) != unknown
    assert unknown.df <= 5


@pytest.mark.parametrize("bad", [math.nan, math.inf, None])
def test_an_accuracy_that_is_no_number_is_refused_by_seed(bad: float) -> None:
    """A diverged or failed run is named, not averaged away."""
    with pytest.raises(UnusableAccuracyError, match="the candidate has no usable accuracy for seed 7"):
        compare({1: 70.0}, {1: 70.0, 7: bad}, PRIOR)


def test_bad_input_is_typed_and_explained() -> None:
    """No seeds, no candidates, an impossible confidence or prior: a StatisticsError that says what to do."""
    with pytest.raises(MissingSeedsError, match="the baseline has no seed"):
        compare({}, {1: 70.0}, PRIOR)
    with pytest.raises(MissingSeedsError):
        smallest_visible_effect(PRIOR, 0, 3)
    with pytest.raises(StatisticsError, match="n_candidates must be at least 1"):
        compare({1: 70.0}, {1: 70.0}, PRIOR, n_candidates=0)
    with pytest.raises(StatisticsError, match=r"such as 0\.95, not 95"):
        compare({1: 70.0}, {1: 70.0}, PRIOR, confidence=95)
    with pytest.raises(StatisticsError, match="sd must be a positive number"):
        NoisePrior(sd=0, df=3)
    with pytest.raises(StatisticsError, match="no task"):
        combine({})


def test_one_seed_cannot_have_two_results() -> None:
    """The same result twice is one result; two different ones mean that runs were mixed up."""
    assert by_seed([(1, 70.0), (2, math.nan), (1, 70.0), (2, math.nan)]).keys() == {1, 2}
    with pytest.raises(DuplicateSeedError, match="seed 1 has two accuracies"):
        by_seed([(1, 70.0), (1, 71.0)])


def _overall(gain: float, n: int = 3, sd: float = 0.5) -> Overall:
    rng = [(-0.1) ** seed for seed in range(n)]
    prior = dataclasses.replace(PRIOR, sd=sd, effect_sd=sd / 2)
    baseline = {seed: 70 + sd * noise for seed, noise in enumerate(rng)}
    return combine({"a": compare(baseline, {seed: value + gain for seed, value in baseline.items()}, prior)})


def test_tasks_are_averaged_in_points_and_weighed_in_noise() -> None:
    """The reader's gain is the plain mean; the choice counts each task in units of its own noise."""
    loud = compare({1: 20.0}, {1: 23.0}, NoisePrior(3.0, 14))
    quiet = compare({1: 94.0}, {1: 94.4}, NoisePrior(0.2, 14))
    both = combine({"loud": loud, "quiet": quiet})
    assert both.gain == pytest.approx((3.0 + 0.4) / 2)
    assert both.ci[0] < loud.gain / 2 < both.ci[1]
    assert both.standard_error == pytest.approx(math.hypot(loud.standard_error, quiet.standard_error) / 2)
    assert combine({"quiet": quiet}).score > combine({"loud": loud}).score


def test_a_single_task_combines_to_itself() -> None:
    """With one visible task the overall verdict is that task's verdict."""
    one = compare(KAIMING, FIXUP, PRIOR, n_candidates=5)
    overall = combine({"task": one})
    assert overall.ci == pytest.approx(one.ci, rel=1e-3)
    assert overall.p_better == pytest.approx(one.p_better)
    assert overall.smallest_visible_effect == pytest.approx(one.smallest_visible_effect, rel=1e-3)


def test_the_score_prefers_evidence_and_skips_failures() -> None:
    """A gain over five seeds beats a slightly larger one of a single seed; a candidate that failed is never chosen."""
    failed = combine({"a": compare(KAIMING, FIXUP, PRIOR), "b": None})
    assert failed.score < _overall(0.1, n=5).score < _overall(0.9, n=1).score < _overall(0.8, n=5).score


def test_words_say_what_was_found_and_what_could_have_been() -> None:
    """The sentence a person reads, in its four forms."""
    assert in_words(compare(KAIMING, FIXUP, PRIOR)) == (
        "+0.4 points (95 % interval −0.4 … +1.2, 3 seeds): not resolved; the smallest detectable effect is about 1.1"
    )
    better = compare({1: 10.0, 2: 11.0}, {1: 22.0, 2: 21.0, 3: 23.0}, NoisePrior(1.0, 14), n_candidates=3)
    assert "3 against 2 seeds, best of 3): a resolved improvement" in in_words(better)
    assert "worse than the baseline" in in_words(compare({1: 80.0}, {1: 70.0}, PRIOR))
    assert "1 seed)" in in_words(compare({1: 80.0}, {1: 70.0}, PRIOR))
    failed = combine({"resnet": None, "vgg": compare(KAIMING, FIXUP, PRIOR)})
    assert in_words(failed) == "failed on resnet: no overall gain"
    assert "mean of 1 task)" in in_words(_overall(0.1))


@pytest.mark.parametrize(
    ("value", "places", "shown"),
    [
        (1.25, 1, "+1.2"),
        (-1.26, 1, "−1.3"),
        (0.0, 2, "0.00"),
        (-0.0, 1, "0.0"),
        (-0.004, 2, "−0.00"),
        (math.nan, 1, "–"),
        (-math.inf, 1, "–"),
    ],
)
def test_numbers_with_a_sign(value: float, places: int, shown: str) -> None:
    """A table had both "-" and "−". A bound that rounds to zero still shows on which side of zero it lies."""
    assert signed(value, places) == shown
