"""`--confirm K`: the best tests and the baseline are trained again on fresh seeds before one is submitted."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.analysis.confirming import MOST, finalist_count
from agent.config import load_config
from agent.errors import UsageError
from agent.report.findings import find
from agent.runs.directory import RunDirectory
from agent.runs.events import Confirmed, Evaluated, Submitted, TestFinished
from agent.runs.log import read_events
from agent.runs.record import read_run
from agent.studies.verify import verify
from agent.studies.verify_artifacts import summary_of
from benchmark.recipes import get_recipe
from sandbox.isolate import derived_seed
from tests.agent.conftest import Agent, json_lines
from tests.agent.engine.test_screening import TEXT, smoke
from tests.agent.harm import Server
from tests.agent.report_samples import Fields, change_log, change_summary, copy_run

TASK = "resnet20-tiny"
FRESH = 2
SCRIPT = ("fixup", "head_small", "orthogonal")
FAILS_ON_51 = f"    if torch.initial_seed() == {derived_seed(51)}:\n        raise ValueError('not this one')\n"


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
    assert [check.fault for check in verify(RunDirectory(confirmed))] == [None] * 12
    *calls, done = json_lines(agent("replay", str(confirmed), "--json").stdout)
    assert done["differs"] == 0
    assert [one["verdict"] for one in calls if one["tool"] == "submit"] == ["unverifiable"]
    *calls, done = json_lines(agent("replay", str(confirmed), "--execute", "--json").stdout)
    assert done["exact"] == len(calls)
    (submitted,) = [one["executed"]["roles"] for one in calls if one["tool"] == "submit"]
    assert {role for role in submitted if role != "baseline"} == {
        f"test/{number}" for number in RunDirectory(confirmed).read_summary()["confirmed"]
    }
    for tasks in submitted.values():
        pairs = [pair for seed, pair in tasks[TASK].items() if seed != "0"]
        assert [pair["recorded"] == pair["executed"] > 0 for pair in pairs] == [True] * FRESH


def test_another_recorded_confirmation_differs(confirmed: Path, agent: Agent, tmp_path: Path) -> None:
    """The finalists' fresh accuracies were raised in the log, and `replay --execute` looked at the reply alone."""
    run = copy_run(confirmed, tmp_path / "runs")

    def flatter(event: Fields) -> Fields:
        better = event["kind"] == "evaluated" and event["role"].startswith("test/") and event["seed"] >= 50
        return {**event, "accuracy": event["accuracy"] + 1e-3} if better else event

    change_log(run, flatter)
    *calls, done = json_lines(agent("replay", str(run.path), "--execute", "--json").stdout)
    assert done["differs"] == 1
    (submit,) = [one for one in calls if one["tool"] == "submit"]
    assert "seed 50: recorded" in submit["reason"]


def test_a_confirmation_that_lacks_trainings_differs(confirmed: Path, agent: Agent, tmp_path: Path) -> None:
    """A finalist's fresh trainings were taken out of the log, and the baseline's first accuracy was raised."""
    run = copy_run(confirmed, tmp_path / "runs")

    def forge(event: Fields) -> Fields | None:
        if event["kind"] != "evaluated":
            return event
        if event["role"] == "baseline" and event["seed"] == 0:
            return {**event, "accuracy": event["accuracy"] + 1}
        return None if event["role"].startswith("test/") and event["seed"] >= 50 else event

    change_log(run, forge)
    *calls, done = json_lines(agent("replay", str(run.path), "--execute", "--json").stdout)
    reasons = [one["reason"] for one in calls if one["verdict"] == "differs"]
    assert len(reasons) == done["differs"] == 2
    assert "baseline" in reasons[0]
    assert "not in the record" in reasons[1]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda event: {**event, "chosen": 99}, "is not what it chose"),
        (lambda event: {**event, "seeds": [0, 1]}, r"its seeds are \[0, 1\], not \[50, 51\]"),
        (lambda event: {**event, "tests": [1, 2, 3]}, "was not trained with all of them"),
        (lambda event: None, "is not what it chose"),
    ],
    ids=["chosen", "seeds", "tests", "none"],
)
def test_a_forged_confirmation_is_found(
    confirmed: Path, tmp_path: Path, change: Callable[[Fields], Fields | None], fault: str
) -> None:
    """`verify` did not look at what a confirmation said."""
    run = copy_run(confirmed, tmp_path / "runs")
    change_log(run, lambda event: change(event) if event["kind"] == "confirmed" else event)
    found = {check.what: check.fault for check in verify(run)}
    assert re.search(fault, found["the finalists were confirmed"] or "")


def as_broken_off(run: RunDirectory, tests: list[Fields]) -> None:
    """run.json and git of a search whose log was cut before it submitted, as our own failure leaves them."""
    known = summary_of(run, [record.event for record in read_events(run.events)])
    change_summary(run, **({"confirmed": None} | known | {"status": "infra", "tests": tests}))
    shutil.rmtree(run.workspace / ".git" / "refs" / "tags" / "submit")


def test_a_confirmation_that_broke_off_fits_together(confirmed: Path, tmp_path: Path) -> None:
    """Our own failure among the finalists' trainings left fresh seeds in the log, and `verify` called that a fault."""
    run = copy_run(confirmed, tmp_path / "runs")
    records = read_events(run.events)
    fresh = [r.seq for r in records if isinstance(r.event, Evaluated) and r.event.seed in (50, 51)]
    run.events.write_bytes(b"".join(record.line() + b"\n" for record in records[: fresh[-1]]))
    tests = [{**t, "accuracies": {TASK: {"0": t["accuracies"][TASK]["0"]}}} for t in run.read_summary()["tests"]]
    as_broken_off(run, tests)
    assert [check.fault for check in verify(run) if "patch" not in check.what] == [None] * 10


def test_failing_finalists_make_room_for_the_next(tmp_path: Path, cache: Path, server: Server) -> None:
    """The only finalist fails on a fresh seed: the next best is trained again as well, and submitted; the page agrees.

    It was submitted without, and the page had other intervals than run.json.
    """
    regions = [TEXT, TEXT.replace("0.05", "0.02")]

    def searched(name: str, *words: str) -> RunDirectory:
        calls = script(tmp_path, regions, 1)
        calls.write_text(json.dumps(json.loads(calls.read_text())[:-1]))  # the harness submits
        words = ("--proposer", f"scripted:{calls}", "--runs", str(tmp_path / name), *words)
        return RunDirectory(smoke(server, tmp_path, cache, *words))

    better = searched("before", "--no-submit").read_summary()["submitted_test"]
    regions[better - 1] += FAILS_ON_51
    run = searched("after", "--confirm", "2")
    events = [record.event for record in read_events(run.events)]
    assert [(e.tests, e.chosen) for e in events if isinstance(e, Confirmed)] == [([better], None), ([1, 2], 3 - better)]
    summary = run.read_summary()
    assert (summary["submitted_test"], summary["visible"][TASK]["seeds"]) == (3 - better, 3)
    assert f"The best test, #{3 - better}, was submitted" in summary["words"][0]
    assert [check.fault for check in verify(run)] == [None] * 12
    found = find(read_run(run))
    assert found.problems == ()
    assert found.visible[TASK] is not None

    # Our own failure in the second round: of its finalist the search knew the first seed only.
    records = read_events(run.events)
    last = max(record.seq for record in records if isinstance(record.event, Confirmed))
    run.events.write_bytes(b"".join(record.line() + b"\n" for record in records[:last]))
    for test in (tests := summary["tests"]):
        if test["number"] != better:
            test["accuracies"] = {TASK: {"0": test["accuracies"][TASK]["0"]}}
    as_broken_off(run, tests)
    assert [check.fault for check in verify(run) if "patch" not in check.what] == [None] * 10


def test_failing_on_a_fresh_seed_is_out(tmp_path: Path, cache: Path, server: Server) -> None:
    """A region that raises for one of the fresh seeds only: there is nothing to submit, and the exit code is 4."""
    words = (
        "--proposer",
        f"scripted:{script(tmp_path, [TEXT + FAILS_ON_51], 1)}",
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
