"""What a search records, says and plans about seed noise."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest

from agent.analysis import known_noise
from agent.analysis.against_baseline import as_json, compare_tasks, describe_tasks
from agent.analysis.design import Design
from agent.analysis.planning import in_words, make_plan
from agent.config import SearchConfig
from agent.engine.forecast import say_if_long
from agent.runs.events import Launch
from agent.runs.log import EventLog
from agent.runs.recorded_noise import noise_from, prior
from benchmark.executors import LocalExecutor
from benchmark.noise import NO_PRIOR, StatisticsError, TaskNoise
from benchmark.statistics import noise_prior
from benchmark.store import ResultStore
from benchmark.tasks import get_profile
from tests.benchmark.test_noise_measured import HERE, TASK, result

POCKET = get_profile("pocket")
COST = {task.name: 10.0 for task in (*POCKET.visible, *POCKET.hidden)}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ResultStore:
    """An empty store of the user."""
    monkeypatch.setenv("INITSEARCH_CACHE_DIR", str(tmp_path))
    return ResultStore(tmp_path / "results")


def test_noise_measured_here_is_said_with_its_degrees_of_freedom(store: ResultStore) -> None:
    """The user reads "noise measured on this machine, 14 degrees of freedom"; what was not measured is said, too."""
    for code in "ab":
        for seed in range(8):
            store.put(result(code, seed, 50.0 + seed % 3))
    found = known_noise.noise_here(POCKET, HERE)
    first, second = known_noise.in_words(found)
    assert first.startswith("noise measured on this machine, 14 degrees of freedom (SD ")
    assert first.endswith("[resnet56-openclipart100]")
    assert second == (
        "noise not measured on this machine: intervals use a prior SD, and allow for it being 1.5 times too small "
        "[vgg16bn-openclipart100, mobilenetv2-fmnist_pocket]"
    )
    assert known_noise.noise_here(POCKET, HERE, cache=False)[TASK.name].measured is None
    assert known_noise.as_json(found)[TASK.name]["degrees_of_freedom"] == 14


def test_noise_that_the_task_file_gives_is_called_so() -> None:
    """It was "not measured on this machine", though its owner had just measured it and written it down."""
    given = {"toy": TaskNoise.of(prior("toys", "toy", {"toy": 1.2}))}
    assert known_noise.in_words(given) == [
        "noise given in the task file (SD 1.2): intervals allow for one that is 1.5 times as large [toy]"
    ]


@pytest.mark.parametrize(
    ("seeds", "lines"),
    [
        ({0: 50.0}, 0),  # one seed shows none
        ({0: 50.0, 1: 54.0}, 0),  # s² / σ² = 5.6 for σ = 1.2, and one degree of freedom: 6.6 at 1 %
        ({0: 50.0, 1: 54.5}, 1),
        ({0: 50.0, 1: 54.5, 2: None}, 1),
    ],
)
def test_a_baseline_that_scatters_more_than_the_task_file_says(seeds: dict[int, float | None], lines: int) -> None:
    """With an SD that was far too small a search claimed what was chance, and nothing told its owner."""
    given = {"toy": TaskNoise.of(prior("toys", "toy", {"toy": 1.2}))}
    found = known_noise.contradicted(given, {"toy": seeds})
    assert len(found) == lines
    if found:
        assert found == [
            "toy: the 2 seeds of the baseline scatter with SD 3.2, clearly more than the 1.2 in the task file "
            "(chi-square test at 1 %)"
        ]
    assert known_noise.contradicted({"toy": TaskNoise.of(NO_PRIOR)}, {"toy": seeds}) == []


def test_hidden_noise_comes_from_the_store_of_calibration_only(store: ResultStore) -> None:
    """Searches put no hidden result into the user's store. `agent baselines --hidden` has a store of its own."""
    (task,) = POCKET.hidden
    for place in (store, ResultStore(store.folder.with_name("hidden"))):
        for seed in range(3):
            place.put(result("a", seed, 70.0 + seed, task=task))
    assert known_noise.noise_here(POCKET, HERE)[task.name].measured_df == 2


def test_the_log_keeps_the_noise_to_the_last_digit(tmp_path: Path) -> None:
    """A resumed search, verify and report compute with the recorded numbers."""
    kept = {"t": TaskNoise.of(noise_prior("pocket", TASK.name), 1 / 3, 7, 2)}
    launch = Launch(config={}, profile="pocket", environment={}, isolation_level="none", scaffold="", noise=kept)
    with EventLog(tmp_path / "events.jsonl") as log:
        log.append(launch)
    with EventLog(tmp_path / "events.jsonl") as log:
        recorded = log.recorded("launch")
        assert isinstance(recorded, Launch)
        assert recorded.noise == kept
        log.append(launch)
    line = json.loads((tmp_path / "events.jsonl").read_text())
    assert noise_from(line["noise"]) == kept
    assert noise_from(None) is None
    huge = {"sd": 1, "df": 3, "squares": 1e300, "measured_df": 1}
    wrong: tuple[object, ...] = ([], {"t": 3}, {"t": {"sd": -1, "df": 3}}, {"t": huge})
    for bad in wrong:
        with pytest.raises(StatisticsError, match="the recorded noise cannot be read"):
            noise_from(bad)


def test_a_run_without_recorded_noise_keeps_the_old_rule() -> None:
    """An older run's intervals are those that it was reported with."""
    sides = {TASK.name: {0: 10.0}}, {TASK.name: {0: 15.0}}
    old = compare_tasks("pocket", *sides)[TASK.name]
    new = compare_tasks("pocket", *sides, noise={TASK.name: TaskNoise.of(noise_prior("pocket", TASK.name))})[TASK.name]
    assert old is not None
    assert new is not None
    assert old.ci[0] == pytest.approx(5 - 2.179 * 1.35 * 2**0.5, abs=2e-3)
    assert new.ci[0] < old.ci[0]
    assert new.unit == old.unit


def test_a_plan_offers_the_measurement_with_its_cost(store: ResultStore) -> None:
    """`agent plan` names the command that measures the noise, its trainings and its time."""
    plan = make_plan(POCKET, COST, Design(3, 1, 1), slots=2, noise=known_noise.noise_here(POCKET, HERE))
    assert plan["measure"]["command"] == "agent baselines --recipes kaiming_normal --seeds 5 --profile pocket --hidden"
    assert (plan["measure"]["trainings"], plan["measure"]["seconds"]) == (15, 80.0)
    assert plan["unresolvable"] == []
    words = list(in_words(plan))
    assert any("--hidden (15 trainings, 80 s)" in line for line in words)
    # A colon right behind the last flag was copied with the command.
    assert not any(re.search(r"--[a-z-]+( \S+)?: ", line) for line in words)
    for task in (*POCKET.visible, *POCKET.hidden):
        place = ResultStore(store.folder.with_name("hidden")) if task in POCKET.hidden else store
        for seed in range(5):
            place.put(result("a", seed, 50.0 + seed, task=task))
    after = make_plan(POCKET, COST, Design(3, 1, 1), slots=2, noise=known_noise.noise_here(POCKET, HERE))
    assert after["measure"] is None
    json.dumps(after, allow_nan=False)


def test_a_search_that_can_resolve_nothing_says_so_before_it_starts() -> None:
    """One seed and no known noise: the user hears that before the first training, and what would help."""
    unknown = {task.name: TaskNoise.of(NO_PRIOR) for task in (*POCKET.visible, *POCKET.hidden)}
    said: list[str] = []
    config = SearchConfig(profile="pocket", budget=1, max_seconds=60)
    with LocalExecutor(1, threads=1) as executor:
        say_if_long(config, POCKET, executor, {}, said.append, unknown)
        assert said[0].startswith("nothing can be resolved on resnet56-openclipart100: no noise is known for it")
        assert "--baseline-seeds 3" in said[0]
        said.clear()
        say_if_long(config.model_copy(update={"baseline_seeds": 3}), POCKET, executor, {}, said.append, unknown)
        assert said == []
    plan = make_plan(POCKET, COST, Design(3, 1, 1), slots=1, effect=2.0, noise=unknown)
    json.dumps(plan, allow_nan=False)
    assert plan["visible_effect"] is None
    assert any(line.startswith("nothing can be resolved on resnet56") for line in in_words(plan))


def test_unknown_noise_has_no_infinity_in_json_or_words() -> None:
    """The JSON of a comparison is strict JSON, and its sentence says why nothing is resolved."""
    found = compare_tasks("own", {"t": {0: 10.0}}, {"t": {0: 15.0}}, noise={"t": TaskNoise.of(NO_PRIOR)})
    assert as_json(found)["t"]["ci"] is None
    json.dumps(as_json(found), allow_nan=False)
    (line,) = describe_tasks("visible", found)
    assert line.endswith("+5.00 points (1 seed): not resolved, since no noise is known and these seeds show none")


def test_the_recorded_form_is_plain() -> None:
    """What the launch event holds can be read without this package."""
    kept = TaskNoise.of(noise_prior("pocket", TASK.name), 4.0, 3, 1)
    assert asdict(kept)["measured_df"] == 3
    assert json.loads(json.dumps(asdict(kept)))["sd"] == 1.35
