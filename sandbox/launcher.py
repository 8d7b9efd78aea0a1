"""Start a zygote at an isolation level and send it candidates to run."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import secrets
import select
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import Any, BinaryIO

from benchmark.networks import LIBRARIES
from sandbox import bubblewrap, runtime, wire
from sandbox.payload import Layout
from sandbox.wire import Configuration, Job, Limits, Request

STARTUP_SECONDS = 120.0
GRACE_SECONDS = 10.0
"""How long after the candidate's time limit the zygote may answer before it counts as broken."""
STOP_SECONDS = 5.0
_CHUNK = 1 << 20
_HEAD_BYTES = 1 << 16
_F_SETPIPE_SZ = 1031
# Settings of numerical libraries: the only environment variables that a worker inherits.
_PASSED_ON = (
    *("LD_LIBRARY_PATH", "ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR", "ONEDNN_MAX_CPU_ISA"),
    *("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"),
)
# The only argument is the number of the pipe that holds the configuration: any user can read a command line in ps.
# `setarch --addr-no-randomize` would give all zygotes the same addresses, so the process removes it and restarts.
_BOOT = """
import ctypes, json, os, sys
if sys.platform == "linux":
    libc = ctypes.CDLL(None)
    if (persona := libc.personality(0xFFFFFFFF)) & 0x0040000 and libc.personality(persona & ~0x0040000) != -1:
        os.execv(sys.executable, sys.orig_argv)
with open(int(sys.argv[1]), "rb") as pipe:
    config = json.load(pipe)
sys.path[:] = config["path"]
from sandbox.zygote import main
main(config)
"""


class IsolationCrashed(RuntimeError):
    """Our own processes failed (the zygote died, a pipe broke). The candidate is not at fault; a retry may help."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of one child. `head` and `payload` come from the candidate and are not trusted; the rest is ours."""

    head: dict[str, Any] | None
    payload: memoryview
    log: str
    exit_code: int
    """The child's exit status; a negative number is the signal that ended it."""
    timed_out: bool
    cpu_seconds: float


def environment(hash_seed: int = 0) -> dict[str, str]:
    """Return the worker's whole environment. It inherits only a few settings of numerical libraries."""
    fixed = {"LANG": "C.UTF-8", "HOME": "/nonexistent", "PYTHONHASHSEED": str(hash_seed), "CUDA_VISIBLE_DEVICES": ""}
    fixed["TORCHINDUCTOR_CACHE_DIR"] = "/"  # parts of torch require an existing folder here and never use it
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {**passed, **fixed, **threads}


class Zygote:
    """One running zygote. Not thread-safe. Raises IsolationCrashed whenever the zygote fails.

    `landlock` False leaves out Landlock inside bubblewrap, as on a kernel without it. `apart` True gives the zygote
    other string hashes, addresses and process ids than a zygote without it. The constructor then does not wait for the
    start: the first request does. `packages` are installed packages that a user's network imports.
    """

    def __init__(
        self, level: str, *, landlock: bool = True, apart: bool = False, packages: tuple[str, ...] = ()
    ) -> None:
        self.level = level
        self.hello: dict[str, Any] = {}
        """What the zygote reported about itself after its start; empty before."""
        self._errors = ""
        self._layouts: dict[tuple[str, int], Layout] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the zygote
        self._control, theirs = socket.socketpair()
        with contextlib.ExitStack() as stack:
            stack.push(self._close_on_error)
            stack.callback(theirs.close)
            found = runtime.find(packages)
            parent = os.pidfd_open(os.getpid()) if hasattr(os, "pidfd_open") else None
            if parent is not None:
                stack.callback(os.close, parent)
            config = Configuration(
                control=theirs.fileno(),
                parent=parent,
                level=level,
                landlock=landlock and level != "none",
                apart=apart,
                readable=tuple(str(path) for path in found.readable()),
                path=tuple(str(path) for path in found.path),
                listable=tuple(str(path) for path in found.folders) if packages else (),
                preload=tuple(name for name in packages if name in LIBRARIES),
            )
            inputs = [(_pipe(stack), config.encode())]
            command = [str(found.python), "-P", "-s", "-S", "-B", "-u", "-c", _BOOT, str(inputs[0][0][0].fileno())]
            if level == "bubblewrap":
                inputs.append((_pipe(stack), bubblewrap.options(found)))
                command = [bubblewrap.required(), "--args", str(inputs[1][0][0].fileno()), "--", *command]
            passed = [theirs.fileno(), *(out.fileno() for (out, _), _ in inputs)]
            try:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=self._stderr,
                    env=environment(secrets.randbelow(2**32 - 1) + 1 if apart else 0),
                    cwd="/",
                    start_new_session=True,
                    pass_fds=passed + ([] if parent is None else [parent]),
                )
            except OSError as error:
                raise IsolationCrashed(f"cannot start {command[0]}: {error}") from error
            theirs.close()
            for (out, into), data in inputs:
                out.close()
                # A process that ended early has written the reason to stderr.
                with contextlib.suppress(BrokenPipeError), into:
                    into.write(data)
            if not apart:
                self._await_start()

    def _await_start(self) -> None:
        if self.hello:
            return
        self._control.settimeout(STARTUP_SECONDS)
        try:
            self.hello, _ = wire.receive(self._control)
        except (wire.WireClosed, TimeoutError) as error:
            raise self._crashed(f"the zygote did not start: {error}") from error

    @property
    def pid(self) -> int | None:
        """Process id of the zygote, or of the bubblewrap that contains it; None if it has ended."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def layout(self, arch: str, num_classes: int) -> Layout:
        """Return name and shape of every parameter. Raises ValueError for an unknown architecture."""
        key = (arch, num_classes)
        if key not in self._layouts:
            with contextlib.ExitStack() as stack:
                stack.push(self._close_on_error)
                self._request(Request(arch, num_classes))
                self._control.settimeout(STARTUP_SECONDS)
                answer = self._receive()
            if "error" in answer:
                raise ValueError(answer["error"])
            self._layouts[key] = [(name, tuple(shape)) for name, shape in answer["layout"]]
        return self._layouts[key]

    def run(
        self, job: Job, limits: Limits, payload_bytes: int, *, bare: bool = False, origin: int | None = None
    ) -> Outcome:
        """Run one candidate in a fresh child and collect at most `payload_bytes` of parameters. Ignores `job.out`.

        The candidate's generators are seeded with `job.seed` (up to 63 bits), which the candidate can see. `Request`
        explains `bare`. `origin` is the seed of the evaluation, which also decides how a user's network is built.
        """
        result, log = _Sink(_HEAD_BYTES + payload_bytes), _Sink(limits.output_bytes)
        with contextlib.ExitStack() as stack:
            stack.push(self._close_on_error)
            (job_out, job_in), (result_out, result_in), (log_out, log_in) = (_pipe(stack) for _ in range(3))
            deadline = time.monotonic() + limits.wall_seconds + GRACE_SECONDS
            request = Request(job.arch, job.num_classes, limits, bare, foreign=job.network is not None)
            self._request(request, (job_out.fileno(), result_in.fileno(), log_in.fileno()))
            for stream in (job_out, result_in, log_in):
                stream.close()
            # The text bypasses the zygote. Otherwise later candidates would inherit it in the zygote's memory.
            with contextlib.suppress(BrokenPipeError), job_in:
                job_in.write(json.dumps(_message(job, origin)).encode())
            os.set_blocking(result_out.fileno(), False)
            os.set_blocking(log_out.fileno(), False)
            answer = self._collect({result_out.fileno(): result, log_out.fileno(): log}, deadline)
        head, payload = _split(result.data)
        return Outcome(
            head=head,
            payload=payload,
            log=log.text(),
            exit_code=answer["exit"],
            timed_out=answer["timed_out"],
            cpu_seconds=answer["cpu_seconds"],
        )

    def interrupt(self) -> None:
        """End the zygote from another thread. A request under way raises IsolationCrashed."""
        with contextlib.suppress(OSError):  # already closed
            self._control.shutdown(socket.SHUT_RDWR)

    def _close_on_error(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close after an interrupted request: its late answer would be taken for that of the next request."""
        if kind is not None:
            self.close()

    def _collect(self, sinks: dict[int, _Sink], deadline: float) -> dict[str, Any]:
        control = self._control.fileno()
        poller = select.poll()
        for fd in (*sinks, control):
            poller.register(fd, select.POLLIN)
        while True:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise self._crashed("the zygote did not report the end of a candidate in time")
            for fd, _ in poller.poll(remaining * 1000):
                if fd == control:
                    answer = self._receive()
                    for sink_fd, sink in sinks.items():  # the child has ended, so the pipes hold all its output
                        while sink.read(sink_fd):
                            pass
                    if "broken" in answer:
                        raise self._crashed(answer["broken"])
                    if "error" in answer:
                        raise ValueError(answer["error"])
                    return answer
                if not sinks[fd].read(fd):
                    poller.unregister(fd)

    def _request(self, request: Request, fds: tuple[int, ...] = ()) -> None:
        self._await_start()
        try:
            wire.send(self._control, dataclasses.asdict(request), fds)
        except wire.WireClosed as error:
            raise self._crashed(str(error)) from error

    def _receive(self) -> dict[str, Any]:
        try:
            return wire.receive(self._control)[0]
        except (wire.WireClosed, TimeoutError) as error:
            raise self._crashed(f"the zygote is gone: {error}") from error

    def _crashed(self, what: str) -> IsolationCrashed:
        self.close()
        return IsolationCrashed(f"{what}\n{self._errors}" if self._errors else what)

    def close(self) -> None:
        """End the zygote and all its children. May be called twice."""
        self._control.close()
        if self._stderr.closed:
            return
        if self._process is not None:
            try:
                self._process.wait(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._stderr.seek(0)
        self._errors = self._stderr.read()[-4000:].decode(errors="replace").strip()
        self._stderr.close()


def _message(job: Job, origin: int | None) -> dict[str, Any]:
    """What the child reads from its pipe."""
    message: dict[str, Any] = {"region": job.region, "seed": job.seed}
    if job.network is None:
        return message
    network = dataclasses.replace(job.network, layout=())  # the child finds it itself
    foreign = {"network": dataclasses.asdict(network), "arch": job.arch, "num_classes": job.num_classes}
    return {**message, **foreign, "origin": job.seed if origin is None else origin}


def _pipe(stack: contextlib.ExitStack) -> tuple[BinaryIO, BinaryIO]:
    """Return both ends of a new pipe. `stack` closes them at the latest."""
    out, into = os.pipe()
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # the size exceeds the user's limit; the default size also works
            fcntl.fcntl(into, _F_SETPIPE_SZ, _CHUNK)
    return stack.enter_context(os.fdopen(out, "rb", buffering=0)), stack.enter_context(os.fdopen(into, "wb"))


class _Sink:
    """Keeps the first `limit` bytes of a stream and discards the rest."""

    def __init__(self, limit: int) -> None:
        self._room, self._size, self.dropped = memoryview(bytearray(limit)), 0, 0

    @property
    def data(self) -> memoryview:
        return self._room[: self._size]

    def read(self, fd: int) -> bool:
        """Read the available bytes; return False if there are none or the stream has ended."""
        try:
            if room := self._room[self._size :]:
                count = os.readv(fd, [room])
                self._size += count
            else:
                count = len(os.read(fd, _CHUNK))
                self.dropped += count
        except BlockingIOError:
            return False
        return count > 0

    def text(self) -> str:
        """Return the bytes as text without control characters, since terminals show it."""
        text = printable(bytes(self.data).decode(errors="replace"))
        return f"{text}\n[{self.dropped} more bytes not kept]" if self.dropped else text


def printable(text: str) -> str:
    """Replace every control character except newline and tab, so that `text` cannot control a terminal."""
    return "".join(char if char.isprintable() or char in "\n\t" else "�" for char in text)


def _split(data: memoryview) -> tuple[dict[str, Any] | None, memoryview]:
    """Split a child's frame (4 bytes of length, JSON, payload) into JSON and payload; None for anything else."""
    end = 4 + int.from_bytes(data[:4], "big")
    if len(data) < 4 or end > min(len(data), _HEAD_BYTES):
        return None, memoryview(b"")
    try:
        head = json.loads(bytes(data[4:end]))
    except (ValueError, RecursionError):
        return None, memoryview(b"")
    return (head, data[end:]) if isinstance(head, dict) else (None, memoryview(b""))
