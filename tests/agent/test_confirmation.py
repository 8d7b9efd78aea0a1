"""`--confirm K`: the best tests and the baseline are trained again on fresh seeds before one is submitted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.config import load_config
from agent.confirmation import MOST, finalist_count
from agent.errors import UsageError
from agent.events import Confirmed, Evaluated, Submitted, TestFinished, read_events
from agent.run import RunDirectory
from agent.verify import verify
from benchmark.recipes import get_recipe
from sandbox.isolate import derived_seed
from tests.agent.conftest import Agent, json_lines
from tests.agent.harm import Server
from tests.agent.test_screening import TEXT, smoke

TASK = "resnet20-tiny"
FRESH = 2
SCRIPT = ("fixup", "head_small", "orthogonal")


def script(folder: Path, regions: list[str], submit: int) -> Path:
    """A file of calls that writes and tests each region, then submits."""
    calls = [
        call
        for region in regions
        for call in ({"tool": "rewrite", "arguments": {"content": region}}, {"tool": "test", "arguments": {}})
    ]
    path = folder / "calls.json"
    path.write_text(json.dumps([*calls, {"tool": "submit", "arguments": {"n": submit}}]))
    return path


@pytest.fixture(scope="module")
def confirmed(tmp_path_factory: pytest.TempPathFactory, cache: Path, server: Server) -> Path:
    """Three tests, of which the second is put forward."""
    folder = tmp_path_factory.mktemp("confirmed")
    regions = [get_recipe(name).region for name in SCRIPT]
    words = [
        "--proposer",
        f"scripted:{script(folder, regions, 2)}",
        "--confirm",
        str(FRESH),
        "--runs",
        str(folder / "runs"),
    ]
    return smoke(server, folder, cache, *words)


def test_finalists_and_baseline_get_fresh_seeds(confirmed: Path) -> None:
    """The two best by their tests and the one put forward, with seeds that no test used; nobody else gets any."""
    events = [record.event for record in read_events(confirmed / "events.jsonl")]
    (told,) = [event for event in events if isinstance(event, Confirmed)]
    assert told.seeds == [50, 51]
    scores = {event.number: event.accuracies[TASK][0] or 0.0 for event in events if isinstance(event, TestFinished)}
    best = sorted(scores, key=lambda number: -scores[number])[:2]
    assert told.tests == sorted({*best, 2})
    visible = [event for event in events if isinstance(event, Evaluated) and not event.role.startswith("hidden")]
    seeds = {role: sorted(e.seed for e in visible if e.role == role) for role in {e.role for e in visible}}
    again = {"baseline", *(f"test/{number}" for number in told.tests)}
    assert seeds == {
        role: [0, *told.seeds] if role in again else [0] for role in ("baseline", *(f"test/{n}" for n in scores))
    }
    (submitted,) = [event for event in events if isinstance(event, Submitted)]
    assert submitted.number == told.chosen
    assert events.index(told) < events.index(submitted)


def test_the_best_by_all_seeds_is_submitted_and_said(confirmed: Path) -> None:
    """The summary counts three seeds a side, names the finalists, and says that all seeds count."""
    run = RunDirectory(confirmed)
    summary = run.read_summary()
    means = {
        t["number"]: sum(t["accuracies"][TASK].values()) / 3
        for t in summary["tests"]
        if len(t["accuracies"][TASK]) == 3
    }
    assert summary["confirmed"] == sorted(means)
    assert summary["submitted_test"] == max(means, key=lambda number: means[number])
    assert summary["visible"][TASK]["seeds"] == 1 + FRESH
    assert summary["visible"][TASK]["submitted"] == pytest.approx(max(means.values()))
    assert any("trained again with 2 fresh seeds; all seeds count" in line for line in summary["words"])


def test_a_confirmed_run_fits_together(confirmed: Path, agent: Agent) -> None:
    """`verify` finds nothing; `replay` cannot know the finalists, and with `--execute` finds the same ones."""
    assert [check.fault for check in verify(RunDirectory(confirmed))] == [None] * 6
    *calls, done = json_lines(agent("replay", str(confirmed), "--json").stdout)
    assert done["differs"] == 0
    assert [one["verdict"] for one in calls if one["tool"] == "submit"] == ["unverifiable"]
    *calls, done = json_lines(agent("replay", str(confirmed), "--execute", "--json").stdout)
    assert done["exact"] == len(calls)


def test_failing_on_a_fresh_seed_is_out(tmp_path: Path, cache: Path, server: Server) -> None:
    """A region that raises for one of the fresh seeds only: there is nothing to submit, and the exit code is 4."""
    region = f"""{TEXT}    if torch.initial_seed() == {derived_seed(51)}:
        raise ValueError("not this one")
"""
    words = (
        "--proposer",
        f"scripted:{script(tmp_path, [region], 1)}",
        "--confirm",
        "2",
        "--runs",
        str(tmp_path / "runs"),
    )
    code, _ = server.run(tmp_path, "search", "--profile", "smoke", *words, "--json", cache=str(cache))
    done = json.loads((tmp_path / "stdout").read_text().splitlines()[-1])
    assert (code, done["submitted_test"], done["tests_used"]) == (4, None, 1)
    assert not RunDirectory(Path(done["run"])).hidden.exists()


def test_half_are_finalists() -> None:
    """The better half, rounded up, and never many."""
    assert [finalist_count(tests) for tests in (1, 2, 3, 4, 10, 50)] == [1, 1, 2, 2, 5, MOST]


@pytest.mark.parametrize("number", [-1, 51])
def test_impossible_numbers(number: int) -> None:
    """Refused by name, before anything is made."""
    with pytest.raises(UsageError, match="--confirm"):
        load_config({"confirm": number})
