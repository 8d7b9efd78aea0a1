"""Run `initialize_weights` of a hostile author: in another process, without data, files, network or time to spare.

    with Isolation() as isolation:
        result = isolation.initialise(region, "resnet56", 100, seed=0, out=Path("weights.safetensors"))

What leaves the isolated process is a claim and a number of bytes that is known beforehand. Names, shapes and dtypes are
ours, finiteness is checked here, and the file is written here. Importing this module imports neither torch nor numpy.
"""

from __future__ import annotations

import hashlib
import math
import os
import platform
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from sandbox import bubblewrap, canary, landlock, seccomp
from sandbox.canary import Canary
from sandbox.launcher import IsolationCrashed, Outcome, Zygote, printable

__all__ = ["Initialised", "Isolation", "IsolationCrashed", "IsolationUnavailable", "Level", "Limits", "probe"]

Level = Literal["auto", "bubblewrap", "landlock", "none"]
LEVELS = ("bubblewrap", "landlock")
"""Strongest first."""
MAX_REGION_BYTES = 16_384
_POISON = 0x7FC0BAD1  # sandbox.worker.POISON; repeated here because importing that module imports torch
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
    """A safetensors file with exactly the model's parameters (float32), or None."""
    seconds: float
    level: str
    log: str
    """What the candidate printed: untrusted, without control characters."""
    line: int | None = None
    """The line of the region (from 1) where it went wrong, as far as the candidate's process can be believed."""
    fingerprint: str | None = None
    """SHA-256 over names, shapes and values, hexadecimal: equal weights have equal fingerprints."""
    names: tuple[str, ...] = ()
    """The parameters in the model's order; the file has an order of its own."""


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
        """How long starting it, the canary, and candidates have taken so far."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the isolated processes. May be called twice."""
        with self._lock:
            self._closed = True
            if self._zygote is not None:
                self._zygote.close()
                self._zygote = None

    def initialise(self, region: str, arch: str, num_classes: int, seed: int, out: Path) -> Initialised:
        """Run the region's `initialize_weights` on a fresh `arch` and write the parameters to `out` (safetensors).

        The candidate's failures are a result with `ok` False. Raises IsolationCrashed when our own machinery failed
        (the next call starts it anew), ValueError for an unknown architecture, OSError when `out` cannot be written.
        """
        started = time.monotonic()
        with self._lock:
            if self._closed:
                raise ValueError("this Isolation is closed")
            if len(region.encode(errors="replace")) > MAX_REGION_BYTES:
                message = f"the region has more than {MAX_REGION_BYTES:,} bytes"
                return self._failed("too_large", message, started)
            if self._zygote is None or self._zygote.pid is None:
                self._zygote = Zygote(self.level)
            try:
                return self._initialise(self._zygote, region, arch, num_classes, seed, out, started)
            except IsolationCrashed:
                self._zygote.close()
                self._zygote = None
                raise
            finally:
                self.seconds += time.monotonic() - started

    def _initialise(
        self, zygote: Zygote, region: str, arch: str, num_classes: int, seed: int, out: Path, started: float
    ) -> Initialised:
        layout = zygote.layout(arch, num_classes)
        size = 4 * sum(math.prod(shape) for _, shape in layout)
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
        failure = _failure(outcome, size, self.limits) or _bad_values(outcome.payload, layout)
        if failure is not None:
            return self._failed(failure[0], failure[1], started, outcome.log, failure[2])
        _write(out, outcome.payload, layout)
        return Initialised(
            ok=True,
            kind=None,
            message="",
            weights=out,
            seconds=time.monotonic() - started,
            level=self.level,
            log=outcome.log,
            fingerprint=_fingerprint(outcome.payload, layout),
            names=tuple(name for name, _ in layout),
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


def _bad_values(payload: memoryview, layout: list[tuple[str, tuple[int, ...]]]) -> _Failure | None:
    import numpy as np

    values = np.frombuffer(payload, dtype="<f4")
    if np.isfinite(values).all():
        return None
    unset, broken, start = [], [], 0
    for name, shape in layout:
        part = values[start : start + math.prod(shape)]
        start += part.size
        if (part.view("<u4") == _POISON).any():
            unset.append(name)
        elif not np.isfinite(part).all():
            broken.append(name)
    if unset:
        hint = "every parameter starts as NaN: set it, do not scale it"
        return "unset_parameter", f"not or not wholly set: {_listed(unset)} ({hint})", None
    return "not_finite", f"NaN or infinite values in {_listed(broken)}", None


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _fingerprint(payload: memoryview, layout: list[tuple[str, tuple[int, ...]]]) -> str:
    digest = hashlib.sha256(repr(layout).encode())
    digest.update(payload)
    return digest.hexdigest()


def _write(out: Path, payload: memoryview, layout: list[tuple[str, tuple[int, ...]]]) -> None:
    """Write a safetensors file beside `out` and put it in place in one step; a link at `out` is not followed."""
    import numpy as np
    from safetensors.numpy import save

    values, start, tensors = np.frombuffer(payload, dtype="<f4"), 0, {}
    for name, shape in layout:
        size = math.prod(shape)
        tensors[name] = values[start : start + size].reshape(shape)
        start += size
    handle, temporary = tempfile.mkstemp(prefix=f".{out.name}.", dir=out.parent)
    try:
        with os.fdopen(handle, "wb") as file:  # safetensors' own writing raises no OSError on a full disk
            file.write(save(tensors))
        Path(temporary).replace(out)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


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
