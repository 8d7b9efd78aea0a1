"""Run `initialize_weights` of a hostile author: in another process, without data, files, network or time to spare.

    with Isolation() as isolation:
        result = isolation.initialise(region, "resnet56", 100, seed=0, out=Path("weights.safetensors"))

What leaves the isolated process is a claim and a number of bytes that is known beforehand. Names, shapes and dtypes are
ours; finiteness is checked and the file is written by us. Importing this module imports neither torch nor numpy.
"""

from __future__ import annotations

import hashlib
import os
import platform
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from sandbox import bubblewrap, canary, landlock, seccomp
from sandbox.canary import Canary
from sandbox.launcher import IsolationCrashed, Outcome, Zygote, printable
from sandbox.payload import Payload, size_of

__all__ = ["Initialised", "Isolation", "IsolationCrashed", "IsolationUnavailable", "Level", "Limits", "probe"]

Level = Literal["auto", "bubblewrap", "landlock", "none"]
LEVELS = ("bubblewrap", "landlock")
"""Strongest first."""
MAX_REGION_BYTES = 16_384
_CLAIMS = frozenset({"syntax", "signature", "isolation", "exception", "memory", "shape"})


class IsolationUnavailable(RuntimeError):
    """No acceptable level works on this machine. The message says what was tried and what can be done."""


@dataclass(frozen=True)
class Limits:
    """What one candidate may use. Times in seconds, sizes in bytes."""

    wall_seconds: float = 30.0
    cpu_seconds: float = 15.0
    memory_bytes: int = 2 << 30
    """On top of what the worker needs before the candidate runs (torch and the network)."""
    output_bytes: int = 64 << 10
    """How much of what the candidate prints is kept."""


@dataclass(frozen=True)
class Initialised:
    """What became of one candidate."""

    ok: bool
    kind: str | None
    """None when `ok`, else "syntax", "signature", "isolation", "exception", "timeout", "memory", "not_finite", "shape",
    "unset_parameter" or "too_large"."""
    message: str
    weights: Path | None
    """A safetensors file with exactly the model's parameters (float32), where one was asked for."""
    seconds: float
    level: str
    log: str
    """What the candidate printed: untrusted, without control characters."""
    line: int | None = None
    """The line of the region (from 1) where it went wrong, as far as the candidate's process can be believed."""
    payload: Payload | None = None
    """The parameters, where no file was asked for."""


class Isolation:
    """A place to run candidates in. Starting it takes seconds, each candidate well under a tenth of one.

    `level` "auto" takes the strongest that withstands the canary; "none" is for people who passed --allow-unsandboxed.
    Raises IsolationUnavailable. Calls from several threads wait for each other.
    """

    def __init__(self, *, level: Level = "auto", limits: Limits = Limits()) -> None:
        started = time.monotonic()
        self.limits = limits
        self._lock = threading.Lock()
        self._closed = False
        zygote, flight, rejected = _choose(level)
        self._zygote: Zygote | None = zygote
        self.level: str = zygote.level
        self.evidence: dict[str, object] = {
            "level": self.level,
            "canary": flight.summary() if flight else "not flown: isolation was switched off",
            "stronger_levels": rejected,
            "inside": zygote.hello,
            **features(),
        }
        """Level, why none of the stronger ones, kernel features and what the canary found; for run.json."""
        self.seconds = time.monotonic() - started
        """How long starting it took, the canary included."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the isolated processes; a call in another thread then raises IsolationCrashed. May be called twice."""
        self._closed = True
        if (running := self._zygote) is not None:
            running.interrupt()
        with self._lock:
            if self._zygote is not None:
                self._zygote.close()
                self._zygote = None

    def initialise(self, region: str, arch: str, num_classes: int, seed: int, out: Path | None) -> Initialised:
        """Run the region's `initialize_weights` on a fresh `arch` and write the parameters to `out` (safetensors).

        Without `out` they stay in memory: reading and writing cost as much as the candidate itself.
        The candidate's failures are a result with `ok` False. Raises IsolationCrashed when our own machinery failed
        (the next call starts it anew), ValueError for an unknown architecture, OSError when `out` cannot be written.
        """
        with self._lock:
            started = time.monotonic()  # waiting for somebody else's candidate is not this one's time
            if self._closed:
                raise ValueError("this Isolation is closed")
            if len(region.encode(errors="replace")) > MAX_REGION_BYTES:
                message = f"the region has more than {MAX_REGION_BYTES:,} bytes"
                return self._failed("too_large", message, started)
            if self._zygote is None or self._zygote.pid is None:
                self._zygote = Zygote(self.level)
            try:
                if self._closed:  # while the zygote was starting, when there was nothing to interrupt
                    raise IsolationCrashed("the isolation was closed")
                return self._initialise(self._zygote, region, arch, num_classes, seed, out, started)
            except IsolationCrashed:
                self._zygote.close()
                self._zygote = None
                raise

    def _initialise(
        self, zygote: Zygote, region: str, arch: str, num_classes: int, seed: int, out: Path | None, started: float
    ) -> Initialised:
        layout = zygote.layout(arch, num_classes)
        size = size_of(layout)
        outcome = zygote.run(
            region,
            arch=arch,
            num_classes=num_classes,
            seed=derived_seed(seed),
            wall_seconds=self.limits.wall_seconds,
            cpu_seconds=self.limits.cpu_seconds,
            memory_bytes=self.limits.memory_bytes,
            log_bytes=self.limits.output_bytes,
            payload_bytes=size,
        )
        failure = _failure(outcome, size, self.limits)
        if failure is not None:
            return self._failed(failure[0], failure[1], started, outcome.log, failure[2])
        payload = Payload(outcome.payload, layout)
        if (fault := payload.fault()) is not None:
            return self._failed(*fault, started, outcome.log)
        if out is not None:
            payload.write(out)
        return Initialised(
            ok=True,
            kind=None,
            message="",
            weights=out,
            seconds=time.monotonic() - started,
            level=self.level,
            log=outcome.log,
            payload=payload if out is None else None,
        )

    def _failed(self, kind: str, message: str, started: float, log: str = "", line: int | None = None) -> Initialised:
        seconds = time.monotonic() - started
        return Initialised(False, kind, message, None, seconds, self.level, log, line)


def derived_seed(seed: int) -> int:
    """The seed of a candidate's generators: 63 bits of SHA-256. It is none that the trainer uses."""
    return int.from_bytes(hashlib.sha256(f"initialise:{seed}".encode()).digest()[:8], "big") >> 1


_Failure = tuple[str, str, int | None]


def _failure(outcome: Outcome, size: int, limits: Limits) -> _Failure | None:
    """What ended the child before it had handed out all its bytes, or what it says of itself."""
    if outcome.timed_out:
        return "timeout", f"initialize_weights took more than {limits.wall_seconds:g} s", None
    out_of_time = outcome.cpu_seconds >= limits.cpu_seconds  # a candidate can ignore SIGXCPU, and is killed then
    if outcome.exit_code == -signal.SIGXCPU or (outcome.exit_code == -signal.SIGKILL and out_of_time):
        return "timeout", f"initialize_weights used more than {limits.cpu_seconds:g} s of processor time", None
    head = outcome.head
    if head is not None and head.get("kind") is not None:
        kind = head["kind"] if isinstance(head["kind"], str) and head["kind"] in _CLAIMS else "exception"
        line = head.get("line")
        line = line if type(line) is int and 0 < line <= MAX_REGION_BYTES else None
        where = f"line {line}: " if line is not None else ""
        return kind, where + printable(str(head.get("message", "")))[:2000], line
    if head is not None and len(outcome.payload) == size:
        return None
    if outcome.exit_code == -signal.SIGKILL:
        return "memory", "the process was killed from outside, most likely because memory ran out", None
    if outcome.exit_code == -signal.SIGSYS:
        return "isolation", "a system call of another machine was tried", None
    if outcome.exit_code < 0:
        return "exception", f"the process crashed ({signal.Signals(-outcome.exit_code).name})", None
    return "exception", "the process ended before initialize_weights returned", None


def _choose(level: Level) -> tuple[Zygote, Canary | None, dict[str, str]]:
    """Start the strongest level that is asked for and withstands a canary; also what was wrong with the others."""
    if level == "none":
        return Zygote("none"), None, {}
    rejected: dict[str, str] = {}
    for name in LEVELS if level == "auto" else (level,):
        zygote, flight, reason = _try(name)
        if zygote is not None:
            return zygote, flight, rejected
        rejected[name] = reason
    tried = "; ".join(f"{name}: {reason}" for name, reason in rejected.items())
    raise IsolationUnavailable(
        f"candidates cannot be isolated here. Tried {tried}. Install bubblewrap, or use a Linux with Landlock (5.13 or "
        "newer). --allow-unsandboxed runs candidates without isolation, with all your rights, and "
        "every result says so."
    )


def _try(level: str) -> tuple[Zygote | None, Canary | None, str]:
    """A zygote at `level` with a canary that failed to escape, or None and the reason."""
    obstacle = obstacle_to(level)
    if obstacle is not None:
        return None, None, obstacle
    try:
        zygote = Zygote(level)
    except IsolationCrashed as error:
        return None, None, str(error)
    try:
        flight = canary.fly(zygote)
    except IsolationCrashed as error:
        zygote.close()
        return None, None, str(error)
    if not flight.passed:
        zygote.close()
        return None, flight, flight.summary()
    return zygote, flight, flight.summary()


def obstacle_to(level: str) -> str | None:
    """Why `level` cannot work on this machine, as far as can be told without trying."""
    if sys.platform != "linux":
        return f"needs Linux, this is {sys.platform}"
    if seccomp.machine() is None:
        return f"the system call filter knows x86_64 and aarch64, this is {platform.machine()}"
    if level == "landlock" and not landlock.abi():
        return f"the kernel ({platform.release()}) has no Landlock, or it is switched off"
    if level == "bubblewrap" and bubblewrap.program() is None:
        return "the program bwrap is not installed"
    return None


def probe() -> dict[str, object]:
    """What this machine offers and which levels withstand a canary; for `agent doctor`. Takes seconds."""
    levels: dict[str, object] = {}
    chosen = None
    for level in LEVELS:
        started = time.monotonic()
        zygote, flight, reason = _try(level)
        if zygote is not None:
            zygote.close()
            chosen = chosen or level
        levels[level] = {
            "usable": zygote is not None,
            "reason": reason,
            "seconds": round(time.monotonic() - started, 3),
            "escapes": list(flight.escapes) if flight else [],
            "denied": flight.denied if flight else {},
        }
    return {"level": chosen, **features(), "levels": levels}


def features() -> dict[str, object]:
    """Kernel and programs that isolation rests on."""
    return {
        "platform": sys.platform,
        "kernel": platform.release(),
        "machine": platform.machine(),
        "root": os.geteuid() == 0,
        "landlock_abi": landlock.abi(),
        "seccomp": seccomp.machine() is not None,
        "bubblewrap": bubblewrap.version(),
    }
