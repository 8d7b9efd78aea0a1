"""Chooses the profile of a search. `auto` without a GPU measures which embedded profile ends in eight minutes here."""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from agent.analysis.design import Design, forecast
from agent.analysis.planning import duration
from agent.config import SearchConfig
from agent.errors import in_one_sentence
from agent.evaluation.slot_plan import plan_slots, side_by_side
from agent.profiles import resolve_profile
from agent.secrets import kept_from_children
from benchmark import HARNESS_VERSION
from benchmark.cost import MeasureCost
from benchmark.executors import InfrastructureError, LocalExecutor
from benchmark.files import write_atomically
from benchmark.store import user_store
from benchmark.tasks import PROFILES, Profile

LIMIT_SECONDS = 480.0
"""Longest search with three tests and one seed for which `auto` takes `pocket`."""
_BESIDES_SECONDS = 45.0
"""What such a search does besides training: its start, its checks and its page."""
_DESIGN = Design(3, 1, 1)
"""Not that of the search at hand: a machine has one profile, whatever the budget."""


def choose_profile(config: SearchConfig, say: Callable[[str], None]) -> tuple[Profile, str]:
    """Return the profile, and the reason as text: see `agent.profiles.resolve_profile`.

    Where that says `pocket` because of `auto`, one training step of each of its networks decides between it and
    `pocket_small`. The measurement is kept in the user's cache. Raises UsageError.
    """
    profile, reason = resolve_profile(config.profile, data_root=config.data_root, download=config.download)
    if config.profile != "auto" or profile.name != "pocket":
        return profile, reason
    try:
        seconds = _known(config) or _measure(config, profile, say)
    except InfrastructureError as error:
        return profile, f"{reason}; its time could not be measured ({error})"
    return judge(seconds, reason)


def judge(seconds: float, reason: str) -> tuple[Profile, str]:
    """Choose between `pocket`, with which a usual search takes so many seconds here, and `pocket_small`; say why."""
    takes = f"a search with three tests and pocket takes about {duration(seconds)} here"
    if seconds <= LIMIT_SECONDS:
        return PROFILES["pocket"], f"{reason}; {takes}"
    return PROFILES["pocket_small"], (
        f"{reason}; {takes}, over {duration(LIMIT_SECONDS)}, so smaller networks (--profile pocket takes the larger)"
    )


def _measure(config: SearchConfig, profile: Profile, say: Callable[[str], None]) -> float:
    """Seconds of a usual search with `pocket`. Raises InfrastructureError."""
    say("measuring a training step, to choose between the profiles pocket and pocket_small (once on this machine)")
    slots, threads, gpus = plan_slots(config, side_by_side(config, profile))
    tasks = profile.tasks
    with kept_from_children(), LocalExecutor(slots, threads=threads, gpus=gpus) as executor:
        calls = [
            executor.submit(MeasureCost(task, config.precision, steps=2, idle=True), timeout=600) for task in tasks
        ]
        cost = {task.name: call.result() for task, call in zip(tasks, calls, strict=True)}
    seconds = forecast(profile, cost, _DESIGN, slots=slots).seconds + _BESIDES_SECONDS
    path = _path(config)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({"seconds": seconds, "cost": cost}).encode())
    except OSError as error:
        say(f"this could not be kept for the next search: {in_one_sentence(error)}")
    return seconds


def _known(config: SearchConfig) -> float | None:
    try:
        seconds = json.loads(_path(config).read_text(encoding="utf-8"))["seconds"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return float(seconds) if isinstance(seconds, float | int) and 0 < seconds < math.inf else None


def _path(config: SearchConfig) -> Path:
    """The file of this machine, with what its speed depends on. Knows all of that without torch."""
    slots, threads, gpus = plan_slots(config, side_by_side(config, PROFILES["pocket"]))
    content = [HARNESS_VERSION, _processor(), version("torch"), config.precision, slots, threads, gpus]
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return user_store().folder.with_name("pocket_seconds") / f"{digest}.json"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith("model name")), platform.processor())
