"""One evaluation in this process: isolation, loading, training, and what is not allowed to count."""

from __future__ import annotations

import dataclasses

import pytest
from torch import Tensor

import benchmark.train
from agent.evaluation import CandidateFailure, EvaluationCall
from benchmark.results import EvaluationResult, StepZero
from benchmark.tasks import PROFILES, Task
from sandbox.region import scaffold

SHORT = dataclasses.replace(PROFILES["smoke"].visible[0].recipe, epochs=1, train_limit=32, test_limit=20)
CALL = EvaluationCall(scaffold().region, Task("resnet20", "tiny", SHORT), 0, (("device", "cpu"),), "auto")


def test_honest_candidate_gets_its_accuracy() -> None:
    """The untouched region is initialised in isolation, trained and returned under its key."""
    result = CALL(lambda metrics: None)
    assert isinstance(result, EvaluationResult)
    assert result.key == CALL.key
    assert result.best_test_acc == max(epoch.test_acc for epoch in result.curve)
    assert result.isolation_level in ("bubblewrap", "landlock")


def test_network_that_was_trained_beforehand_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the untrained network is right beyond luck, the outcome is a failure that says so, not a score."""

    def beyond_luck(logits: Tensor, labels: Tensor, num_classes: int) -> StepZero:
        return StepZero(accuracy=90.0, loss=0.1, p_value=1e-9, suspicious=True)

    monkeypatch.setattr(benchmark.train, "judge_step_zero", beyond_luck)
    outcome = CALL(lambda metrics: None)
    assert isinstance(outcome, CandidateFailure)
    assert outcome.kind == "suspicious"
    assert "does not count" in outcome.message
