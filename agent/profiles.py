"""Chooses the profile of a search."""

from __future__ import annotations

from pathlib import Path

from agent.config import SearchConfig
from agent.errors import UsageError
from benchmark.data import available
from benchmark.hardware import gpu_count, gpu_problem
from benchmark.tasks import PROFILES, Profile, get_profile

_PAPER_SEEDS = 3
"""Published effects of initialisations are about as large as the scatter of single seeds."""


def with_default_seeds(config: SearchConfig, profile: Profile) -> SearchConfig:
    """Return the configuration with the profile's number of seeds, unless somebody chose one: 3 for `paper`, else 1.

    Raises UsageError if it asks for fewer seeds of the baseline.
    """
    if profile.name != "paper" or "seeds" in config.model_fields_set:
        return config
    if config.baseline_seeds is not None and config.baseline_seeds < _PAPER_SEEDS:
        raise UsageError(
            f"--baseline-seeds must be at least the seeds, of which paper has {_PAPER_SEEDS}: give --seeds too"
        )
    return config.model_copy(update={"seeds": _PAPER_SEEDS})


def resolve_profile(name: str, *, data_root: Path | None = None, download: bool = False) -> tuple[Profile, str]:
    """Return the profile, and the reason as text. `auto` is `paper` if there are a GPU and its data, else `pocket`.

    Raises UsageError for an unknown profile.
    """
    if name != "auto":
        try:
            return get_profile(name), "as asked"
        except ValueError as error:
            raise UsageError(f"--profile {name}: {error}") from None
    gpus = gpu_count()
    if gpus == 0:
        why = gpu_problem() or "no GPU here"
        return PROFILES["pocket"], f"auto: {why}, so the embedded data and short trainings"
    paper = PROFILES["paper"]
    names = sorted({task.dataset for task in (*paper.visible, *paper.hidden)})
    missing = [] if download else [data for data in names if not available(data, data_root=data_root).ok]
    if missing:
        return PROFILES["pocket"], (
            f"auto: {gpus} GPU(s), but no {' and '.join(missing)} on the disk (--data-root DIR, or --download)"
        )
    return paper, f"auto: {gpus} GPU(s) and the full data sets"
