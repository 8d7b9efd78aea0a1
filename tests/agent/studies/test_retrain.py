"""`agent replay --execute`: recorded tests trained again, and nothing stored taken for evidence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.cli.replay import run_replay
from agent.config import SearchConfig
from agent.engine.search import SearchOutcome
from agent.errors import UsageError
from agent.progress import Progress
from agent.proposers.transcript import function_region
from agent.studies.retrain import ELSEWHERE, name_of, replay_of_conversation, replay_of_run
from agent.transcripts import parse_transcript, replay
from benchmark.store import ResultStore, user_store
from benchmark.tasks import PROFILES
from tests.agent.conftest import Agent, json_lines
from tests.agent.report_samples import Fields, change_log, copy_run, read_log, write_log
from tests.agent.transcript_samples import call, edit, prompt, write
from tests.agent.transcript_samples import conversation as document
from tests.agent.transcripts.test_replay_recorded import OWN

pytestmark = pytest.mark.usefixtures("processes_shared")

TASK = "resnet20-tiny"


def test_run_executed_again_is_equal(agent: Agent, finished: SearchOutcome) -> None:
    """`agent replay RUN --execute --json`: every call exact, tests and submission included; both accuracies shown."""
    result = agent("replay", str(finished.run), "--execute", "--json")
    *calls, done = json_lines(result.stdout)
    assert (result.returncode, done["exact"]) == (0, len(calls)), result.stdout
    assert {one["verdict"] for one in calls} == {"exact"}
    tests = [one["executed"] for one in calls if one["tool"] == "test"]
    assert [test["test"] for test in tests] == [1, 2]
    for test in tests:
        pair = test["accuracies"][TASK]["0"]
        assert test["comparable"]
        assert pair["recorded"] == pair["executed"] > 0
    submitted = next(one for one in calls if one["tool"] == "submit")
    assert submitted["replayed"] == submitted["recorded"]
    assert "test_acc_resnet20-tiny=" in submitted["replayed"]


def test_store_is_no_evidence(
    finished: SearchOutcome, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Test 1 was recorded three points better, and the store says so too: it differs. Test 2 has a foreign key.

    Nor does whoever wrote the log choose how its code is confined: it asks for no isolation and gets one.
    """
    monkeypatch.setenv("INITSEARCH_CACHE_DIR", str(tmp_path / "cache"))
    run = copy_run(finished.run, tmp_path / "runs")
    truth: dict[str, float] = {}

    def flatter(event: dict[str, Any]) -> dict[str, Any]:
        if event["kind"] == "launch":
            return {**event, "config": {**event["config"], "allow_unsandboxed": True}}
        if event.get("role") == "test/1":
            truth["accuracy"] = event["accuracy"]
            stored = ResultStore(run.results).get(event["key"])
            assert stored is not None
            better = stored.model_copy(update={"best_test_acc": event["accuracy"] + 3})
            user_store().put(better)
            ResultStore(run.results).put(better)
            return {**event, "accuracy": event["accuracy"] + 3}
        return {**event, "key": "0" * 64} if event.get("role") == "test/2" else event

    change_log(run, flatter)
    with replay_of_run(run.path, Progress()) as again:
        verdicts = list(again)
    first, second = (one for one in verdicts if one.call.tool == "test")
    assert (first.verdict, first.executed is not None) == ("differs", True)
    assert first.executed is not None
    assert first.executed["isolation_level"] in ("bubblewrap", "landlock")
    pair = first.executed["accuracies"][TASK]["0"]
    assert pair == {"recorded": truth["accuracy"] + 3, "executed": truth["accuracy"]}
    assert f"now {truth['accuracy']}" in str(first.reason)
    assert (second.verdict, second.reason) == ("unverifiable", ELSEWHERE)
    assert {one.verdict for one in verdicts if one.call.tool == "edit"} == {"exact"}
    assert again.counts["differs"] == 1


def test_log_of_another_version_is_refused(finished: SearchOutcome, tmp_path: Path) -> None:
    """Another scaffold or an unknown setting cannot be run here: said before anything is trained."""
    unusable: list[Fields] = [{"scaffold": "x"}, {"config": {"budget": 1, "moon_phase": 3}}]
    for number, changes in enumerate(unusable):
        run = copy_run(finished.run, tmp_path / str(number))
        launch, *others = read_log(run)
        write_log(run, [launch | changes, *others])
        with pytest.raises(UsageError), replay_of_run(run.path, Progress()):
            pass


SCALED = "def initialize_weights(model, config):\n    for p in model.parameters():\n        nn.init.normal_(p, 0, {sd})"
FILE = "vision/custom_init.py"
HINT = "call submit(n=N) to choose which test result to submit as final"


def _own_task(*contents: str) -> dict[str, Any]:
    """A conversation about initialize_weights, which stands in lines 4 and 5 of its file there."""
    listing = (
        f"## {FILE}  [EDITABLE — lines 4–5 only]\n```python\n     1: import torch\n     2: from torch import nn\n"
        "     3: \n     4: def initialize_weights(model, config):\n     5:     return\n     6: # end\n```\n"
    )
    last, parts = 5, []
    for step, content in enumerate(contents, 1):
        parts.append(call(step, "edit", edit(4, last, content, FILE), None))
        last = 3 + len(content.removesuffix("\n").split("\n"))
    return document(prompt(listing), *parts, call(9, "test", {}, f"[Test #1] (2 tests remaining; {HINT})\n\nacc=72.61"))


def test_strategies_of_a_conversation_are_trained_here(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every version once, by function and not by line; what is refused or incomplete says why; tests show the last."""
    monkeypatch.setenv("INITSEARCH_CACHE_DIR", str(cache))
    named = SCALED.replace("config):\n", 'config):\n    """Small normal weights."""\n').format(sd=0.01)
    transcript = parse_transcript(
        _own_task(named, "def initialize_weights(model, config):\n    return 1 / 0", SCALED.format(sd=0.02))
    )
    config, profile = SearchConfig(profile="smoke"), PROFILES["smoke"]
    with replay_of_conversation(transcript, config, profile, Progress()) as (again, strategies):
        verdicts = list(again)
    first, broken, last = strategies.found
    assert [one.name for one in strategies.found] == ["Small normal weights", "strategy 2", "strategy 3"]
    assert "division by zero" in str(broken.refused)
    assert broken.accuracies is None
    assert first.region == named + "\n"
    for one in (first, last):
        assert one.accuracies is not None
        assert list(one.accuracies[TASK]) == [0]
    assert [None if v.executed is None else v.executed["strategy"] for v in verdicts] == [
        *("Small normal weights", "strategy 2", "strategy 3", "strategy 3")
    ]
    assert verdicts[-1].verdict == "unverifiable"  # the recorded 72.61 % are of another training
    told = strategies.as_json()
    assert last.accuracies is not None
    before, after = strategies.baseline[TASK][0], last.accuracies[TASK][0]
    assert before is not None
    assert after is not None
    assert told["strategies"][2]["visible"][TASK]["gain"] == pytest.approx(after - before)
    assert any("not trained: resnet20: " in line for line in strategies.in_words())


@pytest.mark.skipif(not OWN.exists(), reason="the recorded conversations (../shared/transcripts) are absent")
def test_five_recorded_strategies_are_found_whole() -> None:
    """RAVS, DARS, Fixup++, DAVS and RBB are what --execute trains of the conversation of our own task."""
    regions = {region: None for verdict in replay(OWN) if (region := function_region(verdict.regions))}
    names = [name for region in regions if (name := name_of(region))]
    assert [next(short for short in ("RAVS", "DARS", "Fixup++", "DAVS", "RBB") if short in name) for name in names] == [
        *("RAVS", "DARS", "Fixup++", "DAVS", "RBB")
    ]


def test_unusable_requests(finished: SearchOutcome, tmp_path: Path) -> None:
    """A sister task, another profile than the run's, a profile without --execute: usage errors that say so."""
    other = write(tmp_path, document(prompt(), call(1, "edit", edit(3, 4, "def f(x):\n    return 0"), "OK")))
    for source, words, message in (
        (other, {"execute": True, "profile": "smoke"}, "no call in it edits an initialize_weights"),
        (finished.run, {"execute": True, "profile": "pocket"}, "were made on smoke"),
        (finished.run, {"profile": "smoke"}, "without it nothing is trained"),
    ):
        with pytest.raises(UsageError, match=message):
            run_replay(str(source), tmp_path, as_json=False, **words)
