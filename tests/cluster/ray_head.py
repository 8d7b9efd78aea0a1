"""A head of Ray as users start it, with `ray start --head`, beside whatever other Ray runs on this machine."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.cluster.conftest import ROOT

_PATIENCE = 180.0
"""Seconds for a head to say that it runs: on an idle machine it takes four."""
_STARTED = re.compile(r"ray start --address='([^']+)'")


@contextlib.contextmanager
def ray_head(program: str, home: Path, *, cpus: int = 1, variables: Mapping[str, str] = {}) -> Iterator[str]:
    """Yields HOST:PORT of a head with its own home folder and folder of sessions. All its processes end with the block.

    `program`: the `ray` of an environment.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    sessions = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # paths of sockets have 107 characters at most
    own = {"HOME": str(home), "RAY_TMPDIR": sessions, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": ROOT, **variables}
    head: subprocess.Popen[bytes] | None = None
    try:
        for attempt in (1, 2, 3):
            out = home / f"head{attempt}.out"
            with out.open("wb") as file:
                words = ["start", "--head", f"--port={free_port()}", f"--num-cpus={cpus}", "--block"]
                words += ["--include-dashboard=false", f"--object-store-memory={100 * 2**20}"]
                head = subprocess.Popen(
                    [program, *words],
                    env={**kept, **own},
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    start_new_session=True,
                )
            address = _started(head, out)
            if address is not None:
                break
            _stop(head)
            assert attempt < 3, out.read_text(errors="replace")
        assert address is not None
        yield address
    finally:
        if head is not None:
            _stop(head)
        shutil.rmtree(sessions, ignore_errors=True)


def _started(head: subprocess.Popen[bytes], out: Path) -> str | None:
    """The address that the head prints when it is ready; None when it ended, or did not get ready."""
    deadline = time.monotonic() + _PATIENCE
    while head.poll() is None and time.monotonic() < deadline:
        text = out.read_text(errors="replace")
        if "Ray runtime started" in text and (found := _STARTED.search(text)):
            return found[1]
        time.sleep(0.2)
    return None


def _stop(head: subprocess.Popen[bytes]) -> None:
    """End the head's group of processes, and wait until none is left of it."""
    for number, seconds in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 30.0)):
        deadline = time.monotonic() + seconds
        with contextlib.suppress(ProcessLookupError):
            os.killpg(head.pid, number)
            while time.monotonic() < deadline:
                head.poll()
                os.killpg(head.pid, 0)
                time.sleep(0.1)
    head.wait(timeout=30)


def free_port() -> int:
    """A port that nothing listens at now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
