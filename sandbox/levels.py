"""Which isolation level works on this machine: the strongest one that the canary does not get out of."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable
from typing import Literal

from sandbox import bubblewrap, canary, landlock, seccomp
from sandbox.canary import Canary
from sandbox.launcher import IsolationCrashed, Zygote

Level = Literal["auto", "bubblewrap", "landlock", "none"]
LEVELS = ("bubblewrap", "landlock")
"""The isolation levels, strongest first."""


class IsolationUnavailable(RuntimeError):
    """No acceptable level works on this machine. The message says what was tried and what to do."""


def start_beside(level: Level) -> Zygote | None:
    """Start the zygote of `repeat` at the level that will most likely be chosen. Nobody waits for it yet."""
    likely = next((name for name in _candidates(level) if obstacle_to(name) is None), None)
    try:
        return None if likely is None else Zygote(likely, apart=True)
    except IsolationCrashed:
        return None


def _candidates(level: Level) -> tuple[str, ...]:
    return LEVELS if level == "auto" else () if level == "none" else (level,)


def choose(level: Level) -> tuple[Zygote, Canary | None, dict[str, str]]:
    """Start the strongest requested level that passes the canary; also return why others were rejected.

    Raises IsolationUnavailable.
    """
    if level == "none":
        return Zygote("none"), None, {}
    rejected: dict[str, str] = {}
    for name in _candidates(level):
        zygote, tested, reason = _attempt(name)
        if zygote is not None:
            return zygote, tested, rejected
        rejected[name] = reason
    tried = "; ".join(f"{name}: {reason}" for name, reason in rejected.items())
    raise IsolationUnavailable(
        f"candidates cannot be isolated here. Tried {tried}. Install bubblewrap, or use a Linux with Landlock (5.13 or "
        "newer). --allow-unsandboxed runs candidates without isolation, with all your rights, and "
        "every result says so."
    )


def _attempt(level: str) -> tuple[Zygote | None, Canary | None, str]:
    """Start a zygote at `level` and run the canary in it. Without success, return None and the reason."""
    obstacle = obstacle_to(level)
    if obstacle is not None:
        return None, None, obstacle
    try:
        zygote = Zygote(level)
    except IsolationCrashed as error:
        return None, None, str(error)
    try:
        tested = canary.run(zygote)
    except IsolationCrashed as error:
        zygote.close()
        return None, None, str(error)
    if not tested.passed:
        zygote.close()
        return None, tested, tested.summary()
    return zygote, tested, tested.summary()


def obstacle_to(level: str) -> str | None:
    """Return why `level` cannot work on this machine, or None. Nothing is started to find out."""
    if sys.platform != "linux":
        return f"needs Linux, this is {sys.platform}"
    if seccomp.machine() is None:
        return f"the system call filter knows x86_64 and aarch64, this is {platform.machine()}"
    if level == "landlock" and not landlock.abi():
        return f"the kernel ({platform.release()}) has no Landlock, or it is switched off"
    if level == "bubblewrap" and bubblewrap.program() is None:
        return "the program bwrap is not installed"
    return None


def probe(say: Callable[[str], None] = lambda text: None) -> dict[str, object]:
    """Return what this machine offers and which levels pass the canary, for `agent doctor`. Takes seconds.

    `say` is told which level is tried next.
    """
    levels: dict[str, object] = {}
    chosen = None
    for level in LEVELS:
        started = time.monotonic()
        say(f"trying the isolation level {level}: start it, and let the self-test try to escape")
        zygote, tested, reason = _attempt(level)
        if zygote is not None:
            zygote.close()
            chosen = chosen or level
        levels[level] = {
            "usable": zygote is not None,
            "reason": reason,
            "seconds": round(time.monotonic() - started, 3),
            "escapes": list(tested.escapes) if tested else [],
            "denied": tested.denied if tested else {},
        }
    return {"level": chosen, **features(), "levels": levels}


def features() -> dict[str, object]:
    """Return the kernel features and programs that isolation needs."""
    return {
        "platform": sys.platform,
        "kernel": platform.release(),
        "machine": platform.machine(),
        "root": os.geteuid() == 0,
        "landlock_abi": landlock.abi(),
        "seccomp": seccomp.machine() is not None,
        "bubblewrap": bubblewrap.version(),
    }
