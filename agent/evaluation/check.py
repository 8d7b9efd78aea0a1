"""The free check of a region: rules, isolation on every architecture, determinism. It trains nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sandbox.isolate import Initialised, Isolation, Job
from sandbox.rules import check_region


@dataclass(frozen=True)
class CheckReport:
    """The `agent check --json` object: verdict, kind, message, and the result for each architecture."""

    accepted: bool
    kind: str | None = None
    message: str = "accepted"
    isolation_level: str = ""
    archs: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The contract's keys."""
        return dataclasses.asdict(self)


def check(
    region: str,
    archs: Mapping[str, int | Job],
    isolation: Isolation,
    *,
    describe: bool = False,
    side_by_side: bool = False,
) -> CheckReport:
    """Apply the rules, then run the region on every network, twice with one seed.

    `archs`: name of one of our architectures → number of classes, or any name → the initialisation to run.

    The second run, in another interpreter, must give exactly the same tensors; `sha256` is their hash. `seeded` says
    whether another seed gives other tensors. `describe` adds `parameters`, which takes longer than the rest.
    `side_by_side`: the second run takes place beside the first. Raises IsolationCrashed when our own machinery fails.
    """
    rejection = check_region(region)
    if rejection is not None:
        return CheckReport(False, rejection.kind, rejection.message, isolation.level)
    made: dict[str, Any] = {}

    def refused(arch: str, kind: str | None, message: str) -> CheckReport:
        return CheckReport(False, kind, f"{arch}: {message}", isolation.level, {**made, arch: {}})

    with ThreadPoolExecutor(1) as beside:
        for arch, wanted in archs.items():
            job = Job(region, arch, wanted, 0) if isinstance(wanted, int) else wanted
            begun = beside.submit(isolation.repeat, job) if side_by_side else None
            first = isolation.initialise(job)
            if not first.ok:
                return refused(arch, first.kind, first.message)
            again = isolation.repeat(job) if begun is None else begun.result()
            if again.sha256 != first.sha256:
                return refused(arch, *difference(again))
            other = isolation.initialise(dataclasses.replace(job, seed=job.seed + 1))
            if not other.ok:
                return refused(arch, other.kind, other.message)
            made[arch] = {
                "seconds": round(other.seconds, 4),
                "seeded": other.sha256 != first.sha256,
                "sha256": first.sha256,
            }
            if describe and first.payload is not None:
                made[arch]["parameters"] = [_describe(name, value) for name, value in first.payload.tensors().items()]
    return CheckReport(True, isolation_level=isolation.level, archs=made)


def difference(again: Initialised) -> tuple[str, str]:
    """Kind and message for a region whose second run with the same seed differed from the first."""
    if again.kind in ("timeout", "memory"):  # the machine may be to blame for these
        return again.kind, again.message
    what = "gave different tensors twice" if again.ok else f"succeeded once and then failed ({again.message})"
    return "nondeterministic", (
        f"the same seed {what}; use torch's random functions, which are seeded, and neither the clock, uninitialised "
        "memory, process numbers, id(), hash() nor the order of a set"
    )


def _describe(name: str, value: NDArray[np.float32]) -> dict[str, Any]:
    """Name, shape, mean, standard deviation, Euclidean norm, and whether all values are equal."""
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
