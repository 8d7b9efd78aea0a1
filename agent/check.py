"""Is a region acceptable? Rules, isolation on every architecture, determinism. No training, no cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from safetensors.numpy import load

from sandbox.isolate import Isolation
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


def check(region: str, archs: Mapping[str, int], isolation: Isolation, *, seed: int = 0) -> CheckReport:
    """Apply the rules, then run the region on every architecture (name → number of classes), twice with one seed.

    The second run must give the same tensors. What another seed gives is reported per architecture as `seeded`.
    Raises IsolationCrashed when our own machinery fails.
    """
    rejection = check_region(region)
    if rejection is not None:
        return CheckReport(False, rejection.kind, rejection.message, isolation.level)
    made: dict[str, Any] = {}
    with TemporaryDirectory(prefix="initsearch-check-") as folder:
        for arch, num_classes in archs.items():
            prints = []
            for attempt, run_seed in enumerate((seed, seed, seed + 1)):
                out = Path(folder) / f"{arch}-{attempt}.safetensors"
                result = isolation.initialise(region, arch, num_classes, run_seed, out)
                if not result.ok:
                    return CheckReport(
                        False, result.kind, f"{arch}: {result.message}", isolation.level, {**made, arch: {}}
                    )
                prints.append(result.fingerprint)
                if attempt == 0:
                    seconds = result.seconds
                    tensors = load(out.read_bytes())
                    parameters = [_describe(name, tensors[name]) for name in result.names]
            made[arch] = {"seconds": round(seconds, 4), "parameters": parameters, "seeded": prints[0] != prints[2]}
            if prints[0] != prints[1]:
                message = (
                    f"{arch}: the same seed gave different tensors twice; use torch's random functions, "
                    "which are seeded, and neither the clock nor uninitialised memory"
                )
                return CheckReport(False, "nondeterministic", message, isolation.level, made)
    return CheckReport(True, isolation_level=isolation.level, archs=made)


def _describe(name: str, value: np.ndarray[Any, Any]) -> dict[str, Any]:
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
