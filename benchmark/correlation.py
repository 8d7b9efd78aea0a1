"""Correlation of two series of numbers, and whether it is significant. All functions are pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special

from benchmark.noise import StatisticsError

PAIRED_FROM = 5
"""Fewest seeds for pairing. With fewer, a correlation cannot be told from chance."""


def correlate(points: Sequence[tuple[float, float]], confidence: float = 0.95) -> tuple[float, tuple[float, float]]:
    """Return Pearson's r of at least three points, with Fisher's interval (1921): tanh(z ± 1.96/√(n−3)).

    Three points carry no information: their interval is −1 … 1. Raises StatisticsError for fewer points, for a number
    that is not finite, and if one side does not vary.
    """
    if len(points) < 3 or not all(math.isfinite(value) for point in points for value in point):
        raise StatisticsError(f"a correlation needs at least three pairs of finite numbers, not {list(points)}")
    correlation = correlation_of(*(dict(enumerate(side)) for side in zip(*points, strict=True)))
    if correlation is None:
        raise StatisticsError("a correlation needs numbers that vary; one side is the same everywhere")
    if len(points) == 3:
        return correlation, (-1.0, 1.0)
    z = math.atanh(max(-1 + 1e-12, min(1 - 1e-12, correlation)))
    reach = float(special.ndtri((1 + confidence) / 2)) / math.sqrt(len(points) - 3)
    return correlation, (math.tanh(z - reach), math.tanh(z + reach))


def squares(values: NDArray[np.float64]) -> float:
    """Return the sum of squared deviations from the mean."""
    mean = values.sum() / values.size  # the same bits as .mean(), in half the time
    return float(((values - mean) ** 2).sum())


def correlation_of(baseline: Mapping[int, float], candidate: Mapping[int, float]) -> float | None:
    """Return Pearson's r over the shared seeds; None for fewer than three, or if one side does not vary."""
    shared = [seed for seed in baseline if seed in candidate]
    if len(shared) < 3:
        return None
    x, y = np.array([baseline[seed] for seed in shared]), np.array([candidate[seed] for seed in shared])
    spread = math.sqrt(squares(x) * squares(y))
    return float(((x - x.mean()) * (y - y.mean())).sum() / spread) if spread > 0 else None


def pairing_pays(correlation: float | None, n: int, level: float) -> bool:
    """Whether the correlation of n pairs is significantly positive (t test of r, n − 2 degrees of freedom)."""
    if correlation is None or n < PAIRED_FROM:
        return False
    if abs(correlation) > 1 - 1e-12:  # accuracies on a small test set can mirror each other exactly
        return correlation > 0
    statistic = correlation * math.sqrt((n - 2) / (1 - correlation**2))
    return bool(special.stdtr(n - 2, -statistic) < level)
