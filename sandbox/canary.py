"""The self-test of an isolation level: a canary tries to escape, and a level that lets it escape is not used.

The presence of a program or a kernel version only suggests that isolation works. The canary tests that it works on
this machine, for this user. An attempt that succeeds does no harm.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import secrets
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox.launcher import Zygote
from sandbox.payload import size_of
from sandbox.wire import Job, Limits

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
"""What bubblewrap alone must prevent. Inside it, a process without the filter may still fork and open sockets."""


@dataclass(frozen=True)
class Canary:
    """The result of the self-test of one level."""

    level: str
    escapes: tuple[str, ...]
    """Attempts that succeeded. A level with any escape is not used."""
    denied: dict[str, str] = field(default_factory=dict)
    """Attempts that failed, each with the error that stopped it."""
    failure: str | None = None
    """Why an honest initialisation failed at this level; None if it worked."""

    @property
    def passed(self) -> bool:
        """Whether no attempt succeeded, attempts were reported, and honest code works."""
        return not self.escapes and bool(self.denied) and self.failure is None

    def summary(self) -> str:
        """Return the result as one line of text."""
        if self.escapes:
            return f"the canary got out: {', '.join(self.escapes)}"
        return self.failure or f"the canary tried {len(self.denied)} ways out and found none"


@dataclass(frozen=True)
class _Bait:
    """Files and listeners outside the isolation. The canary tries to reach them, and they are checked afterwards."""

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
        """Return the changes found outside. They count whatever the canary itself reports."""
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
        folder.chmod(0o777)  # only the isolation may stop the canary, not file permissions
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


def run(zygote: Zygote) -> Canary:
    """Run the canary in a child of `zygote`. Raises IsolationCrashed if the zygote fails.

    At level bubblewrap a second canary runs without the system call filter. The filter stops the first one before it
    reaches bubblewrap, so one run alone could not tell a broken bubblewrap from a working one.
    """
    result = _run(zygote, bare=False)
    if zygote.level != "bubblewrap":
        return result
    second = _run(zygote, bare=True)
    behind = [f"{name} (past bubblewrap)" for name in second.escapes if name in _BUBBLEWRAP_DENIES]
    return dataclasses.replace(result, escapes=(*result.escapes, *behind), failure=result.failure or second.failure)


def _run(zygote: Zygote, *, bare: bool) -> Canary:
    size = size_of(zygote.layout(ARCH, CLASSES))
    attempts = Path(__file__).with_name("escapes.py").read_text(encoding="utf-8")
    with _bait() as bait:
        job = Job(f"{attempts}\nFACTS.update({bait.facts()!r})\n", ARCH, CLASSES, seed=0)
        outcome = zygote.run(job, Limits(wall_seconds=60, cpu_seconds=30), size, bare=bare)
        traces = bait.traces()
    results: dict[str, str] = {}
    for line in outcome.log.splitlines():
        with contextlib.suppress(ValueError):
            name, result = json.loads(line)
            results[name] = result
    # An attempt without a reported result has replaced or ended the process, which counts as an escape.
    escapes = [name for name, result in results.items() if not result.startswith("denied")]
    head = outcome.head or {"kind": "exception", "message": f"the worker ended (status {outcome.exit_code})"}
    failure = None
    if head.get("kind") is not None or len(outcome.payload) != size or "end" not in results:
        failure = f"an honest initialisation fails there: {head.get('message')}"
    denied = {name: result for name, result in results.items() if result.startswith("denied") and name != "end"}
    return Canary(zygote.level, tuple(dict.fromkeys([*escapes, *traces])), denied, failure)
