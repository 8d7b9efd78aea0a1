"""What a search costs and can see, worked out by hand, and designs that serve better."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from agent.analysis.design import Design, forecast
from agent.analysis.planning import MAX_SEEDS, alternatives, designs_for, duration, in_words, make_plan
from agent.config import load_config
from agent.engine.forecast import say_if_long
from agent.errors import UsageError
from benchmark.cost import KnownCosts, pictures
from benchmark.executors import LocalExecutor
from benchmark.statistics import NoisePrior, StatisticsError, combine, compare, noise_prior, smallest_visible_effect
from benchmark.tasks import Profile, Task, get_profile

pytestmark = pytest.mark.usefixtures("processes_shared")

POCKET = get_profile("pocket")
RESNET, VGG = (task.name for task in POCKET.visible)
(HIDDEN,) = (task.name for task in POCKET.hidden)
COST = {RESNET: 40.0, VGG: 30.0, HIDDEN: 60.0}


def test_seconds_are_those_of_trainings_side_by_side() -> None:
    """Three tests of two tasks, the baseline twice as often, and the hidden task for two, on one slot and on two."""
    design = Design(budget=3, seeds=1, baseline_seeds=2)
    assert forecast(POCKET, COST, design, slots=1).seconds == 3 * 70 + 2 * 70 + 2 * 60
    assert forecast(POCKET, COST, design, slots=2).seconds == 3 * 40 + 70 + 60


def test_effect_is_that_of_the_overall_verdict() -> None:
    """The planned effect is what `combine` states for such a comparison when the runs scatter as the prior says."""
    priors = [NoisePrior(0.5, 14), NoisePrior(2.0, 8)]
    baseline, candidate = {1: 70.0, 2: 70.0, 3: 70.0}, {4: 71.0}
    comparisons = {}
    for name, prior in zip("ab", priors, strict=True):
        spread = prior.sd * math.sqrt(2 / 2)  # two degrees of freedom whose mean square is the prior's
        side = {1: 70 - spread, 2: 70.0, 3: 70 + spread}
        assert baseline.keys() == side.keys()
        comparisons[name] = compare(side, candidate, prior, n_candidates=5)
    planned = smallest_visible_effect(priors, 3, 1, n_candidates=5)
    assert planned == pytest.approx(combine(comparisons).smallest_visible_effect)
    with pytest.raises(StatisticsError, match="no task"):
        smallest_visible_effect([], 3, 3)


def test_plan_lists_every_task_and_keeps_its_keys() -> None:
    """The keys that programs read, with the numbers of the seeds asked for."""
    plan = make_plan(POCKET, COST, Design(3, 2, 4), slots=2)
    assert [task["evaluations"] for task in plan["tasks"]] == [3 * 2 + 4, 3 * 2 + 4, 4]
    resnet = smallest_visible_effect(noise_prior("pocket", RESNET), 4, 2, n_candidates=3)
    assert plan["tasks"][0]["smallest_visible_effect"] == round(resnet, 3)
    assert (plan["profile"], plan["budget"], plan["seeds"], plan["slots"]) == ("pocket", 3, 2, 2)
    assert plan["flags"] == "--budget 3 --seeds 2 --baseline-seeds 4"
    assert "effect" not in plan


@pytest.mark.parametrize(("budget", "seeds", "slots"), [(1, 1, 1), (3, 1, 2), (20, 2, 2)])
def test_suggestions_cost_no_more_and_see_no_less(budget: int, seeds: int, slots: int) -> None:
    """Each suggestion is better in one way, worse in none but the number of ideas, and says so."""
    asked = forecast(POCKET, COST, Design(budget, seeds, seeds), slots=slots)
    found = alternatives(POCKET, COST, asked, slots=slots)
    assert bool(found) == (budget > 1)
    for one, why in found:
        assert one.seconds <= 1.02 * asked.seconds
        assert one.visible_effect <= asked.visible_effect
        assert one.seconds < 0.95 * asked.seconds or one.visible_effect < 0.95 * asked.visible_effect
        assert ("fewer ideas" in why) == (one.design.budget < budget)
        assert one.design.baseline_seeds >= one.design.seeds
        assert "nan" not in why


def test_many_tests_want_more_seeds_of_the_baseline_or_confirmation() -> None:
    """Dunnett's rule comes out by itself: with 20 candidates more seeds for the baseline or the best are cheaper."""
    equal = forecast(POCKET, COST, Design(20, 3, 3), slots=1)
    unequal = [one.design for one, _ in alternatives(POCKET, COST, equal, slots=1) if one.design.budget == 20]
    assert unequal
    assert all(design.baseline_seeds > design.seeds or design.confirm for design in unequal)


def test_confirmation_and_looks_are_paid_for() -> None:
    """Two of three tests and the baseline with two fresh seeds each; looks for half a test before each test."""
    plain, slots = Design(3, 1, 1), 1
    confirmed, screened = Design(3, 1, 1, confirm=2), Design(3, 1, 1, screen=0.5)
    seconds = forecast(POCKET, COST, plain, slots=slots).seconds
    assert forecast(POCKET, COST, confirmed, slots=slots).seconds == seconds + 3 * 2 * 70
    assert forecast(POCKET, COST, screened, slots=slots).seconds == seconds + 3 * 0.5 * 70
    assert confirmed.flags == "--budget 3 --seeds 1 --confirm 2"
    plan = make_plan(POCKET, COST, confirmed, slots=1)
    assert [task["evaluations"] for task in plan["tasks"]] == [3 + 1 + 3 * 2, 3 + 1 + 3 * 2, 2]
    three = smallest_visible_effect(noise_prior("pocket", RESNET), 3, 3, n_candidates=3)
    assert plan["tasks"][0]["smallest_visible_effect"] == round(three, 3)


def test_designs_for_an_effect_are_the_cheapest() -> None:
    """The design for an effect sees it, and one seed less everywhere would not or would not be cheaper."""
    for one in designs_for(POCKET, COST, 2.0, budget=3, slots=2):
        assert one.visible_effect <= 2.0
        design = one.design
        if design.seeds > 1:
            less = forecast(POCKET, COST, Design(design.budget, design.seeds - 1, design.seeds - 1), slots=2)
            assert less.visible_effect > 2.0
    assert designs_for(POCKET, COST, 0.01, budget=3, slots=2) == []


def test_designs_for_an_effect_keep_the_screening_that_was_asked_for() -> None:
    """`plan --screen 1 --effect 3` suggested designs without looks, as if those were free to leave out."""
    plan = make_plan(POCKET, COST, Design(3, 1, 1, screen=1.0), slots=2, effect=3.0)
    assert plan["for_effect"]
    assert {one["screen"] for one in plan["for_effect"]} == {1.0}


def test_words_name_commands_and_limits() -> None:
    """A person reads what it costs, what else there is, and that some effects are out of reach."""
    plan = make_plan(POCKET, COST, Design(20, 1, 1), slots=2, effect=0.01)
    lines = list(in_words(plan))
    assert lines[0].startswith("about 15 min in all")
    assert any(line.startswith("or: --budget 10 --seeds 1") and "fewer ideas" in line for line in lines)
    assert lines[-1] == f"no design with up to {MAX_SEEDS} seeds detects a mean gain of 0.01 points"
    assert [duration(seconds) for seconds in (5, 600, 7200)] == ["5 s", "10 min", "2.0 h"]


def test_a_baseline_with_fewer_seeds_is_a_contradiction() -> None:
    """Refused with the flag's name; as many or more are the first seeds and further ones."""
    with pytest.raises(UsageError, match=r"--baseline-seeds.*at least seeds, 3"):
        load_config({"seeds": 3, "baseline_seeds": 2})
    config = load_config({"seed": 5, "seeds": 2, "baseline_seeds": 3})
    assert (config.evaluation_seeds, config.baseline_evaluation_seeds) == ((5, 6), (5, 6, 7))
    assert load_config({"seeds": 2}).baseline_evaluation_seeds == (0, 1)


def small(profile: Profile) -> Profile:
    """The profile in batches of 4 pictures: its steps are measured sooner."""

    def with_small_batches(task: Task) -> Task:
        return replace(task, recipe=replace(task.recipe, batch_size=4))

    visible, hidden = (tuple(map(with_small_batches, tasks)) for tasks in (profile.visible, profile.hidden))
    return replace(profile, visible=visible, hidden=hidden)


def test_costs_are_measured_once(tmp_path: Path) -> None:
    """The second search on the same machine reads what the first measured; another environment measures anew."""
    smoke = small(get_profile("smoke"))
    folder = tmp_path / "costs"
    with LocalExecutor(1, threads=1) as executor:
        first = KnownCosts(folder).measure(smoke.visible, executor, {"threads": "1"})
    assert first[smoke.visible[0].name] > 0
    assert pictures(smoke.visible[0]) == (2 * 64, 2 * 50)
    assert KnownCosts(folder).measure(smoke.visible, executor, {"threads": "1"}) == first  # the executor is closed
    with pytest.raises(RuntimeError, match="closed"):
        KnownCosts(folder).measure(smoke.visible, executor, {"threads": "2"})
    (stored,) = folder.iterdir()
    stored.write_text('{"seconds": "NaN"}')
    with pytest.raises(RuntimeError, match="closed"):
        KnownCosts(folder).measure(smoke.visible, executor, {"threads": "1"})


def test_a_long_search_is_announced_and_a_short_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    """A thousand tests of 20 seeds take over ten minutes on any machine, and that is said before they begin."""
    monkeypatch.setenv("INITSEARCH_CACHE_DIR", str(cache))
    said: list[str] = []
    with LocalExecutor(1, threads=1) as executor:
        for budget, limit in ((2, None), (1000, 60.0), (1000, None)):
            assert not said
            config = load_config(
                {"profile": "smoke", "budget": budget, "seeds": budget // 50 or 1, "max_seconds": limit}
            )
            say_if_long(config, small(get_profile("smoke")), executor, {"threads": "1"}, said.append)
    assert said[0].startswith("about ")
    assert said[0].endswith("on the hidden task")
    assert any(line.startswith("or: --budget ") for line in said)
