"""Start a zygote at a level of isolation, and ask it to run candidates."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import Any

from sandbox import bubblewrap, runtime, wire

STARTUP_SECONDS = 120.0
GRACE_SECONDS = 10.0
"""How much later than the candidate's own limit an answer of the zygote may come before it counts as broken."""
_CHUNK = 1 << 20
_HEAD_BYTES = 1 << 16
_F_SETPIPE_SZ = 1031
# Settings of numerical libraries that a worker shares with its parent; everything else of the environment stays out.
_PASSED_ON = (
    *("LD_LIBRARY_PATH", "ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR", "ONEDNN_MAX_CPU_ISA"),
    *("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"),
)
_BOOT = (
    "import sys, json; config = json.loads(sys.argv[1]); sys.path[:] = config['path']; "
    "from sandbox.zygote import main; main(config)"
)


class IsolationCrashed(RuntimeError):
    """Our own machinery failed (the zygote died, a pipe broke): never the candidate's fault. Trying again may help."""


@dataclass(frozen=True)
class Outcome:
    """What came back from one child. `head` and `payload` are the candidate's claims; the rest is ours."""

    head: dict[str, Any] | None
    payload: bytes
    log: str
    exit_code: int
    """Of the child; negative: the signal that ended it."""
    timed_out: bool
    cpu_seconds: float
    max_rss_bytes: int


def environment() -> dict[str, str]:
    """The worker's whole environment: nothing of the caller's but a few settings of numerical libraries."""
    fixed = {"LANG": "C.UTF-8", "HOME": "/nonexistent", "PYTHONHASHSEED": "0", "CUDA_VISIBLE_DEVICES": ""}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {**passed, **fixed, **threads}


class Zygote:
    """One running zygote. Not thread-safe. Raises IsolationCrashed whenever it does not behave.

    `landlock` False goes without Landlock within bubblewrap, as a kernel that has none would.
    """

    def __init__(self, level: str, *, landlock: bool = True) -> None:
        self.level = level
        self._layouts: dict[tuple[str, int], list[tuple[str, tuple[int, ...]]]] = {}
        found = runtime.find()
        self._control, theirs = socket.socketpair()
        parent = os.pidfd_open(os.getpid()) if hasattr(os, "pidfd_open") else None
        config = {
            "control": theirs.fileno(),
            "parent": parent,
            "level": level,
            "landlock": landlock and level != "none",
            "readable": [str(path) for path in found.readable()],
            "path": [str(path) for path in found.path],
        }
        python = [str(found.python), "-P", "-s", "-S", "-B", "-u", "-c", _BOOT, json.dumps(config)]
        command = bubblewrap.command(found, python) if level == "bubblewrap" else python
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the zygote
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                env=environment(),
                cwd="/",
                start_new_session=True,
                pass_fds=[theirs.fileno()] + ([] if parent is None else [parent]),
            )
        except OSError as error:
            self._control.close()
            self._stderr.close()
            raise IsolationCrashed(f"cannot start {command[0]}: {error}") from error
        finally:
            theirs.close()
            if parent is not None:
                os.close(parent)
        self._control.settimeout(STARTUP_SECONDS)
        try:
            self.hello, _ = wire.receive(self._control)
        except (wire.WireClosed, TimeoutError) as error:
            raise self._crashed(f"the zygote did not start: {error}") from error

    @property
    def pid(self) -> int:
        """Process id of what was started: the zygote, or bubblewrap with the zygote inside."""
        return self._process.pid

    def layout(self, arch: str, num_classes: int) -> list[tuple[str, tuple[int, ...]]]:
        """Name and shape of every parameter. Raises ValueError for an unknown architecture."""
        key = (arch, num_classes)
        if key not in self._layouts:
            self._request({"op": "layout", "arch": arch, "num_classes": num_classes})
            self._control.settimeout(STARTUP_SECONDS)
            answer = self._receive()
            if "error" in answer:
                raise ValueError(answer["error"])
            self._layouts[key] = [(name, tuple(shape)) for name, shape in answer["layout"]]
        return self._layouts[key]

    def run(
        self,
        region: str,
        *,
        arch: str,
        num_classes: int,
        seed: int,
        wall_seconds: float,
        cpu_seconds: float,
        memory_bytes: int,
        log_bytes: int,
        payload_bytes: int,
    ) -> Outcome:
        """Run one candidate in a fresh child and collect at most `payload_bytes` and `log_bytes` of what it says."""
        job, result, log = _pipe(), _pipe(), _pipe()
        request = {
            "op": "run",
            "arch": arch,
            "num_classes": num_classes,
            "wall_seconds": wall_seconds,
            "cpu_seconds": cpu_seconds,
            "memory_bytes": memory_bytes,
        }
        sinks = {result.read: _Sink(_HEAD_BYTES + payload_bytes), log.read: _Sink(log_bytes)}
        try:
            self._request(request, (job.read, result.write, log.write))
            for fd in (job.read, result.write, log.write):
                os.close(fd)
            with os.fdopen(os.dup(job.write), "wb") as stream:
                os.close(job.write)
                job = _Pipe(job.read, -1)
                with contextlib.suppress(BrokenPipeError):
                    stream.write(json.dumps({"region": region, "seed": seed}).encode())
                    stream.flush()
            answer = self._collect(sinks, time.monotonic() + wall_seconds + GRACE_SECONDS)
        except BaseException:
            self.close()  # whatever interrupted this, the answer would come too late for the next request
            raise
        finally:
            os.close(result.read)
            os.close(log.read)
        head, payload = _split(bytes(sinks[result.read].data))
        return Outcome(
            head=head,
            payload=payload,
            log=sinks[log.read].text(),
            exit_code=answer["exit"],
            timed_out=answer["timed_out"],
            cpu_seconds=answer["cpu_seconds"],
            max_rss_bytes=answer["max_rss_bytes"],
        )

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
                    for sink_fd, sink in sinks.items():  # the child is dead: what it wrote is in the pipes
                        while sink.read(sink_fd):
                            pass
                    if "broken" in answer:
                        raise self._crashed(answer["broken"])
                    if "error" in answer:
                        raise ValueError(answer["error"])
                    return answer
                if not sinks[fd].read(fd):
                    poller.unregister(fd)

    def _request(self, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        try:
            wire.send(self._control, message, fds)
        except wire.WireClosed as error:
            raise self._crashed(str(error)) from error

    def _receive(self) -> dict[str, Any]:
        try:
            return wire.receive(self._control)[0]
        except (wire.WireClosed, TimeoutError) as error:
            raise self._crashed(f"the zygote is gone: {error}") from error

    def _crashed(self, what: str) -> IsolationCrashed:
        self.close()
        self._last_words = self._last_words.strip()
        return IsolationCrashed(f"{what}\n{self._last_words}" if self._last_words else what)

    _last_words = ""

    def close(self) -> None:
        """End the zygote and everything under it. May be called twice."""
        self._control.close()
        if not self._stderr.closed:
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._stderr.seek(0)
            self._last_words = self._stderr.read()[-4000:].decode(errors="replace")
            self._stderr.close()


@dataclass(frozen=True)
class _Pipe:
    read: int
    write: int


def _pipe() -> _Pipe:
    pipe = _Pipe(*os.pipe())
    os.set_blocking(pipe.read, False)
    if sys.platform == "linux":
        import fcntl

        with contextlib.suppress(OSError):  # larger than an unprivileged user may have: the default will do
            fcntl.fcntl(pipe.read, _F_SETPIPE_SZ, _CHUNK)
    return pipe


class _Sink:
    """Keeps the first `limit` bytes of a stream and throws the rest away."""

    def __init__(self, limit: int) -> None:
        self.limit, self.data, self.dropped = limit, bytearray(), 0

    def read(self, fd: int) -> bool:
        """Read what is there now; False when there is nothing, or nothing will come."""
        try:
            chunk = os.read(fd, _CHUNK)
        except BlockingIOError:
            return False
        keep = chunk[: self.limit - len(self.data)]
        self.data += keep
        self.dropped += len(chunk) - len(keep)
        return bool(chunk)

    def text(self) -> str:
        """As text without control characters: a log is shown on terminals."""
        text = printable(self.data.decode(errors="replace"))
        return f"{text}\n[{self.dropped} more bytes not kept]" if self.dropped else text


def printable(text: str) -> str:
    """`text` with every control character but newline and tab replaced, so that it cannot steer a terminal."""
    return "".join(char if char.isprintable() or char in "\n\t" else "�" for char in text)


def _split(data: bytes) -> tuple[dict[str, Any] | None, bytes]:
    """Take the frame of a child apart: 4 bytes of length, JSON, payload. Anything else is no frame."""
    length = int.from_bytes(data[:4], "big")
    if len(data) < 4 or length > _HEAD_BYTES - 4 or len(data) < 4 + length:
        return None, b""
    try:
        head = json.loads(data[4 : 4 + length])
    except (ValueError, RecursionError):
        return None, b""
    return (head, data[4 + length :]) if isinstance(head, dict) else (None, b"")
