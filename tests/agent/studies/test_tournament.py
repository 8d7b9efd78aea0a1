"""`agent compare --proposers`: equal searches by several proposers, repeated, resumed, measured again."""

from __future__ import annotations

import json
import math
import random
import shutil
from pathlib import Path
from typing import Any, Literal

import pytest

from agent.analysis.estimate import estimate
from agent.cli.tournament import run_tournament
from agent.config import SearchConfig
from agent.errors import UsageError
from agent.progress import Progress
from agent.studies.tournament import Tournament, differences, find_run, overall, winner
from benchmark.recipes import get_recipe
from benchmark.results import region_sha256
from benchmark.seeds import FRESH_FROM
from sandbox.isolate import Isolation
from sandbox.region import scaffold
from tests.agent.conftest import Agent, Command, json_lines

pytestmark = pytest.mark.usefixtures("processes_shared")

TASK = "resnet20-tiny"


def test_intervals_cover() -> None:
    """Of 2,000 intervals over five normal repeats 95 % hold the true mean, within what so few can show."""
    generator = random.Random(0)
    held = 0
    for _ in range(2000):
        ci = estimate([generator.gauss(1.0, 3.0) for _ in range(5)]).ci
        assert ci is not None
        held += ci[0] <= 1.0 <= ci[1]
    assert 0.935 <= held / 2000 <= 0.965


def test_estimate_by_hand() -> None:
    """Mean 2, SD 1, three repeats: t with two degrees of freedom is 4.303; zero inside or not decides the word."""
    found = estimate([1.0, 2.0, 3.0])
    assert found.ci is not None
    assert list(found.ci) == pytest.approx([2 - 4.30265 / math.sqrt(3), 2 + 4.30265 / math.sqrt(3)], abs=1e-4)
    assert (found.mean, found.sd, found.resolved) == (2.0, 1.0, "not resolved")
    assert estimate([4.0, 5.0, 6.0]).resolved == "better"
    assert estimate([-4.0, -5.0, -6.0]).resolved == "worse"


@pytest.mark.parametrize("values", [[3.0], [3.3, 3.3, 3.3]])
def test_no_interval_where_the_noise_is_unknown(values: list[float]) -> None:
    """One repeat, or equal ones, resolve nothing: an interval without width would claim certainty."""
    assert (estimate(values).ci, estimate(values).resolved) == (None, "not resolved")


def test_differences_are_paired() -> None:
    """What two proposers share in a repeat drops out of their difference."""
    first = [{"a": 0.0, "b": 2.0}, {"a": 10.0, "b": 12.0}, {"a": 20.0, "b": 22.0}]
    second = [{"a": 1.1, "b": 3.1}, {"a": 11.0, "b": 13.0}, {"a": 20.9, "b": 22.9}]
    assert overall(first).mean == 11
    found = differences(first, second, 0.95)
    assert [found.mean, found.sd] == pytest.approx([1.0, 0.1])
    assert found.resolved == "better"


@pytest.mark.parametrize(
    ("proposers", "changes", "message"),
    [
        ("", {}, "--proposers wants"),
        ("random,random", {}, "--proposers wants different names"),
        ("random,optunna", {}, "did you mean 'optuna'"),
        ("random,scripted:missing.py", {}, "missing.py"),
        ("random", {"repeats": 0}, "--repeats"),
        ("random", {"fresh": -1}, "--fresh"),
        ("random", {"seed": FRESH_FROM}, "too many seeds"),
        ("random", {"budget": 0}, "--budget"),
        ("llm", {}, "--model"),
    ],
)
def test_bad_requests_run_nothing(tmp_path: Path, proposers: str, changes: dict[str, int], message: str) -> None:
    """A usage error with the reason, and no run directory."""
    numbers = {"repeats": 1, "fresh": 0, **changes}
    flags = {"runs": tmp_path / "runs", "profile": "smoke"}
    flags |= {name: value for name, value in changes.items() if name in SearchConfig.model_fields}
    with pytest.raises(UsageError, match=message):
        run_tournament(
            flags, proposers=proposers, repeats=numbers["repeats"], fresh=numbers["fresh"], toml=None, as_json=True
        )
    assert not (tmp_path / "runs").exists()


def test_runs_and_proposers_exclude_each_other(agent: Agent) -> None:
    """`agent compare latest --proposers random` means two things at once: exit 2."""
    result = agent("compare", "latest", "--proposers", "random")
    assert result.returncode == 2
    assert "neither runs nor --output" in result.stderr


def test_no_seed_is_used_twice() -> None:
    """Repeats have seeds of their own, for searching and for measuring again; proposers share them."""
    tournament = Tournament(SearchConfig(profile="smoke", seeds=3, seed=5), ["random", "optuna"], 4, fresh=2)
    used = [tournament.search_config("random", number).evaluation_seeds for number in range(1, 5)]
    used += [tuple(tournament.fresh_seeds(number)) for number in range(1, 5)]
    flat = [seed for seeds in used for seed in seeds]
    assert len(flat) == len(set(flat)) == 4 * (3 + 2)
    assert used[1] == tournament.search_config("optuna", 2).evaluation_seeds == (1005, 1006, 1007)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the module's tournament takes place."""
    path = tmp_path_factory.mktemp("tournament")
    (path / "fixup.py").write_text(get_recipe("fixup").region)
    (path / "broken.json").write_text(json.dumps([{"tool": "submit", "arguments": {"n": 1}}]))
    return path


@pytest.fixture(scope="module")
def level() -> str:
    """The isolation found here, asked for by name: a busy machine must not give another one on resuming."""
    with Isolation() as isolation:
        return isolation.level


@pytest.fixture(scope="module")
def tournament(folder: Path, agent_in: Command, level: str) -> list[dict[str, Any]]:
    """The objects of one tournament: a strategy against a script that never tests anything."""
    names = f"scripted:{folder}/fixup.py,scripted:{folder}/broken.json"
    how = ("--repeats", "1", "--fresh", "2", "--profile", "smoke", "--budget", "1", "--json")
    words = ("compare", "--proposers", names, "--runs", str(folder / "runs"), *how)
    result = agent_in(folder, *words, env={"INITSEARCH_ISOLATION": level})
    assert result.returncode == 0, result.stderr
    return json_lines(result.stdout)


def test_tournament_reports_every_search_and_the_sums(tournament: list[dict[str, Any]]) -> None:
    """Equal seeds, a proposer that submits nothing counts as 0, the difference is then the first one's gain."""
    launch, *runs, done = tournament
    assert (launch["event"], done["event"]) == ("launch", "done")
    assert [(run["repeat"], run["seed"], run["found"]) for run in runs] == [(1, 0, False), (1, 0, False)]
    fixup, broken = done["results"].values()
    assert (fixup["submitted"], fixup["tests_used"]) == (1, 1)
    assert (broken["submitted"], broken["tests_used"]) == (0, 0)
    (pair,) = done["differences"]
    for kind in ("visible", "hidden", "fresh"):
        assert broken[kind]["values"] == [0]
        assert pair[kind]["gain"] == -fixup[kind]["gain"]
    recorded = json.loads((Path(runs[0]["run"]) / "run.json").read_text())
    assert fixup["visible"]["gain"] == recorded["visible"][TASK]["gain"]
    assert fixup["hidden"]["gain"] == recorded["hidden"]["mobilenetv2-tiny"]["gain"]


def test_winner_and_baseline_are_measured_on_fresh_seeds(tournament: list[dict[str, Any]], folder: Path) -> None:
    """The fresh gain is the mean difference over two seeds that no search has used."""
    by_region: dict[str, dict[int, float]] = {}
    for path in (folder / "runs" / "fresh").glob("*.json"):
        result = json.loads(path.read_text())["result"]
        by_region.setdefault(result["region_sha256"], {})[result["seed"]] = result["best_test_acc"]
    baseline = by_region[region_sha256(scaffold().region)]
    ours = by_region[region_sha256(get_recipe("fixup").region)]
    assert baseline.keys() == ours.keys() == {FRESH_FROM, FRESH_FROM + 1}
    gain = sum(ours[seed] - baseline[seed] for seed in ours) / 2
    assert tournament[-1]["results"][f"scripted:{folder}/fixup.py"]["fresh"]["gain"] == pytest.approx(gain)


def test_finished_repeats_are_not_run_again(
    tournament: list[dict[str, Any]], folder: Path, level: Literal["bubblewrap", "landlock"]
) -> None:
    """The second time every run is found in the folder; a search on other terms is not among them."""
    config = SearchConfig(profile="smoke", budget=1, runs=folder / "runs", isolation=level)
    proposer = f"scripted:{folder}/broken.json"
    before = set((folder / "runs").iterdir())
    (repeat,) = Tournament(config, [proposer], 1).run(Progress)
    assert (repeat.found, winner(repeat)) == (True, None)
    assert set((folder / "runs").iterdir()) == before
    for changed in ({"budget": 2}, {"seed": 1}, {"proposer": "random"}):
        other = config.model_copy(update={"proposer": proposer, **changed})
        assert find_run(other) == (None, False)


def test_interrupted_repeat_is_resumed(tournament: list[dict[str, Any]], folder: Path) -> None:
    """A run that was stopped in the middle is gone on with, not begun anew beside it."""
    runs = folder / "resumed"
    copy = Path(shutil.copytree(tournament[1]["run"], runs / Path(tournament[1]["run"]).name))
    summary = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps({**summary, "status": "interrupted", "submitted_test": None}))
    lines = (copy / "events.jsonl").read_text().splitlines(keepends=True)
    (copy / "events.jsonl").write_text("".join(lines[: len(lines) // 2]))
    config = SearchConfig(profile="smoke", budget=1, runs=runs, isolation=summary["config"]["isolation"])
    (repeat,) = Tournament(config, [f"scripted:{folder}/fixup.py"], 1).run(Progress)
    assert (repeat.run.path.name, repeat.found, repeat.submitted) == (copy.name, False, 1)
    assert repeat.visible == tournament[1]["visible"]
    assert winner(repeat) == get_recipe("fixup").region
