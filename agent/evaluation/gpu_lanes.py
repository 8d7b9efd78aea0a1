"""How many lanes a GPU gets, if nobody says: measured once for each card and kept in the user's cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from agent.config import SearchConfig
from agent.errors import UsageError, in_one_sentence
from benchmark import HARNESS_VERSION
from benchmark.executors import InfrastructureError, LocalExecutor
from benchmark.files import write_atomically
from benchmark.hardware import environment, gpu_count
from benchmark.lanes import MOST_LANES
from benchmark.store import user_store
from benchmark.tasks import Profile

UNMEASURED = 4
"""On the card that was measured, 4 lanes gave at least 0.9 of the images per second of 8."""
_SECONDS = 600.0


def require_triton(config: SearchConfig, gpus: int) -> None:
    """Raise UsageError if this machine, with so many GPUs, is to use the Triton kernels and cannot."""
    if config.kernels == "triton" and config.executor == "local":
        from benchmark.steps import no_triton

        if why := no_triton(gpu=gpus > 0):
            raise UsageError(f"--set {why}")


def known_lanes(config: SearchConfig) -> int | None:
    """Return the number that was measured on this card with this configuration, or None."""
    return measured_lanes(config)[0]


def measured_lanes(config: SearchConfig) -> tuple[int | None, float | None]:
    """Return the number of lanes, and their images per second in all; None for what was not measured here."""
    if gpu_count() == 0:
        return None, None
    try:
        kept = json.loads(_path(config).read_text(encoding="utf-8"))
        lanes, rate = kept["lanes"], kept["images_per_second"]
    except (OSError, ValueError, KeyError, TypeError):
        return None, None
    good = isinstance(lanes, int) and 1 <= lanes <= MOST_LANES and isinstance(rate, float | int)
    return (lanes, float(rate)) if good else (None, None)


def learn_lanes(config: SearchConfig, profile: Profile, say: Callable[[str], None]) -> None:
    """Measure how many lanes are best, if `workers` is auto, there is a GPU, and nobody measured it yet."""
    require_triton(config, gpu_count())
    if config.workers != "auto" or config.executor != "local" or gpu_count() == 0 or known_lanes(config) is not None:
        return
    from benchmark.lane_rate import MeasureLanes, best_lanes

    say("measuring once how many trainings this GPU runs best side by side (--workers N skips this)")
    archs = tuple(sorted({task.arch for task in profile.visible}))
    call = MeasureLanes(archs, precision=config.precision, kernels=config.kernels)
    try:
        with LocalExecutor(1, threads=1, gpus=1) as executor:
            seconds = executor.submit(call, timeout=_SECONDS).result()
    except InfrastructureError as error:
        say(f"it could not be measured, so {UNMEASURED} are taken: {error}")
        return
    lanes = best_lanes(seconds)
    rates = {count: len(archs) / needed for count, needed in seconds.items()}
    words = ", ".join(f"{count}: {rate:,.0f}" for count, rate in rates.items())
    say(f"{lanes} lanes on this GPU (images per second by number of lanes: {words})")
    rate = rates.get(lanes, 0.0)
    path = _path(config)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({"lanes": lanes, "images_per_second": rate}).encode())
    except OSError as error:
        say(f"this could not be kept for the next search: {in_one_sentence(error)}")


def _path(config: SearchConfig) -> Path:
    content = json.dumps([HARNESS_VERSION, environment(config.precision, config.kernels)], sort_keys=True)
    return user_store().folder.with_name("lanes") / f"{hashlib.sha256(content.encode()).hexdigest()}.json"
