"""Screening between tests: what it costs, what it looks at, and what the search does with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent.analysis.choosing import ranked
from agent.analysis.look_scores import look_scores
from agent.engine.screening import look_cost, look_task
from agent.protocol import TestOutcome
from agent.report.findings import find
from agent.runs.directory import RunDirectory
from agent.runs.events import Evaluated, Screened, TestStarted, ToolCalled
from agent.runs.log import read_events
from agent.runs.record import read_run
from agent.studies.verify import verify
from agent.transcripts import replay
from benchmark.data import load_dataset
from benchmark.recipes import get_recipe
from benchmark.results import region_sha256
from benchmark.tasks import PROFILES, Profile
from sandbox.workspace import Workspace
from tests.agent.conftest import Agent, Command, done_line
from tests.agent.harm import Server

SMOKE = PROFILES["smoke"].visible[0]
TEXT = """def initialize_weights(model, config):
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.05)
"""
SHARE = 0.7
"""Smoke trainings are so short that a look is not cheap beside them."""


def smoke(server: Server, folder: Path, cache: Path, *words: str) -> Path:
    """Run a smoke search to its end without a new process for every part of it; its run directory."""
    code, _ = server.run(folder, "search", "--profile", "smoke", *words, "--json", cache=str(cache))
    assert code == 0, (folder / "stderr").read_text()
    return Path(json.loads((folder / "stdout").read_text().splitlines()[-1])["run"])


@pytest.fixture(scope="module")
def screened(tmp_path_factory: pytest.TempPathFactory, agent_in: Command) -> dict[str, Any]:
    """The last line of a search that looks at several candidates before each of its two tests."""
    words = ("--profile", "smoke", "--budget", "2", "--screen", str(SHARE), "--json")
    return done_line(agent_in(tmp_path_factory.mktemp("screened"), "search", *words))


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda profile: profile.name)
def test_a_look_never_sees_a_test_picture_and_has_a_cosine(profile: Profile) -> None:
    """For every visible task: held-out training pictures judge, at least two epochs, at most what a test trains on."""
    for fidelity in profile.fidelities:
        for task in profile.visible:
            look, full = look_task(task, fidelity).recipe, task.recipe
            assert look.held_out > 0
            assert look.epochs >= 2
            assert look.train_limit is not None
            assert (look.lr, look.batch_size, look.momentum) == (full.lr, full.batch_size, full.momentum)
            assert look_task(task, fidelity).name == task.name


def test_a_look_at_the_paper_task_costs_its_share() -> None:
    """A sixteenth of 200 epochs, less the held-out pictures; short trainings pay for their evaluations besides."""
    paper = PROFILES["paper"].visible[0]
    assert 0.8 / 16 * 0.95 < look_cost(paper, 1 / 16) < 1 / 16
    pocket = PROFILES["pocket"].visible[0]
    assert 1 / 4 < look_cost(pocket, 1 / 4) < 0.3
    assert look_cost(pocket, 1 / 2) > look_cost(pocket, 1 / 4)


def test_held_out_pictures_exist() -> None:
    """What a look holds out and trains on fits into the data that is really there."""
    data = load_dataset(SMOKE.dataset)
    look = look_task(SMOKE, 1 / 2).recipe
    assert look.held_out + (look.train_limit or 0) <= len(data.train_labels)


def test_the_best_look_is_tested(screened: dict[str, Any]) -> None:
    """Before each test a round of looks; the kept candidate is the one that the test is spent on."""
    events = [record.event for record in read_events(Path(screened["run"]) / "events.jsonl")]
    looks = [event for event in events if isinstance(event, Screened)]
    tests = [event for event in events if isinstance(event, TestStarted)]
    assert {look.round for look in looks} == {1, 2}
    for test, round_ in zip(tests, (1, 2), strict=True):
        ranked = [look for look in looks if look.round == round_]
        assert len(ranked) > 1
        assert [look.region_sha256 for look in ranked if look.kept] == [test.region_sha256]
        best = next(look for look in ranked if look.kept)
        assert best.loss is not None
        assert all((-best.rung, best.loss) <= (-look.rung, look.loss) for look in ranked if look.loss is not None)


def test_the_share_is_kept(screened: dict[str, Any]) -> None:
    """What the log says the looks cost is at most the share of the tests they came before."""
    events = [record.event for record in read_events(Path(screened["run"]) / "events.jsonl")]
    spent = {
        round_: sum(event.cost for event in events if isinstance(event, Screened) and event.round <= round_)
        for round_ in (1, 2)
    }
    assert 0 < spent[1] <= SHARE + 1e-6
    assert spent[1] < spent[2] <= 2 * SHARE + 1e-6


def test_looks_use_seeds_of_their_own_and_no_candidate_twice(screened: dict[str, Any]) -> None:
    """No look shares a seed with a test, and a candidate that was carried over is not trained again."""
    evaluated = [r.event for r in read_events(Path(screened["run"]) / "events.jsonl") if isinstance(r.event, Evaluated)]
    looks = [event for event in evaluated if event.role.startswith("screen/")]
    others = {event.seed for event in evaluated} - {event.seed for event in looks}
    assert others == {0}
    assert {event.seed for event in looks} <= {100, 200}
    paid = [event.key for event in looks if not event.cached]
    assert len(paid) == len(set(paid))


def test_scores_of_looks() -> None:
    """Who got further is ahead, then who has the lower loss; rejected ones have no score; the longest look counts."""
    scores = look_scores([("a", 0, 3.0), ("b", 0, 2.0), ("c", 0, None), ("d", 0, 9.0), ("d", 1, 4.0), ("d", 0, 9.0)])
    assert sorted(scores, key=lambda name: -scores[name]) == ["d", "b", "a"]
    assert scores["d"] == -scores["a"] == pytest.approx(0.8694, abs=1e-4)  # Φ⁻¹(0.8077)
    assert scores["b"] == pytest.approx(0)
    assert look_scores([("alone", 0, 2.0)]) == {"alone": pytest.approx(0)}
    assert look_scores([]) == {}


def test_a_look_decides_between_equal_tests() -> None:
    """Of two tests with one accuracy the better looked one is submitted, and a test far better than it is anyway."""
    baseline = {"resnet56-cifar100": {0: 70.0}}
    tests = [TestOutcome(n, {"resnet56-cifar100": {0: 70.5}}, name) for n, name in ((1, "poor"), (2, "fine"))]
    looks = {"poor": -1.0, "fine": 1.0}
    for choice, known in ((1, {}), (2, looks)):
        assert ranked("paper", baseline, tests, known)[0].number == choice
    better = [*tests, TestOutcome(3, {"resnet56-cifar100": {0: 73.0}}, "poor too")]
    assert ranked("paper", baseline, better, {**looks, "poor too": -1.0})[0].number == 3


def test_the_page_weighs_looks_as_the_search_did(screened: dict[str, Any]) -> None:
    """run.json has the shrunk gain with the look of what was submitted, and the page finds the same in the log."""
    record = read_run(RunDirectory(Path(screened["run"])))
    found, (task,) = find(record), screened["visible"]
    comparison = found.visible[task]
    assert comparison is not None
    assert comparison.shrunk_gain == pytest.approx(screened["visible"][task]["shrunk_gain"])
    assert comparison.shrunk_gain != pytest.approx(comparison.shrinkage * comparison.gain)
    assert found.problems == ()


def test_everything_still_fits_together(screened: dict[str, Any]) -> None:
    """`agent verify` finds no fault in a run with screening."""
    assert [check.fault for check in verify(RunDirectory(Path(screened["run"])))] == [None] * 12


def test_replay_does_not_call_a_look_different(screened: dict[str, Any]) -> None:
    """`screen` was an unknown tool to `agent replay`, whose answer differed from the recorded one."""
    found = list(replay(Path(screened["run"])))
    assert [one.verdict for one in found if one.call.tool == "screen"] == ["unverifiable"] * 2
    assert "differs" not in {one.verdict for one in found}


def test_optuna_hears_of_every_look(screened: dict[str, Any]) -> None:
    """The journal has a trial for each proposal; those that lost are pruned with their loss."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    storage = JournalStorage(JournalFileBackend(str(Path(screened["run"]) / "study.journal")))
    trials = optuna.load_study(study_name="initsearch", storage=storage).trials
    pruned = [trial for trial in trials if trial.state == optuna.trial.TrialState.PRUNED]
    complete = [trial for trial in trials if trial.state == optuna.trial.TrialState.COMPLETE]
    assert len(complete) == 2
    assert pruned
    assert all(trial.intermediate_values for trial in pruned)


def test_share_of_zero_is_no_screening(server: Server, cache: Path, tmp_path: Path) -> None:
    """The tool refuses, says so, and nothing is spent."""
    calls = [{"tool": "screen", "arguments": {}}, {"tool": "test"}, {"tool": "submit", "arguments": {"n": 1}}]
    (tmp_path / "calls.json").write_text(json.dumps(calls))
    script = str(tmp_path / "calls.json")
    run = tmp_path / smoke(
        server, tmp_path, cache, "--proposer", f"scripted:{script}", "--screen", "0", "--budget", "1", "--no-submit"
    )
    events = [record.event for record in read_events(run / "events.jsonl")]
    assert not any(isinstance(event, Screened) for event in events)
    assert "Screening is off" in (run / "events.jsonl").read_text()


@pytest.mark.parametrize("share", ["-1", "nan", "11", "much"])
def test_absurd_share_is_a_usage_error(agent: Agent, share: str) -> None:
    """`--screen -1` is refused before anything is made."""
    failed = agent("search", "--screen", share, "--profile", "smoke")
    assert failed.returncode == 2
    assert "screen" in failed.stderr


def test_bad_candidates_are_rejected_or_refused(server: Server, cache: Path, tmp_path: Path) -> None:
    """A region that fails the free checks costs no look; arguments of another kind, or too many, are refused."""
    good, dead = TEXT, TEXT.replace("normal_(parameter, std=0.05)", "zeros_(parameter)")
    broken = "def initialize_weights(model):\n    pass\n"
    calls = [
        {"tool": "screen", "arguments": {"candidates": "text"}},
        {"tool": "screen", "arguments": {"candidates": []}},
        {"tool": "screen", "arguments": {"candidates": [good, dead, broken]}},
        {"tool": "screen", "arguments": {"candidates": [good + f"# {n}\n" for n in range(40)]}},
        {"tool": "screen", "arguments": {}},
        {"tool": "test"},
        {"tool": "screen", "arguments": {}},
        {"tool": "submit", "arguments": {"n": 1}},
    ]
    (tmp_path / "calls.json").write_text(json.dumps(calls))
    script = str(tmp_path / "calls.json")
    run = tmp_path / smoke(
        server, tmp_path, cache, "--proposer", f"scripted:{script}", "--screen", "4", "--budget", "1", "--no-submit"
    )
    events = [record.event for record in read_events(run / "events.jsonl")]
    replies = [e.reply for e in events if e.kind == "tool_replied"]
    assert "must be a list" in replies[0]
    assert "must be a list" in replies[1]
    assert "candidate 2: rejected: " in replies[2]
    assert "gradient" in replies[2]
    assert "candidate 3: rejected: signature" in replies[2]
    assert "40 new candidates cost more" in replies[3]
    assert "candidate 1: " in replies[4]
    looks = {e.region_sha256: e for e in events if isinstance(e, Screened) and e.round == 1}
    assert looks[region_sha256(good)].loss is not None
    assert looks[region_sha256(dead)].rejected
    assert looks[region_sha256(broken)].rejected
    assert "1 new candidates cost more" in replies[6] or "for 0.00 of a test" in replies[6]


def test_start_with_numbers_is_scaled(server: Server, cache: Path, tmp_path: Path) -> None:
    """`--start fixup` searches Fixup's own numbers: the recipe unscaled first, then variants of the same code."""
    run = tmp_path / smoke(server, tmp_path, cache, "--start", "gradinit_like", "--budget", "2", "--no-submit")
    with Workspace.open(run / "workspace") as workspace:
        first, second = workspace.region_at("test/1"), workspace.region_at("test/2")
    assert first == get_recipe("gradinit_like").region
    assert second != first
    changed = [(a, b) for a, b in zip(first.splitlines(), second.splitlines(), strict=True) if a != b]
    assert changed
    called = [r.event for r in read_events(run / "events.jsonl") if isinstance(r.event, ToolCalled)]
    assert [event.tool for event in called][:1] == ["rewrite"]


def test_start_without_numbers_is_tested_as_it_is(server: Server, cache: Path, tmp_path: Path) -> None:
    """Any recipe can start a search: one without a number is tested first, then the known ideas are, and it says so."""
    run = tmp_path / smoke(server, tmp_path, cache, "--start", "lecun", "--budget", "2", "--no-submit")
    assert "no number to scale" in (tmp_path / "stderr").read_text()
    with Workspace.open(run / "workspace") as workspace:
        first, second = workspace.region_at("test/1"), workspace.region_at("test/2")
    assert first == get_recipe("lecun").region
    assert "L^-0.5" in second


def test_start_with_an_unreadable_scale_is_a_usage_error(agent: Agent, tmp_path: Path) -> None:
    """A comment that cannot be read is said before a run directory is made."""
    (tmp_path / "odd.py").write_text(f"{TEXT}    gain = 1.0  # scale: a lot\n")
    failed = agent("search", "--start", "odd.py", "--profile", "smoke")
    assert failed.returncode == 2
    assert "line 4: cannot read the range" in failed.stderr
    assert not (tmp_path / "runs").exists()
