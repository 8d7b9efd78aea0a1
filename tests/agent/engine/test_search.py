"""The main job, for real: a whole search on the smoke profile and what it leaves behind."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from agent import load_run
from agent.cli.show import show
from agent.config import SearchConfig
from agent.engine.search import Search, SearchOutcome
from agent.evaluation.slot_plan import plan_slots, side_by_side
from agent.runs.events import Evaluated, Submitted
from agent.runs.log import read_events
from benchmark.results import region_sha256
from benchmark.tasks import get_profile
from sandbox.region import region_of, scaffold
from sandbox.workspace import Workspace
from tests.agent.conftest import Main, json_lines
from tests.agent.report_samples import change_summary, copy_run

VISIBLE, HIDDEN = "resnet20-tiny", "mobilenetv2-tiny"


def test_search_ends_with_a_submission_and_a_hidden_result(finished: SearchOutcome) -> None:
    """`agent search --budget 2`: two tests used, one submitted, gains with intervals for visible and hidden task."""
    done = finished.done
    assert (done["status"], done["tests_used"], finished.exit_code) == ("submitted", 2, 0)
    assert done["submitted_test"] in (1, 2)
    for task, kind in ((VISIBLE, "visible"), (HIDDEN, "hidden")):
        numbers = done[kind][task]
        assert numbers["gain"] == numbers["submitted"] - numbers["baseline"]
        assert numbers["ci"][0] < numbers["gain"] < numbers["ci"][1]
    assert any("not resolved" in line or "resolved" in line for line in finished.words)


def test_the_function_stays_a_function(finished: SearchOutcome) -> None:
    """`agent.search(…)` worked once; then `agent.search` was the module of that name, "not callable"."""
    import agent

    assert finished.run.exists()
    assert agent.search.__name__ == "search"
    assert callable(agent.search)


def test_seconds_add_up(finished: SearchOutcome) -> None:
    """The phases of the clock cover the whole run."""
    seconds = finished.done["seconds"]
    assert seconds["training"] > 0
    parts = [seconds[name] for name in ("training", "proposer", "isolation", "other")]
    assert abs(sum(parts) - seconds["total"]) < 0.01


def test_what_distrust_costs_is_in_the_summary(finished: SearchOutcome, capsys: pytest.CaptureFixture[str]) -> None:
    """run.json has the seconds of isolation and bookkeeping and their share of the whole, and `agent show` says it."""
    summary = load_run(finished.run)
    overhead, seconds = summary["overhead"], summary["seconds"]
    assert overhead["isolation"] >= seconds["isolation"] > 0.02  # with the free checks: never nothing
    assert 0 < overhead["bookkeeping"] < seconds["other"] + seconds["training"] + seconds["proposer"]
    both = overhead["isolation"] + overhead["bookkeeping"]
    assert overhead["share"] == pytest.approx(both / seconds["total"], rel=0.05)
    show(str(finished.run), finished.run.parent, as_json=False)
    assert f"{100 * overhead['share']:.1f} % of the total" in capsys.readouterr().out


def test_submitted_test_is_the_best_of_the_visible_ones(finished: SearchOutcome) -> None:
    """The proposer submits what scored highest, and the summary shows that test's accuracy."""
    tests = load_run(finished.run)["tests"]
    scores = {test["number"]: test["accuracies"][VISIBLE]["0"] for test in tests}
    chosen = finished.done["submitted_test"]
    assert scores[chosen] == max(scores.values()) == finished.done["visible"][VISIBLE]["submitted"]


def test_nothing_hidden_before_submit(finished: SearchOutcome) -> None:
    """Neither the hidden task's name nor a hidden result appears in the log before the submission."""
    records = read_events(finished.run / "events.jsonl")
    submitted = next(index for index, record in enumerate(records) if isinstance(record.event, Submitted))
    before = b"\n".join(record.line() for record in records[:submitted])
    assert HIDDEN.encode() not in before
    assert b"hidden/" not in before
    after = [record.event for record in records[submitted:] if isinstance(record.event, Evaluated)]
    assert {event.role for event in after} == {"hidden/baseline", "hidden/submission"}
    assert {event.task for event in after} == {HIDDEN}


def test_workspace_log_and_artifacts_agree(finished: SearchOutcome) -> None:
    """git tags, the log's hashes and the files to take away are about the same region."""
    number = finished.done["submitted_test"]
    with Workspace.open(finished.run / "workspace") as workspace:
        region = workspace.region_at(f"submit/{number}")
        assert region == workspace.region_at(f"test/{number}")
        assert workspace.region_at("baseline") == scaffold().region
    submitted = [r.event for r in read_events(finished.run / "events.jsonl") if isinstance(r.event, Submitted)]
    assert [event.region_sha256 for event in submitted] == [region_sha256(region)]
    assert region_of((finished.run / "initialize_weights.py").read_text()) == region


def test_patch_applies_to_the_scaffold(finished: SearchOutcome, tmp_path: Path) -> None:
    """`git am submission.patch` in a checkout turns the untouched region into the submitted one."""
    target = tmp_path / "sandbox" / "custom_init.py"
    target.parent.mkdir()
    target.write_text(scaffold().text)

    def git(*words: str) -> None:
        identity = ["-c", "user.name=Reviewer", "-c", "user.email=reviewer@example.org"]
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True)

    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "scaffold")
    git("am", str(finished.run / "submission.patch"))
    number = finished.done["submitted_test"]
    with Workspace.open(finished.run / "workspace") as workspace:
        assert workspace.region_at(f"submit/{number}") in target.read_text()


@pytest.mark.skipif(
    find_spec("torchvision") is None, reason="torchvision is not installed; the extra `vision` brings it"
)
def test_taken_away_function_runs_without_the_project(finished: SearchOutcome, tmp_path: Path) -> None:
    """`initialize_weights.py` needs torch alone."""
    code = (
        f"import sys; sys.path[:0] = [{str(finished.run)!r}, {str(Path(__file__).parents[2])!r}]\n"
        "import torch\n"
        "from torchvision_models import torchvision_models\n"
        "from initialize_weights import initialize_weights\n"
        "for name in ('resnet18', 'vgg11_bn', 'mobilenet_v2'):\n"
        "    with torch.device('meta'):\n"  # the constructors would draw values for seconds
        "        model = getattr(torchvision_models(), name)(weights=None)\n"
        "        if name == 'vgg11_bn':\n"  # has 120 million weights in two layers, which take seconds
        "            model.classifier = torch.nn.Linear(25088, 100)\n"
        "    for value in model.to_empty(device='cpu').state_dict().values():\n"
        "        value.fill_(float('nan') if value.is_floating_point() else 0)\n"
        "    initialize_weights(model, {'arch': name, 'num_classes': 1000, 'depth': 53})\n"
        "    assert all(parameter.isfinite().all() for parameter in model.parameters())\n"
    )
    subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, check=True, capture_output=True)


def test_run_json_says_what_ran(finished: SearchOutcome) -> None:
    """Status, configuration, versions, device and isolation level are in one file."""
    summary = json.loads((finished.run / "run.json").read_text())
    assert summary["status"] == "submitted"
    assert summary["config"]["budget"] == summary["budget"] == 2
    assert summary["isolation_level"] in ("bubblewrap", "landlock")
    assert summary["versions"]["torch"]
    config = SearchConfig.model_validate(summary["config"])
    _, threads, _ = plan_slots(config, side_by_side(config, get_profile("smoke")))
    assert summary["environment"]["threads"] == str(threads)  # 1 on two cores
    assert (finished.run.parent / "latest").resolve() == finished.run


def test_resuming_a_finished_search_makes_what_is_missing(finished: SearchOutcome, tmp_path: Path, main: Main) -> None:
    """A search was killed while its page was written: --resume answered with an error, and no `done` line ever came."""
    run = copy_run(finished.run, tmp_path)
    names = ("submission.patch", "initialize_weights.py")
    for name in names:
        (run.path / name).unlink()
    resume = "search", "--resume", run.path.name, "--runs", str(tmp_path), "--json"
    code, out, _ = main(*resume)
    launch, done = json_lines(out)
    assert code == 0
    assert (launch["event"], launch["run"]) == ("launch", str(run.path))
    assert list(done) == list(finished.done)
    assert done == json.loads(json.dumps(finished.done)) | {"run": str(run.path)}
    assert (run.path / "report.html").exists()
    for name in names:
        assert (run.path / name).read_bytes() == (finished.run / name).read_bytes()
    change_summary(run, visible=None)
    code, _, errors = main(*resume)
    assert code == 1
    assert "visible" in errors


def test_resuming_keeps_the_isolation_that_was_found_first(tmp_path: Path) -> None:
    """A search began with landlock on a busy machine, `auto` then found bubblewrap, and it could not be resumed."""
    search = Search.create(SearchConfig(profile="smoke", runs=tmp_path))
    config = search.config.model_dump(mode="json")
    for level, expected in (("landlock", "landlock"), ("bubblewrap", "bubblewrap"), ("none", "auto"), (None, "auto")):
        summary = {"status": "interrupted", "profile": "smoke", "config": config, "isolation_level": level}
        search.run.write_summary(summary)
        resumed = Search.resume(search.run)
        assert resumed.config.isolation == "auto"
        assert resumed.pinned.isolation == expected
