"""The result of `agent ablate`: the schema of ablation.json, and its sentences for people."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, ValidationError, model_serializer

from agent.errors import RunDamaged
from agent.runs.directory import RunDirectory
from agent.runs.files import read_bytes
from benchmark.comparison import signed
from benchmark.results import region_sha256
from benchmark.task import ACCURACY

Seeds = dict[int, float | None]
"""Seed → best test accuracy in percent, or score, None for a failure."""
POINTS = ACCURACY.points


class _Kept(BaseModel):
    model_config = ConfigDict(frozen=True)


class Contribution(_Kept):
    """The gain that is lost without the part, the mean over the visible tasks. The interval holds for all parts.

    The unit is that of the ablation. `ci` is None where no noise is known; `gain` too where no mean has a unit.
    `needed`: the variant failed on the tasks in `failed`, so there are no numbers.
    """

    gain: float | None = None
    ci: tuple[float, float] | None = None
    smallest_visible_effect: float | None = None
    resolved: Literal["carries", "in the way", "not resolved", "needed"]
    failed: tuple[str, ...] = ()


class PartResult(_Kept):
    """The result for one part. `refused` says why it was not trained, and is None when it was."""

    kind: Literal["hunk", "number"]
    label: str
    region_sha256: str
    refused: str | None = None
    accuracies: dict[str, Seeds] = {}
    contribution: Contribution | None = None

    def words(self, unit: str) -> str:
        """One line for a person. `unit` is that of the ablation."""
        one, name = self.contribution, f"{self.kind} {self.label}"
        if one is None:
            return f"{name}: {self.refused}"
        if one.resolved == "needed":
            return f"{name}: needed; without it the training fails on {', '.join(one.failed)}"
        places = places_of(one, unit)
        gain = "no gain over all" if one.gain is None else f"{signed(one.gain, places)} {unit}"
        if one.ci is None:
            return f"{name}: {gain} (no noise is known): {one.resolved}"
        verdict = {"carries": "carries gain, resolved", "in the way": "in the way, resolved"}
        interval = f"95 % interval {signed(one.ci[0], places)} … {signed(one.ci[1], places)}"
        return f"{name}: {gain} ({interval}): {verdict.get(one.resolved, one.resolved)}"


def places_of(one: Contribution, unit: str, least: int = 1) -> int:
    """Digits after the point: `least` for points, two that count for another unit."""
    size = min((abs(n) for n in (one.gain, one.smallest_visible_effect) if n), default=1.0)
    return least if unit == POINTS else min(8, max(least, 1 - math.floor(math.log10(size))))


class Ablation(_Kept):
    """The content of ablation.json. The ablation was allowed to spend `share` of the search's visible trainings."""

    schema_version: Literal[1] = 1
    test: int
    region_sha256: str
    profile: str
    seeds: tuple[int, ...]
    share: float
    trainings: int
    trainings_of_search: int
    accuracies: dict[str, Seeds]
    """Accuracies of the submission with the fresh seeds."""
    parts: tuple[PartResult, ...]
    conclusion: str
    unit: str = POINTS
    """Of the contributions: `points`, the metric of the tasks, or `seed SD` where their metrics differ."""

    @model_serializer(mode="wrap")
    def _without_default(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = handler(self)
        return {name: value for name, value in found.items() if name != "unit" or value != POINTS}

    @property
    def stated(self) -> str:
        """A sentence about the trainings that were spent."""
        return (
            f"{self.trainings} trainings on the visible tasks; allowed: {self.share:g} × the search's "
            f"{self.trainings_of_search}. Fresh seeds: {', '.join(map(str, self.seeds))}"
        )


def read_ablation(run: RunDirectory, region: str) -> Ablation | None:
    """The stored ablation of exactly this region; None when there is none or it cannot be read."""
    try:
        kept = Ablation.model_validate_json(read_bytes(run.path, "ablation.json"))
    except (OSError, RunDamaged, ValidationError):
        return None
    return kept if kept.region_sha256 == region_sha256(region) else None
