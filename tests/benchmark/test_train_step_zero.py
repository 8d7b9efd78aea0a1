"""The step-0 check accepts a lucky network and detects one that knows the labels."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from benchmark.step_zero import judge_step_zero

LABELS = torch.arange(1000) % 10


def knowing(share: float, classes: int = 10) -> torch.Tensor:
    """Logits that are right for `share` of the images and arbitrary for the others."""
    generator = torch.Generator().manual_seed(0)
    answers = torch.randint(0, classes, LABELS.shape, generator=generator)
    answers = torch.where(torch.rand(LABELS.shape, generator=generator) < share, LABELS, answers)
    return 3 * F.one_hot(answers, classes).float()


def test_guessing_is_not_suspicious() -> None:
    """A network that guesses each image on its own passes."""
    judged = judge_step_zero(knowing(0), LABELS, 10)
    assert not judged.suspicious
    assert judged.p_value > 1e-3


@pytest.mark.parametrize("share", [0.15, 0.5, 1.0])
def test_knowing_some_labels_is_suspicious(share: float) -> None:
    """A network that was trained in secret is caught, even when it knows few answers."""
    assert judge_step_zero(knowing(share), LABELS, 10).suspicious


def test_a_lucky_group_is_not_suspicious() -> None:
    """All trousers look alike, so one lucky output is right for a whole class at once: 19 %, and no cheating.

    Counted as independent guesses this would be one chance in billions.
    """
    lucky_output = torch.tensor([0, 2, 3, 4, 5, 6, 7, 8, 9, 1])[LABELS]
    judged = judge_step_zero(3 * F.one_hot(lucky_output, 10).float(), LABELS, 10)
    assert judged.accuracy == 10
    two = torch.tensor([0, 1, 3, 4, 5, 6, 7, 8, 9, 2])[LABELS]
    judged = judge_step_zero(3 * F.one_hot(two, 10).float(), LABELS, 10)
    assert judged.accuracy == 20
    assert not judged.suspicious


def test_a_constant_answer_is_not_suspicious_when_classes_are_unequal() -> None:
    """A network that always gives the same answer is at chance, also where that class is the largest."""
    labels = torch.cat([torch.zeros(400, dtype=torch.long), torch.arange(600) % 10])
    constant = F.one_hot(torch.zeros(1000, dtype=torch.long), 10).float()
    judged = judge_step_zero(constant, labels, 10)
    assert judged.accuracy == pytest.approx(46)
    assert not judged.suspicious


def test_low_loss_betrays_knowledge_that_the_argmax_hides() -> None:
    """Always one wrong answer on top, the right one second: accuracy at chance, but the loss is too low."""
    logits = 6 * F.one_hot(LABELS, 11).float()
    logits[:, 10] = 6.1
    judged = judge_step_zero(logits, LABELS, 11)
    assert judged.accuracy == 0
    assert judged.loss < math.log(11)
    assert judged.suspicious


def test_numbers_that_are_not_finite_are_not_an_accusation() -> None:
    """A network that overflows before training is broken, not dishonest."""
    judged = judge_step_zero(torch.full((1000, 10), float("nan")), LABELS, 10)
    assert not judged.suspicious
    assert math.isfinite(judged.accuracy)
