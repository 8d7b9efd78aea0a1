"""Critical values for many candidates against one baseline, and the smallest effect that they can detect."""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray
from scipy import special  # a third of a second; scipy.stats would be one and a half

Nodes = NDArray[np.float64]
POWER = 0.8
"""The smallest detectable effect is the true gain that a comparison resolves with this probability."""


def critical_value(n_candidates: int, df: float, rho: float, confidence: float = 0.95) -> float:
    """Return the two-sided critical value for the largest of `n_candidates` |t| that share a baseline.

    Solves P(max|Tᵢ| ≤ c) = confidence for the multivariate t distribution, by quadrature over the shared baseline and
    the common SD (Dunnett 1955, section 3), with `df` rounded down. For one candidate it is Student's t.
    rho, 0 ≤ rho < 1, is the correlation between two candidates' t; with equal seed counts on both sides it is ½.
    """
    if n_candidates == 1:
        return float(special.stdtrit(df, (1 + confidence) / 2))
    return _dunnett(n_candidates, max(1, math.floor(df)), rho, confidence)


@functools.cache
def _nodes() -> tuple[tuple[Nodes, Nodes], tuple[Nodes, Nodes]]:
    """Nodes and weights for the baseline's error, and for the quantiles of the SD estimate."""
    return np.polynomial.hermite_e.hermegauss(64), np.polynomial.legendre.leggauss(64)


@functools.lru_cache(maxsize=4096)
def _dunnett(count: int, df: int, rho: float, confidence: float) -> float:
    (shared, weights), (levels, level_weights) = _nodes()
    scale = np.sqrt(special.gammaincinv(df / 2, (levels + 1) / 2) * 2 / df)

    def coverage(critical: float) -> float:
        centre, bound = math.sqrt(rho) * shared, critical * scale[:, None]
        inside = special.ndtr((centre + bound) / math.sqrt(1 - rho)) - special.ndtr(
            (centre - bound) / math.sqrt(1 - rho)
        )
        return float((level_weights / 2) @ inside**count @ (weights / weights.sum()))

    low = float(special.stdtrit(df, (1 + confidence) / 2))
    high = float(special.stdtrit(df, 1 - (1 - confidence) / 2 / count))  # Bonferroni's value is an upper bound
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (middle, high) if coverage(middle) < confidence else (low, middle)
    return high


def visible_effect(critical: float, df: float) -> float:
    """Return the noncentrality δ, in standard errors, with P(T(df, δ) > critical) = POWER."""
    return float(special.nctdtrinc(df, 1 - POWER, critical))
