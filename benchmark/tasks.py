"""The profiles that everybody has. Each is a task file in `benchmark/profiles`, in the form that users write."""

from __future__ import annotations

from pathlib import Path

from benchmark.task import ACCURACY, NUM_CLASSES, SIZES, Metric, Prepared, Profile, Recipe, Task, Trainer
from benchmark.task_schema import read_task_file

__all__ = [
    "ACCURACY",
    "FROM_PYTHON",
    "NUM_CLASSES",
    "PROFILES",
    "SIZES",
    "Metric",
    "Prepared",
    "Profile",
    "Recipe",
    "Task",
    "Trainer",
    "get_profile",
    "is_task_file",
    "known_profile",
    "own_metric",
    "remember",
]

FROM_PYTHON = "search()"
"""Stands for the profile of a search whose network and data were given in Python."""
FOLDER = Path(__file__).with_name("profiles")
NAMES = ("paper", "pocket", "pocket_small", "mini", "smoke")


def _built_in(name: str) -> Profile:
    written = read_task_file(FOLDER / f"{name}.toml")
    return Profile(
        name=name,
        visible=tuple(one.ours() for one in written.visible),
        hidden=tuple(one.ours() for one in written.hidden),
        caveat=written.caveat,
        fidelities=written.fidelities,
    )


PROFILES: dict[str, Profile] = {name: _built_in(name) for name in NAMES}

_OWN: dict[str, Profile] = {}


def is_task_file(name: str) -> bool:
    """Whether a profile's name stands for a task file: a path, or a name that ends in .toml."""
    return name.endswith(".toml") or "/" in name


def get_profile(name: str) -> Profile:
    """Return the profile called `name`. Raises ValueError, which lists the known ones."""
    if name not in PROFILES:
        raise ValueError(f"unknown profile {name!r}; known: {', '.join(PROFILES)}")
    return PROFILES[name]


def remember(profile: Profile) -> Profile:
    """Let `known_profile` find a user's profile in this process, and return it."""
    if profile.is_own:
        _OWN[profile.name] = profile
    return profile


def own_metric(task: str, default: Metric = Metric("score")) -> Metric:  # noqa: B008 - it is frozen
    """The metric of a user's task by the task's name; `default` where no profile of this process has such a task."""
    known = (one.metric for profile in reversed(_OWN.values()) for one in profile.tasks if one.name == task)
    return next(known, default)


def known_profile(name: str) -> Profile | None:
    """The built-in profile of this name, or the user's that this process loaded or read from a run's log last."""
    return PROFILES.get(name) or _OWN.get(name)
