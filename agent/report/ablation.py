"""The result of `agent ablate`: the schema of ablation.json, and its sentences for people."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from agent.errors import RunDamaged
from agent.runs.directory import RunDirectory
from agent.runs.files import read_bytes
from benchmark.comparison import signed
from benchmark.results import region_sha256

Seeds = dict[int, float | None]
"""Seed → best test accuracy in percent, None for a failure."""


class _Kept(BaseModel):
    model_config = ConfigDict(frozen=True)


class Contribution(_Kept):
    """Submission minus variant in points of visible accuracy, the mean over tasks. The interval holds for all parts.

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

    @property
    def words(self) -> str:
        """One line for a person."""
        one, name = self.contribution, f"{self.kind} {self.label}"
        if one is None:
            return f"{name}: {self.refused}"
        if one.gain is None or one.ci is None:
            return f"{name}: needed; without it the training fails on {', '.join(one.failed)}"
        verdict = {"carries": "carries gain, resolved", "in the way": "in the way, resolved"}
        interval = f"95 % interval {signed(one.ci[0])} … {signed(one.ci[1])}"
        return f"{name}: {signed(one.gain)} points ({interval}): {verdict.get(one.resolved, one.resolved)}"


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
