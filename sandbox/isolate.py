"""Run an untrusted `initialize_weights` in another process, without data, files or network and with limited time.

    with Isolation() as isolation:
        result = isolation.initialise(Job(region, "resnet56", 100, seed=0, out=Path("weights.safetensors")))

The isolated process returns a status that is not trusted and a number of bytes that is known beforehand. This process
supplies names, shapes and dtypes, checks that all values are finite, and writes the file. Importing this module imports
neither torch nor numpy.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from sandbox.launcher import IsolationCrashed, Outcome, Zygote, printable
from sandbox.levels import IsolationUnavailable, Level, choose, features, obstacle_to, probe, start_beside
from sandbox.parsing import MAX_REGION_BYTES
from sandbox.payload import Payload, size_of
from sandbox.wire import Job, Limits

__all__ = [
    "Initialised",
    "Isolation",
    "IsolationCrashed",
    "IsolationUnavailable",
    "Job",
    "Level",
    "Limits",
    "obstacle_to",
    "probe",
]

DEFAULT_LIMITS = Limits()
_CLAIMS = frozenset({"syntax", "signature", "isolation", "exception", "memory", "shape", "network"})


@dataclass(frozen=True)
class Initialised:
    """The result of running one candidate."""

    ok: bool
    kind: str | None
    """None when `ok`, else "syntax", "signature", "isolation", "exception", "timeout", "memory", "not_finite", "shape",
    "unset_parameter" or "too_large"; in an evaluation also "nondeterministic"."""
    message: str
    weights: Path | None
    """A safetensors file with exactly the model's parameters (float32); None if none was requested."""
    seconds: float
    level: str
    log: str
    """The candidate's output: untrusted, without control characters."""
    line: int | None = None
    """The line of the region (from 1) that failed, as the untrusted process reports it."""
    payload: Payload | None = None
    """The parameters; None if a file was requested."""
    sha256: str | None = None
    """SHA-256 of the parameters if `ok`; see `Payload.sha256`."""
    constructed: str | None = None
    """Of a user's network: the SHA-256 of what its constructors made in isolation, as the untrusted process says."""


class _Interpreter:
    """Starts a zygote on demand, and again after a crash. One thread at a time uses it."""

    def __init__(self, start: Callable[[], Zygote], zygote: Zygote | None = None) -> None:
        self._lock = threading.Lock()
        self._start = start
        self.zygote = zygote
        self._closed = False

    @contextlib.contextmanager
    def acquire(self) -> Iterator[Zygote]:
        """Yield the running zygote. Raises IsolationCrashed, and ValueError after `close`."""
        with self._lock:
            if self._closed:
                raise ValueError("this Isolation is closed")
            zygote = self._started()
            if self._closed:  # `close` was called during the start, when there was no zygote to interrupt
                raise IsolationCrashed("the isolation was closed")
            yield zygote

    def close(self) -> None:
        """Interrupt the thread that uses the zygote, and end the zygote."""
        self._closed = True
        if (running := self.zygote) is not None:
            running.interrupt()
        with self._lock:
            if self.zygote is not None:
                self.zygote.close()
                self.zygote = None

    def _started(self) -> Zygote:
        if self.zygote is None or self.zygote.pid is None:
            self.zygote = self._start()
        return self.zygote


class Isolation:
    """Runs candidates. The start takes seconds; each candidate takes well under a tenth of a second.

    `level` "auto" chooses the strongest level that passes the canary; "none" is for users who passed
    --allow-unsandboxed. Raises IsolationUnavailable. Calls from several threads wait for each other.
    `at_once` starts the interpreter of `repeat` too, beside the first one.
    """

    def __init__(self, *, level: Level = "auto", limits: Limits = DEFAULT_LIMITS, at_once: bool = False) -> None:
        started = time.monotonic()
        self.limits = limits
        second = start_beside(level) if at_once else None
        try:
            zygote, tested, rejected = choose(level)
        except BaseException:
            if second is not None:
                second.close()
            raise
        self.level: str = zygote.level
        if second is not None and second.level != self.level:
            second.close()
            second = None
        self._first = _Interpreter(lambda: Zygote(self.level), zygote)
        self._second = _Interpreter(lambda: Zygote(self.level, apart=True), second)
        self._with_packages: dict[tuple[str, ...], tuple[_Interpreter, _Interpreter]] = {}
        self._lock = threading.Lock()
        self.evidence: dict[str, object] = {
            "level": self.level,
            "canary": tested.summary() if tested else "not flown: isolation was switched off",
            "stronger_levels": rejected,
            "inside": zygote.hello,
            **features(),
        }
        """For run.json: the level, why stronger levels were rejected, kernel features, and the canary's result."""
        self.seconds = time.monotonic() - started
        """Seconds that the start took, the canary included."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the isolated processes. Calls in other threads then raise IsolationCrashed. May be called twice."""
        with self._lock:
            others = [one for pair in self._with_packages.values() for one in pair]
        for interpreter in (self._first, self._second, *others):
            interpreter.close()

    def initialise(self, job: Job) -> Initialised:
        """Run the region's `initialize_weights` on a fresh network and write the parameters to `job.out`.

        Without `out` the parameters stay in memory; writing and reading a file costs as much as the candidate itself.
        If the candidate fails, the result has `ok` False. Raises IsolationCrashed if our own processes failed (the next
        call starts them again), ValueError for an unknown architecture, OSError if `out` cannot be written.
        """
        return self._run(self._interpreters(job)[0], job)

    def repeat(self, job: Job) -> Initialised:
        """Do the same as `initialise` in a second interpreter with other string hashes, addresses and process ids.

        The parameters are equal unless the region depends on more than its arguments and the seed. The first call waits
        until the interpreter has started: about a second, unless `at_once` has started it.
        """
        return self._run(self._interpreters(job)[1], job)

    def _interpreters(self, job: Job) -> tuple[_Interpreter, _Interpreter]:
        """The two interpreters for a job. A user's network can need a pair that may read more packages."""
        packages = () if job.network is None else job.network.packages
        if not packages:
            return self._first, self._second
        with self._lock:
            if packages not in self._with_packages:
                self._with_packages[packages] = (
                    _Interpreter(lambda: Zygote(self.level, packages=packages)),
                    _Interpreter(lambda: Zygote(self.level, packages=packages, apart=True)),
                )
            return self._with_packages[packages]

    def _run(self, interpreter: _Interpreter, job: Job) -> Initialised:
        with interpreter.acquire() as zygote:
            started = time.monotonic()  # started here, so that waiting for another candidate does not count
            if len(job.region.encode(errors="replace")) > MAX_REGION_BYTES:
                return self._failed("too_large", f"the region has more than {MAX_REGION_BYTES:,} bytes", started)
            return self._initialise(zygote, job, started)

    def _initialise(self, zygote: Zygote, job: Job, started: float) -> Initialised:
        layout = list(job.network.layout) if job.network else zygote.layout(job.arch, job.num_classes)
        size = size_of(layout)
        derived = dataclasses.replace(job, seed=derived_seed(job.seed))
        outcome = zygote.run(derived, self.limits, size, origin=job.seed)
        failure = _failure(outcome, size, self.limits)
        if failure is not None:
            return self._failed(failure[0], failure[1], started, outcome.log, failure[2])
        payload = Payload(outcome.payload, layout)
        if (fault := payload.fault()) is not None:
            return self._failed(*fault, started, outcome.log)
        if job.out is not None:
            payload.write(job.out)
        return Initialised(
            ok=True,
            kind=None,
            message="",
            weights=job.out,
            seconds=time.monotonic() - started,
            level=self.level,
            log=outcome.log,
            payload=payload if job.out is None else None,
            sha256=payload.sha256(),
            constructed=_text(outcome.head, "constructed"),
        )

    def _failed(self, kind: str, message: str, started: float, log: str = "", line: int | None = None) -> Initialised:
        seconds = time.monotonic() - started
        return Initialised(False, kind, message, None, seconds, self.level, log, line)


def _text(head: dict[str, object] | None, name: str) -> str | None:
    value = (head or {}).get(name)
    return value if isinstance(value, str) else None


def derived_seed(seed: int) -> int:
    """Return the seed of a candidate's generators: 63 bits of SHA-256. The trainer uses other seeds."""
    return int.from_bytes(hashlib.sha256(f"initialise:{seed}".encode()).digest()[:8], "big") >> 1


_Failure = tuple[str, str, int | None]


def _failure(outcome: Outcome, size: int, limits: Limits) -> _Failure | None:
    """Return why the child failed: what ended it too early, or the failure that it reports."""
    if outcome.timed_out:
        return "timeout", f"initialize_weights took more than {limits.wall_seconds:g} s", None
    out_of_time = outcome.cpu_seconds >= limits.cpu_seconds  # a candidate that ignores SIGXCPU is killed
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
