"""A canary for a level of isolation: it really tries to get out, and a level that lets it is not used.

Looking for a program or a kernel version says what ought to hold. Trying says what holds, on this machine, for this
user. Every attempt is harmless where it succeeds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import secrets
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox.launcher import Zygote

ARCH, CLASSES = "resnet20", 10
_BUBBLEWRAP_DENIES = frozenset(
    {
        *("read_secret", "list_folder", "read_project", "read_passwords", "read_parent_environ", "read_zygote_memory"),
        *("write_file", "change_file", "empty_file", "change_mode", "change_times", "delete_file", "rename_file"),
        *("link_file", "make_folder", "make_pipe", "write_anywhere", "use_tcp", "use_unix_socket"),
        *("use_abstract_socket", "trace_zygote", "mount", "become_root", "be_root"),
        *("changed a file", "planted a file", "reached a listener: tcp", "reached a listener: udp"),
        *("reached a listener: abstract socket", "reached a listener: unix socket"),
    }
)
"""What bubblewrap alone has to prevent; within it, a process without the filter may still fork and open sockets."""


@dataclass(frozen=True)
class Canary:
    """What a canary found out about one level."""

    level: str
    escapes: tuple[str, ...]
    """Attempts that succeeded. A level with any is worthless."""
    denied: dict[str, str] = field(default_factory=dict)
    """Attempts that failed, and how."""
    failure: str | None = None
    """Why an honest initialisation did not work there; None when it did."""

    @property
    def passed(self) -> bool:
        """Nothing got out, everything was tried, and honest code works."""
        return not self.escapes and bool(self.denied) and self.failure is None

    def summary(self) -> str:
        """One line for people."""
        if self.escapes:
            return f"the canary got out: {', '.join(self.escapes)}"
        return self.failure or f"the canary tried {len(self.denied)} ways out and found none"


@dataclass(frozen=True)
class _Bait:
    """Things outside that a canary goes for, and that are looked at afterwards."""

    secret: Path
    token: str
    planted: Path
    tcp: socket.socket
    udp: socket.socket
    abstract: socket.socket
    named: socket.socket
    named_path: Path

    def facts(self) -> dict[str, Any]:
        environ = Path("/proc/self/environ").read_bytes()
        return {
            "secret": str(self.secret),
            "token": self.token,
            "planted": str(self.planted),
            "source": str(Path(__file__).resolve()),
            "parent": os.getpid(),
            "environ": hashlib.sha256(environ).hexdigest() if environ else "",
            "tcp": self.tcp.getsockname()[1],
            "udp": self.udp.getsockname()[1],
            "abstract": self.abstract.getsockname().decode()[1:],
            "named": str(self.named_path),
        }

    def traces(self) -> list[str]:
        """What was left outside, whatever the canary itself says."""
        found = []
        if set(self.secret.parent.iterdir()) - {self.secret, self.named_path}:
            found.append("planted a file")
        if (
            not self.secret.is_file()
            or self.secret.read_text() != self.token
            or self.secret.stat().st_mode & 0o777 != 0o644
        ):
            found.append("changed a file")
        for name, listener in (("tcp", self.tcp), ("abstract socket", self.abstract), ("unix socket", self.named)):
            with contextlib.suppress(BlockingIOError):
                listener.accept()[0].close()
                found.append(f"reached a listener: {name}")
        with contextlib.suppress(BlockingIOError):
            self.udp.recv(64)
            found.append("reached a listener: udp")
        return found


@contextlib.contextmanager
def _bait() -> Iterator[_Bait]:
    token = secrets.token_hex(16)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="initsearch-canary-")))
        folder.chmod(0o777)  # nothing but the isolation is to stand in the way
        (folder / "secret").write_text(token)
        (folder / "secret").chmod(0o644)
        named = folder / "socket"
        bait = _Bait(
            secret=folder / "secret",
            token=token,
            planted=folder / "planted",
            tcp=stack.enter_context(_listener(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0))),
            udp=stack.enter_context(_listener(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0))),
            abstract=stack.enter_context(_listener(socket.AF_UNIX, socket.SOCK_STREAM, f"\0initsearch-{token}")),
            named=stack.enter_context(_listener(socket.AF_UNIX, socket.SOCK_STREAM, str(named))),
            named_path=named,
        )
        named.chmod(0o777)
        yield bait


def _listener(family: int, kind: int, address: tuple[str, int] | str) -> socket.socket:
    listener = socket.socket(family, kind)
    listener.setblocking(False)
    listener.bind(address)
    if kind == socket.SOCK_STREAM:
        listener.listen()
    return listener


def fly(zygote: Zygote) -> Canary:
    """Let a canary loose in a child of `zygote`. Raises IsolationCrashed when the zygote does not behave.

    Bubblewrap's walls stand behind those of the system call filter, which a canary never gets past: so a second one
    flies there without the filter, or a broken bubblewrap would pass for a working one.
    """
    flight = _fly(zygote, bare=False)
    if zygote.level != "bubblewrap":
        return flight
    second = _fly(zygote, bare=True)
    behind = [f"{name} (past bubblewrap)" for name in second.escapes if name in _BUBBLEWRAP_DENIES]
    return dataclasses.replace(flight, escapes=(*flight.escapes, *behind), failure=flight.failure or second.failure)


def _fly(zygote: Zygote, *, bare: bool) -> Canary:
    layout = zygote.layout(ARCH, CLASSES)
    size = 4 * sum(math.prod(shape) for _, shape in layout)
    attempts = Path(__file__).with_name("escapes.py").read_text(encoding="utf-8")
    with _bait() as bait:
        outcome = zygote.run(
            f"{attempts}\nFACTS.update({bait.facts()!r})\n",
            arch=ARCH,
            num_classes=CLASSES,
            seed=0,
            wall_seconds=60,
            cpu_seconds=30,
            memory_bytes=2 << 30,
            log_bytes=1 << 16,
            payload_bytes=size,
            bare=bare,
        )
        traces = bait.traces()
    results: dict[str, str] = {}
    for line in outcome.log.splitlines():
        with contextlib.suppress(ValueError):
            name, result = json.loads(line)
            results[name] = result
    # An attempt that was begun and never reported has replaced or ended the process: that counts as a way out.
    escapes = [name for name, result in results.items() if not result.startswith("denied")]
    head = outcome.head or {"kind": "exception", "message": f"the worker ended (status {outcome.exit_code})"}
    failure = None
    if head.get("kind") is not None or len(outcome.payload) != size or "end" not in results:
        failure = f"an honest initialisation fails there: {head.get('message')}"
    denied = {name: result for name, result in results.items() if result.startswith("denied") and name != "end"}
    return Canary(zygote.level, tuple(dict.fromkeys([*escapes, *traces])), denied, failure)
