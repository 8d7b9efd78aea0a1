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


def is_task_file(name: str) -> bool:
    """Whether a profile's name stands for a task file: a path, or a name that ends in .toml."""
    return name.endswith(".toml") or "/" in name


def get_profile(name: str) -> Profile:
    """Return the profile called `name`. Raises ValueError, which lists the known ones."""
    if name not in PROFILES:
        raise ValueError(f"unknown profile {name!r}; known: {', '.join(PROFILES)}")
    return PROFILES[name]
