"""Results by content: what does not fit its key is not believed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from benchmark.results import EpochMetrics, EvaluationResult, StepZero, result_key
from benchmark.store import LayeredStore, ResultStore
from benchmark.tasks import PROFILES

TASK = PROFILES["smoke"].visible[0]
ENVIRONMENT = {"device": "cpu", "threads": "1"}


def make_result(key: str, accuracy: float = 50.0) -> EvaluationResult:
    epoch = EpochMetrics(
        epoch=1, train_loss=float("nan"), train_acc=1, test_loss=2, test_acc=accuracy, lr=0.1, seconds=1
    )
    return EvaluationResult(
        key=key,
        task=TASK.name,
        seed=0,
        region_sha256="r",
        status="ok",
        best_test_acc=accuracy,
        last_test_acc=accuracy,
        test_loss=2.0,
        curve=(epoch,),
        step_zero=StepZero(accuracy=10, loss=2.3, p_value=0.5, suspicious=False),
        isolation_level="none",
        isolation_seconds=0.1,
        training_seconds=1.0,
        device="cpu",
        precision="fp32",
        threads=1,
        versions={},
    )


def test_key_depends_on_all_that_decides_an_accuracy() -> None:
    """Another code, task, recipe, seed or machine gives another key. Equal ones give an equal key."""
    longer = dataclasses.replace(TASK, recipe=dataclasses.replace(TASK.recipe, epochs=3))
    keys = {
        result_key("a", TASK, 0, environment=ENVIRONMENT),
        result_key("b", TASK, 0, environment=ENVIRONMENT),
        result_key("a", longer, 0, environment=ENVIRONMENT),
        result_key("a", TASK, 1, environment=ENVIRONMENT),
        result_key("a", TASK, 0, environment={**ENVIRONMENT, "threads": "2"}),
    }
    assert len(keys) == 5
    assert result_key("a", TASK, 0, environment=dict(reversed(ENVIRONMENT.items()))) in keys


def test_result_comes_back_as_it_was(tmp_path: Path) -> None:
    """A NaN loss in a curve survives the trip through JSON."""
    store = ResultStore(tmp_path)
    result = make_result("k")
    store.put(result)
    loaded = store.get("k")
    assert loaded is not None
    assert repr(loaded) == repr(result)
    assert store.get("other") is None


@pytest.mark.parametrize("harm", ["accuracy", "key", "cut", "empty", "list"])
def test_file_that_does_not_fit_is_not_believed(tmp_path: Path, harm: str) -> None:
    """A file with an edited accuracy, with another key, or cut short counts as missing."""
    store = ResultStore(tmp_path)
    store.put(make_result("k"))
    path = store.path("k")
    envelope = json.loads(path.read_text())
    if harm == "accuracy":
        envelope["result"]["best_test_acc"] = 99.0
        path.write_text(json.dumps(envelope))
    elif harm == "key":
        path.rename(store.path("other"))
        assert store.get("other") is None
    elif harm == "cut":
        path.write_text(path.read_text()[:100])
    else:
        path.write_text({"empty": "", "list": "[1]"}[harm])
    assert store.get("k") is None


def layers(tmp_path: Path, run: str) -> LayeredStore:
    """Returns the stores of a run: its own folder and the user's."""
    return LayeredStore(ResultStore(tmp_path / run), ResultStore(tmp_path / "user"))


def isolated(key: str, **changes: object) -> EvaluationResult:
    """A result whose candidate ran in isolation."""
    return make_result(key).model_copy(update={"isolation_level": "bubblewrap", **changes})


def test_a_home_that_cannot_be_written_ends_no_search(tmp_path: Path) -> None:
    """In a container without a home folder a search ended with "[Errno 2] …/.cache" when the baseline was trained."""
    (tmp_path / "file").write_text("")
    store = LayeredStore(ResultStore(tmp_path / "run"), ResultStore(tmp_path / "file" / "results"))
    store.put(isolated("k"))
    assert store.find("k") is not None
    assert store.user is not None
    assert isinstance(store.user.refusal(), NotADirectoryError)
    assert store.own.refusal() is None


def test_a_result_is_shared_between_runs_and_kept_in_each(tmp_path: Path) -> None:
    """The second run finds what the first one trained, and still has it when the user's store is emptied."""
    first, second = layers(tmp_path, "first"), layers(tmp_path, "second")
    first.put(isolated("k"))
    assert isinstance(second.find("k"), EvaluationResult)
    assert second.user is not None
    second.user.path("k").unlink()
    assert second.find("k") is not None
    assert second.seconds > 0
    assert LayeredStore(ResultStore(tmp_path / "third")).find("k") is None


def test_a_result_made_without_isolation_stays_in_its_run(tmp_path: Path) -> None:
    """After `agent search --allow-unsandboxed`, an isolated search took the accuracies for its own."""
    unsandboxed, search = layers(tmp_path, "unsandboxed"), layers(tmp_path, "search")
    unsandboxed.put(make_result("k"))
    assert unsandboxed.find("k") is not None
    assert not (tmp_path / "user").exists()
    assert search.user is not None
    search.user.put(make_result("k"))  # as earlier versions did
    assert search.find("k") is None
    assert search.own.get("k") is None


def test_a_shared_result_of_other_weights_is_not_used(tmp_path: Path) -> None:
    """A user's store from another machine can hold results of tensors that this machine does not make."""
    store = layers(tmp_path, "run")
    assert store.user is not None
    store.user.put(isolated("k", weights_sha256="a"))
    store.user.put(isolated("old"))
    assert store.find("k", weights_sha256="b") is None
    assert store.find("old", weights_sha256="b") is not None
    assert store.find("k", weights_sha256="a") is not None
