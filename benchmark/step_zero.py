"""The step-0 canary: an untrained network knows nothing of the labels. If it does, its initialiser trained it.

Guessing binomially is not the right picture of an untrained network: it sends whole groups of similar pictures to the
same output, so by luck alone its accuracy scatters far more than that of independent guesses. What does hold is that
it cannot know which label is written on which group. So both the accuracy and the loss are compared with what the same
outputs would score had the labels been dealt to the classes at random (a permutation test).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from scipy import special  # a third of a second; scipy.stats would be one and a half
from torch import Tensor

from benchmark.results import StepZero

SUSPICIOUS_BELOW = 1e-4
_PERMUTATIONS = 20_000


def judge_step_zero(logits: Tensor, labels: Tensor, num_classes: int) -> StepZero:
    """Judge the outputs of an untrained network on the test set.

    logits: float (N, num_classes), from batch statistics in the BN layers, as in the first training step (the running
    statistics are still those of nothing). labels: int64 (N,).
    Suspicious is an accuracy that neither independent guesses (binomial, at the share of the largest class) nor dealt
    labels reach in one of 10,000 cases, or a loss below ln(num_classes) that dealt labels don't reach as seldom. Below
    eight classes there are too few ways to deal labels for any suspicion.
    """
    logits, labels = logits.detach().double().cpu(), labels.cpu()
    loss = F.cross_entropy(logits, labels).item()
    predictions = logits.argmax(1)
    correct = int((predictions == labels).sum())
    chance = torch.bincount(labels, minlength=num_classes).max().item() / len(labels)
    # What scipy.stats.binom.sf(correct - 1, …) computes.
    binomial = float(special.betainc(correct, len(labels) - correct + 1, chance)) if correct else 1.0
    by_class = F.one_hot(labels, num_classes).double().T  # (class, image)
    accuracy_p = binomial
    if binomial < SUSPICIOUS_BELOW:
        dealt = _permutation_p(by_class @ F.one_hot(predictions, num_classes).double())
        accuracy_p = max(binomial, dealt)
    suspicious = accuracy_p < SUSPICIOUS_BELOW
    if math.isfinite(loss) and loss < math.log(num_classes):
        suspicious |= _permutation_p(by_class @ logits.log_softmax(1)) < SUSPICIOUS_BELOW
    return StepZero(accuracy=100 * correct / len(labels), loss=loss, p_value=accuracy_p, suspicious=suspicious)


def _permutation_p(scores: Tensor) -> float:
    """Share of the ways to deal the labels under which the total score is at least the one observed.

    scores: (C, C); what the images of class c (rows) score together if their label were output j (columns).
    """
    classes = len(scores)
    generator = torch.Generator().manual_seed(0)
    deals = torch.rand(_PERMUTATIONS, classes, generator=generator).argsort(1)
    totals = scores.expand(_PERMUTATIONS, -1, -1).gather(2, deals.unsqueeze(2)).sum((1, 2))
    at_least = int((totals >= scores.trace() - 1e-9).sum())
    return (1 + at_least) / (1 + _PERMUTATIONS)
