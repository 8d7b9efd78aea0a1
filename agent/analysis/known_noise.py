"""The seed noise that a run uses for its tasks: what was measured on this machine, or the prior in doubt."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Any

from scipy import special  # a third of a second; scipy.stats would be one and a half

from agent.protocol import Accuracies
from agent.runs.recorded_noise import GIVEN, Noise, prior
from benchmark.noise import TaskNoise
from benchmark.noise_measured import measured_noise
from benchmark.store import ResultStore, user_store
from benchmark.tasks import Profile

MEASURING_SEEDS = 5
"""Seeds with which `agent plan` offers to measure the noise."""


def noise_here(profile: Profile, environment: Mapping[str, str], *, cache: bool = True) -> dict[str, TaskNoise]:
    """The noise of each task of the profile, with what the user's store of results shows about this machine.

    Without `cache` the store is not read. The hidden task's results are in a store of their own, where only
    `agent baselines --hidden` puts any.
    """
    store = user_store()
    hidden = ResultStore(store.folder.with_name("hidden"))
    return {
        task.name: measured_noise(
            task,
            prior(profile.name, task.name, dict(profile.noise)),
            environment,
            [] if not cache else [hidden] if task in profile.hidden else [store],
        )
        for task in profile.tasks
    }


def sentence(one: TaskNoise) -> str:
    """What a comparison on this task relies on, such as "measured on this machine, 14 degrees of freedom"."""
    if (measured := one.measured) is not None:
        freedom = "degree" if one.measured_df == 1 else "degrees"
        return f"measured on this machine, {one.measured_df} {freedom} of freedom (SD {measured.sd:.2g})"
    if not one.df:
        return "not known: only the seeds of a run can show it"
    if one.source == GIVEN:
        return f"{GIVEN} (SD {one.sd:.2g}): intervals allow for one that is 1.5 times as large"
    return "not measured on this machine: intervals use a prior SD, and allow for it being 1.5 times too small"


def in_words(noise: Noise | None) -> list[str]:
    """One line for each task; tasks of which the same can be said share one."""
    said: dict[str, list[str]] = {}
    for task, one in (noise or {}).items():
        said.setdefault(sentence(one), []).append(task)
    return [f"noise {words} [{', '.join(tasks)}]" for words, tasks in said.items()]


def contradicted(noise: Noise | None, baseline: Accuracies) -> list[str]:
    """One line for each task whose baseline scatters clearly more than the SD that the task file gives.

    With variance s² over n seeds and the stated SD σ, (n − 1)·s²/σ² has a chi-square distribution with n − 1 degrees of
    freedom where σ is right; it is above its 99 % point once in a hundred times.
    """
    lines = []
    for task, one in (noise or {}).items():
        known = [score for score in baseline.get(task, {}).values() if score is not None and math.isfinite(score)]
        if one.source != GIVEN or len(known) < 2:
            continue
        sd, df = statistics.stdev(known), len(known) - 1
        if special.chdtrc(df, df * (sd / one.sd) ** 2) < 0.01:
            lines.append(
                f"{task}: the {len(known)} seeds of the baseline scatter with SD {sd:.2g}, clearly more than the "
                f"{one.sd:.2g} in the task file (chi-square test at 1 %)"
            )
    return lines


def as_json(noise: Noise) -> dict[str, Any]:
    """Task → SD in use, degrees of freedom of the measurement, whether it was measured here, and the sentence."""
    return {
        task: {
            "sd": _sd(one),
            "measured": one.measured is not None,
            "degrees_of_freedom": one.measured_df,
            "words": sentence(one),
        }
        for task, one in noise.items()
    }


def _sd(one: TaskNoise) -> float | None:
    if (measured := one.measured) is not None:
        return measured.sd
    return one.sd if one.df else None
