"""Is a region acceptable? Rules, isolation on every architecture, determinism. No training, no cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sandbox.isolate import Isolation
from sandbox.payload import Payload
from sandbox.rules import check_region


@dataclass(frozen=True)
class CheckReport:
    """The `agent check --json` object: verdict, kind, message, and per architecture what was made."""

    accepted: bool
    kind: str | None = None
    message: str = "accepted"
    isolation_level: str = ""
    archs: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The contract's keys."""
        return {
            "accepted": self.accepted,
            "kind": self.kind,
            "message": self.message,
            "isolation_level": self.isolation_level,
            "archs": dict(self.archs),
        }


def check(
    region: str, archs: Mapping[str, int], isolation: Isolation, *, seed: int = 0, describe: bool = False
) -> CheckReport:
    """Apply the rules, then run the region on every architecture (name → number of classes), twice with one seed.

    The second run must give the same tensors, bit by bit. What another seed gives is reported per architecture as
    `seeded`. `describe` adds `parameters`, which takes longer than the rest. Raises IsolationCrashed when our own
    machinery fails.
    """
    rejection = check_region(region)
    if rejection is not None:
        return CheckReport(False, rejection.kind, rejection.message, isolation.level)
    made: dict[str, Any] = {}
    for arch, num_classes in archs.items():
        first: Payload | None = None
        for run_seed in (seed, seed, seed + 1):
            result = isolation.initialise(region, arch, num_classes, run_seed, None)
            if result.payload is None:
                return CheckReport(False, result.kind, f"{arch}: {result.message}", isolation.level, {**made, arch: {}})
            if first is None:
                first = result.payload
                continue
            same = first.same_bits(result.payload)
            if run_seed == seed and not same:
                message = (
                    f"{arch}: the same seed gave different tensors twice; use torch's random functions, "
                    "which are seeded, and neither the clock nor uninitialised memory"
                )
                return CheckReport(False, "nondeterministic", message, isolation.level, {**made, arch: {}})
        made[arch] = {"seconds": round(result.seconds, 4), "seeded": not same}
        if describe:
            assert first is not None
            made[arch]["parameters"] = [_describe(name, value) for name, value in first.tensors().items()]
    return CheckReport(True, isolation_level=isolation.level, archs=made)


def _describe(name: str, value: NDArray[np.float32]) -> dict[str, Any]:
    """Name, shape, mean, standard deviation, Euclidean norm, and in words how the values lie."""
    flat = value.astype(np.float64).ravel()
    constant = flat.size > 0 and bool((flat == flat[0]).all())
    return {
        "name": name,
        "shape": list(value.shape),
        "mean": float(flat.mean()) if flat.size else 0.0,
        "std": float(flat.std()) if flat.size else 0.0,
        "norm": float(np.linalg.norm(flat)),
        "init": f"constant {flat[0]:g}" if constant else "varied",
    }
