"""One evaluation in this process: isolation, loading, training, and what is not allowed to count."""

from __future__ import annotations

import dataclasses
import pickle
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

import benchmark.train
from agent.clock import Clock
from agent.evaluation.batches import Candidate
from agent.evaluation.calls import EvaluationCall
from agent.evaluation.check import check
from agent.evaluation.evaluator import Evaluator, Settings
from agent.progress import Progress
from agent.protocol import CandidateFailure
from agent.runs.events import Evaluated
from benchmark.data import DataError, hold_out, load_dataset
from benchmark.executors import LocalExecutor
from benchmark.hardware import environment
from benchmark.results import EvaluationResult, StepZero
from benchmark.store import LayeredStore, ResultStore
from benchmark.tasks import PROFILES, Task
from sandbox.isolate import Initialised, Isolation, Job
from sandbox.region import scaffold

pytestmark = pytest.mark.usefixtures("processes_shared")

SHORT = dataclasses.replace(PROFILES["smoke"].visible[0].recipe, epochs=1, train_limit=32, test_limit=20)
CALL = EvaluationCall(scaffold().region, Task("resnet20", "tiny", SHORT), 0, (("device", "cpu"),))


@dataclasses.dataclass(frozen=True)
class Here:
    """The parent of a call that runs in this very process."""

    isolation: Isolation

    def report(self, content: Any) -> None:
        """Nobody looks."""

    def ask(self, question: Job) -> Initialised:
        return self.isolation.initialise(question)


@pytest.fixture(scope="module")
def parent(processes_shared: None) -> Iterator[Here]:
    with Isolation() as isolation:
        yield Here(isolation)


def test_honest_candidate_gets_its_accuracy(parent: Here) -> None:
    """The untouched region is initialised in isolation, trained and returned under its key.

    It holds no object of torch: its version was one, and to receive it the search imported torch, two seconds of work.
    """
    result = CALL(parent)
    assert isinstance(result, EvaluationResult)
    assert b"torch.torch_version" not in pickle.dumps(result)
    assert b"torch.torch_version" not in pickle.dumps(environment())
    assert result.key == CALL.key
    assert result.best_test_acc == max(epoch.test_acc for epoch in result.curve)
    assert result.isolation_level in ("bubblewrap", "landlock")
    assert result.weights_sha256 is not None


def test_network_that_was_trained_beforehand_does_not_count(parent: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the untrained network is right beyond luck, the outcome is a failure that says so, not a score."""

    def beyond_luck(logits: Tensor, labels: Tensor, num_classes: int) -> StepZero:
        return StepZero(accuracy=90.0, loss=0.1, p_value=1e-9, suspicious=True)

    monkeypatch.setattr(benchmark.train, "judge_step_zero", beyond_luck)
    outcome = CALL(parent)
    assert isinstance(outcome, CandidateFailure)
    assert outcome.kind == "suspicious"
    assert "does not count" in outcome.message


def test_a_look_is_tested_on_training_pictures_that_are_held_out(parent: Here) -> None:
    """With `held_out` the curve comes from the end of the training set, which is then not trained on."""
    data = load_dataset("tiny")
    held = hold_out(data, 40)
    assert len(held.train_labels) == len(data.train_labels) - 40
    assert held.test_images.equal(data.train_images[-40:])
    assert held.test_labels.equal(data.train_labels[-40:])

    recipe = dataclasses.replace(SHORT, held_out=40, test_limit=None)
    looked = dataclasses.replace(CALL, task=dataclasses.replace(CALL.task, recipe=recipe))
    result = looked(parent)
    assert isinstance(result, EvaluationResult)
    hits = result.best_test_acc * 40 / 100
    assert hits == pytest.approx(round(hits), abs=1e-6)
    assert looked.key != CALL.key


def test_a_look_after_a_few_steps_is_not_hidden_by_running_statistics(parent: Here) -> None:
    """After 15 steps ResNet-56 had a held-out loss of 198 nats: its running statistics were still near (0, 1)."""
    recipe = dataclasses.replace(SHORT, held_out=40, test_limit=None)
    looked = dataclasses.replace(CALL, task=Task("resnet56", "tiny", recipe))(parent)
    assert isinstance(looked, EvaluationResult)
    assert looked.test_loss < 10


@pytest.mark.parametrize("count", [-1, 200, 1000])
def test_holding_out_everything_is_refused(count: int) -> None:
    """Nothing to train on is a clear error, not an empty loop."""
    with pytest.raises(DataError, match="cannot hold"):
        hold_out(load_dataset("tiny"), count)


def test_slots_that_wait_for_each_other_are_booked_as_they_stood_still(parent: Here, tmp_path: Path) -> None:
    """Two candidates sleep for half a second, one after the other: 0.5 s and 1 s of two slots are 0.75 s."""
    region = "import time\ndef initialize_weights(model, config):\n    time.sleep(0.5)\n"
    region += "    for parameter in model.parameters():\n        nn.init.ones_(parameter)\n"
    asked = [Job(region, "resnet20", 10, 0, tmp_path / name) for name in "ab"]
    clock = Clock()
    with LocalExecutor(2, threads=1) as executor, ThreadPoolExecutor(2) as pool:
        evaluator = Evaluator(Settings({}), executor, parent.isolation, clock, Progress())
        started = time.monotonic()
        made = list(pool.map(evaluator._answer, asked))
        wall = time.monotonic() - started
        booked = evaluator._book_isolation()
        assert evaluator._book_isolation() == 0
    assert [one.ok for one in made] == [True, True]
    assert 0.7 < booked < wall
    assert clock.seconds()["isolation"] == pytest.approx(booked, abs=0.001)


SET_OF_MODULES = """
def initialize_weights(model, config):
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    for layer in {layer for layer in model.modules() if isinstance(layer, nn.Conv2d)}:
        nn.init.normal_(layer.weight)
"""
UNTIL = """
import time
def initialize_weights(model, config):
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.01 if time.time() < %r else 0.02)
"""


def test_the_order_of_a_set_of_modules_is_refused_before_a_test_is_paid(parent: Here) -> None:
    """It passed the check, for addresses were equal in all children of one process, and a replay differed."""
    report = check(SET_OF_MODULES, {"resnet20": 10}, parent.isolation)
    assert (report.accepted, report.kind) == (False, "nondeterministic")
    assert "order of a set" in report.message
    honest = check(scaffold().region, {"resnet20": 10}, parent.isolation)
    made = parent.isolation.initialise(Job(scaffold().region, "resnet20", 10, 0))
    assert honest.archs["resnet20"]["sha256"] == made.sha256


def test_only_what_the_check_accepted_is_trained(parent: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A region that behaves until the check is over is a recorded failure, not a result; so is one never checked."""
    monkeypatch.setattr("agent.evaluation.check.check_region", lambda region: None)  # a lint, which can be got past
    recorded: list[Evaluated] = []
    store = LayeredStore(ResultStore(tmp_path))
    with LocalExecutor(1, threads=1) as executor:
        evaluator = Evaluator(Settings({}), executor, parent.isolation, Clock(), Progress(), recorded.append)
        task = CALL.task
        assert evaluator.check(scaffold().region, [task], 0).accepted  # both interpreters have the network
        for seconds in (3, 9, 27, 81):  # a busy machine may not end the check in time
            end = time.time() + seconds
            if evaluator.check(UNTIL % end, [task], 0).accepted and time.time() < end:
                break
        time.sleep(max(0, end - time.time()))
        for role, region in (("late", UNTIL % end), ("unchecked", SET_OF_MODULES)):
            outcome = evaluator.evaluate([Candidate(role, region)], [task], [0], results=store)[role, task.name, 0]
            assert isinstance(outcome, CandidateFailure)
            assert outcome.kind == "nondeterministic"
    assert [event.failure and event.failure.partition(":")[0] for event in recorded] == ["nondeterministic"] * 2
    assert not list(tmp_path.iterdir())
