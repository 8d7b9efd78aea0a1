"""The mean of repeats that share nothing but their proposer, with its uncertainty."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scipy import special

from benchmark.comparison import resolve


@dataclass(frozen=True)
class Estimate:
    """The mean of independent repeats with Student's interval, in the unit of the values.

    `ci` is None when the noise is unknown: there is only one repeat (then `sd` is None too), or all are equal. The mean
    is NaN when a repeat failed, or when the values have no common unit.
    """

    mean: float
    ci: tuple[float, float] | None
    sd: float | None
    values: tuple[float, ...]
    confidence: float

    def as_json(self) -> dict[str, Any]:
        """The estimate for `agent compare --proposers … --json`."""
        return {
            "gain": self.mean if math.isfinite(self.mean) else None,
            "ci": None if self.ci is None else list(self.ci),
            "confidence": self.confidence,
            "sd": self.sd,
            "repeats": len(self.values),
            "values": [value if math.isfinite(value) else None for value in self.values],
            "resolved": self.resolved,
            **({} if math.isfinite(self.mean) else {"failed": sum(not math.isfinite(value) for value in self.values)}),
        }

    @property
    def resolved(self) -> str:
        """`better`, `worse`, or `not resolved` when the interval contains zero or is unknown."""
        found = "not resolved" if self.ci is None else resolve(self.ci)
        return "better" if found == "improvement" else found


def estimate(values: Sequence[float], confidence: float = 0.95) -> Estimate:
    """Mean of `values`, one for each repeat, and the t interval of the mean with n − 1 degrees of freedom.

    Raises ValueError without a value.
    """
    if not values:
        raise ValueError("no repeat to average")
    n = len(values)
    if not all(math.isfinite(value) for value in values):
        return Estimate(math.nan, None, None, tuple(values), confidence)
    if min(values) == max(values):
        return Estimate(values[0], None, None if n == 1 else 0.0, tuple(values), confidence)
    mean = sum(values) / n
    sd = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(special.stdtrit(n - 1, (1 + confidence) / 2)) * sd / math.sqrt(n)
    return Estimate(mean, (mean - half, mean + half), sd, tuple(values), confidence)
