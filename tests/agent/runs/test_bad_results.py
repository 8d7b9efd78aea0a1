"""Failures of candidates and of the baseline, bad numbers and contradictory wishes: typed, explained, nothing lost."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from agent import load_run
from agent.analysis.against_baseline import compare_tasks, verdict
from agent.analysis.choosing import ranked
from agent.config import load_config
from agent.errors import UsageError
from agent.evaluation.batches import Outcomes, require_baseline
from agent.protocol import Accuracies, CandidateFailure, TestOutcome
from agent.runs.log import read_events
from benchmark.executors import InfrastructureError
from benchmark.recipes import get_recipe
from benchmark.results import EpochMetrics, EvaluationResult, StepZero
from benchmark.store import ResultStore
from sandbox.isolate import derived_seed
from tests.agent.conftest import Agent, json_lines

BASELINE: Accuracies = {"a": {0: 50.0, 1: 51.0}, "b": {0: 70.0, 1: 70.5}}


def _test(number: int, a: float | None, b: float | None) -> TestOutcome:
    return TestOutcome(number, {"a": {0: a, 1: a}, "b": {0: b, 1: b}}, f"region {number}")


@pytest.mark.parametrize("bad", [None, math.nan, math.inf])
def test_a_candidate_that_fails_on_one_task_is_never_chosen(bad: float | None) -> None:
    """However good it is on the other task; a NaN is a failure too, not a number that wins or crashes."""
    best_but_failed, modest = _test(1, 99.0, bad), _test(2, 50.5, 70.5)
    assert best_but_failed.failed
    assert best_but_failed.score == -math.inf
    assert ranked("pocket", BASELINE, [best_but_failed, modest]) == [modest]
    assert ranked("pocket", BASELINE, [best_but_failed]) == []
    compared = compare_tasks("pocket", BASELINE, best_but_failed.accuracies)
    assert compared["a"] is not None
    assert compared["b"] is None
    assert "on the visible tasks it failed (b)" in verdict(compared, {})


def test_others_that_failed_teach_nothing() -> None:
    """The noise is learned from tests that ran; one that failed on a task is passed over there."""
    candidate = _test(1, 50.5, 70.5).accuracies
    alone = compare_tasks("pocket", BASELINE, candidate)
    assert compare_tasks("pocket", BASELINE, candidate, others=[_test(2, None, math.nan).accuracies]) == alone


def _result(accuracy: float) -> EvaluationResult:
    metrics = EpochMetrics(epoch=1, train_loss=1, train_acc=1, test_loss=1, test_acc=1, lr=0.1, seconds=1)
    fields = {"region_sha256": "r", "status": "ok", "best_test_acc": accuracy, "last_test_acc": 1.0, "test_loss": 1.0}
    zero = StepZero(accuracy=10, loss=2.3, p_value=0.5, suspicious=False)
    where = {"isolation_level": "none", "isolation_seconds": 0, "training_seconds": 1, "device": "cpu"}
    rest = {"precision": "fp32", "threads": 1, "versions": {}, "curve": (metrics,), "step_zero": zero}
    return EvaluationResult.model_validate({"key": "k", "task": "t", "seed": 0, **fields, **where, **rest})


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0, 101.0])
def test_a_stored_accuracy_that_is_no_percentage_is_not_believed(bad: float, tmp_path: Path) -> None:
    """A result that somebody wrote into the store with a good checksum and a bad number is trained again."""
    store = ResultStore(tmp_path)
    store.put(_result(50.0))
    assert store.get("k") is not None
    store.put(_result(50.0).model_copy(update={"best_test_acc": bad}))
    assert store.get("k") is None


def test_a_failed_baseline_is_nobodys_score() -> None:
    """The error names task, seed and cause, and blames no candidate."""
    outcomes: Outcomes = {
        ("baseline", "a", 0): _result(50.0),
        ("baseline", "a", 1): CandidateFailure("memory", "out of memory"),
        ("test/1", "a", 0): CandidateFailure("timeout", "too slow"),
    }
    with pytest.raises(InfrastructureError, match="the baseline itself failed on a with seed 1: memory: out of memory"):
        require_baseline(outcomes, "baseline")
    require_baseline({key: value for key, value in outcomes.items() if key[2] == 0}, "baseline")


@pytest.mark.parametrize("kind", ["trainer", "network", "not_finite"])
def test_a_baseline_whose_trainer_fails_is_the_task_files_fault(kind: str) -> None:
    """The search ended with exit code 1, called it a failure of the machine, and named agent doctor."""
    with pytest.raises(UsageError, match=r"train\.py returned nan; mend it") as raised:
        require_baseline({("baseline", "a", 0): CandidateFailure(kind, "train.py returned nan")}, "baseline")
    assert "doctor" not in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"seeds": 0}, "--seeds.*got 0"),
        ({"seeds": 51}, "--seeds.*got 51"),
        ({"seeds": "1,1"}, "--seeds.*got '1,1'"),
        ({"seed": -1}, "--seed.*got -1"),
        ({"budget": 0}, "--budget.*got 0"),
        ({"allow_unsandboxed": True, "isolation": "landlock"}, "contradicts isolation landlock"),
    ],
)
def test_impossible_wishes_are_refused(settings: dict[str, object], said: str) -> None:
    """The flag and what was given are named. Seeds are a count, so none can be given twice."""
    with pytest.raises(UsageError, match=said):
        load_config(settings)


def test_settings_of_a_model_without_a_model_are_refused(agent: Agent, tmp_path: Path) -> None:
    """`--max-cost 5` with Optuna would be a limit that nobody keeps."""
    result = agent("search", "--profile", "smoke", "--max-cost", "5", "--model", "m")
    assert result.returncode == 2
    assert "--model, --max-cost: only a language model listens to that" in result.stderr
    assert not (tmp_path / "runs").exists()


def test_when_all_candidates_fail_nothing_is_submitted_and_nothing_lost(agent: Agent, tmp_path: Path) -> None:
    """A region that fails with the third seed only passes the free check, fails its test, and cannot be submitted.
    The run ends with exit code 4, its log and summary whole."""
    region = get_recipe("kaiming_normal").region
    first, rest = region.split("\n", 1)
    trap = f'    if torch.initial_seed() == {derived_seed(2)}:\n        raise RuntimeError("only with seed 2")\n'
    (tmp_path / "fails.py").write_text(f"{first}\n{trap}{rest}")
    words = ("--profile", "smoke", "--budget", "1", "--seeds", "3", "--proposer", "scripted:fails.py", "--json")
    result = agent("search", *words)
    assert result.returncode == 4, result.stderr
    done = json_lines(result.stdout)[-1]
    assert (done["submitted_test"], done["visible"], done["hidden"]) == (None, {}, {})
    (test,) = load_run(done["run"])["tests"]
    assert isinstance(test["accuracies"]["resnet20-tiny"]["0"], float)
    assert test["accuracies"]["resnet20-tiny"]["2"] is None
    assert "No test succeeded" in load_run(done["run"])["words"][0]
    assert read_events(Path(done["run"]) / "events.jsonl")[-1].event.kind == "ended"


def test_a_submission_that_fails_on_the_hidden_task_says_so(agent: Agent, tmp_path: Path) -> None:
    """A strategy that knows only the visible network: submitted, failed on the hidden task, no invented number."""
    region = get_recipe("kaiming_normal").region
    first, rest = region.split("\n", 1)
    trap = '    if config["arch"] == "mobilenetv2":\n        raise RuntimeError("never seen such a network")\n'
    (tmp_path / "narrow.py").write_text(f"{first}\n{trap}{rest}")
    words = ("--profile", "smoke", "--budget", "1", "--proposer", "scripted:narrow.py", "--json")
    result = agent("search", *words)
    assert result.returncode == 0, result.stderr
    done = json_lines(result.stdout)[-1]
    assert done["hidden"]["mobilenetv2-tiny"]["failed"] is True
    assert done["hidden"]["mobilenetv2-tiny"]["gain"] is None
    assert done["generalisation"] is None
    assert "on the hidden task it failed (mobilenetv2-tiny)" in " ".join(load_run(done["run"])["words"])
