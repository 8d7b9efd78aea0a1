"""No training seed serves two purposes: what picked a candidate never judges it."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from agent.config import SearchConfig
from benchmark.seeds import (
    FRESH_FROM,
    MOST,
    TOURNAMENT_STEP,
    evaluation_seeds,
    look_seed,
    tournament_seed,
    unused_seeds,
    winners_seeds,
)
from benchmark.tasks import PROFILES

COUNTS = st.integers(1, MOST)
RUNGS = 9
"""More lengths of looks than any profile has."""


@st.composite
def configs(draw: st.DrawFn, most: int = 2**31 - 1) -> SearchConfig:
    """Any configuration that `SearchConfig` accepts, as far as seeds go."""
    seeds = draw(COUNTS)
    baseline = draw(st.none() | st.integers(seeds, MOST))
    return SearchConfig(
        seed=draw(st.integers(0, most)), seeds=seeds, baseline_seeds=baseline, confirm=draw(st.integers(0, MOST))
    )


def ranges(config: SearchConfig) -> list[set[int]]:
    """Tests and baseline, confirmation, the looks of each length."""
    looks = [{look_seed(config.seed, rung)} for rung in range(RUNGS)]
    return [
        set(config.evaluation_seeds) | set(config.baseline_evaluation_seeds),
        set(config.confirmation_seeds),
        *looks,
    ]


@given(configs(), COUNTS)
def test_the_seeds_of_one_search_do_not_meet(config: SearchConfig, count: int) -> None:
    """Tests, confirmation, every length of look, and an ablation afterwards each have seeds of their own."""
    used = ranges(config)
    fresh = set(unused_seeds(set().union(*used), count, default=config.seed))
    assert len(fresh) == count
    assert len(config.confirmation_seeds) == config.confirm
    assert all(one.isdisjoint(other) for one, other in itertools.combinations([*used, fresh], 2))
    assert max(len(profile.fidelities) for profile in PROFILES.values()) <= RUNGS


@given(configs(most=FRESH_FROM // 2), st.integers(1, 1000), st.integers(0, 1000), st.integers(1, 1000))
def test_the_repeats_of_a_tournament_do_not_meet(config: SearchConfig, repeat: int, fresh: int, other: int) -> None:
    """Two repeats share no seed, and the winners are measured on seeds that no search has used."""
    one, two = (
        set().union(*ranges(config.model_copy(update={"seed": tournament_seed(config.seed, number)})))
        for number in (repeat, other)
    )
    assert one == two if repeat == other else one.isdisjoint(two)
    assert max(one) < tournament_seed(config.seed, repeat + 1) <= FRESH_FROM
    measured = set(winners_seeds(repeat, fresh))
    assert measured.isdisjoint(one | two)
    assert repeat == other or measured.isdisjoint(winners_seeds(other, fresh))


def test_the_ranges_are_those_of_earlier_runs() -> None:
    """Stored results and recorded runs name these seeds."""
    config = SearchConfig(seed=7, seeds=2, confirm=2)
    assert (config.evaluation_seeds, config.confirmation_seeds) == ((7, 8), (57, 58))
    assert [look_seed(7, rung) for rung in range(2)] == [107, 207]
    assert list(evaluation_seeds(7, 2)) == [7, 8]
    assert tournament_seed(7, 3) == 7 + 2 * TOURNAMENT_STEP
    assert list(winners_seeds(2, 2)) == [FRESH_FROM + 2, FRESH_FROM + 3]
    assert list(unused_seeds([], 2, default=7)) == [8, 9]
