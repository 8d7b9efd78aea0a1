"""The step-0 check: an untrained network must not know the labels. If it does, its initialiser has trained it.

A binomial test alone does not fit an untrained network. The network sends whole groups of similar pictures to the same
output, so by chance its accuracy scatters much more than that of independent guesses. But it cannot know the label of a
group. So a permutation test assigns the labels to the classes at random, and compares the accuracy and the loss with
those of the same outputs under random labels.
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

    logits: float (N, num_classes), with batch statistics in the BN layers, as in the first training step (the running
    statistics have no data yet). labels: int64 (N,).
    An accuracy is suspicious if both independent guesses (binomial, at the share of the largest class) and permuted
    labels reach it in less than one of 10,000 cases. A loss below ln(num_classes) is suspicious if permuted labels
    reach it as rarely. With fewer than eight classes there are too few permutations for any suspicion.
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
        permuted = _permutation_p(by_class @ F.one_hot(predictions, num_classes).double())
        accuracy_p = max(binomial, permuted)
    suspicious = accuracy_p < SUSPICIOUS_BELOW
    if math.isfinite(loss) and loss < math.log(num_classes):
        suspicious |= _permutation_p(by_class @ logits.log_softmax(1)) < SUSPICIOUS_BELOW
    return StepZero(accuracy=100 * correct / len(labels), loss=loss, p_value=accuracy_p, suspicious=suspicious)


def _permutation_p(scores: Tensor) -> float:
    """Return the share of label permutations whose total score is at least the observed one.

    scores: (C, C), the total score of the images of class c (row) if their label were output j (column).
    """
    classes = len(scores)
    generator = torch.Generator().manual_seed(0)
    permutations = torch.rand(_PERMUTATIONS, classes, generator=generator).argsort(1)
    totals = scores.expand(_PERMUTATIONS, -1, -1).gather(2, permutations.unsqueeze(2)).sum((1, 2))
    at_least = int((totals >= scores.trace() - 1e-9).sum())
    return (1 + at_least) / (1 + _PERMUTATIONS)
