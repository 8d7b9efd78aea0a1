"""What the evaluator, the trusted process and the zygote send each other: jobs, limits of memory and time, outcomes.

The trusted process and the zygote exchange lines of JSON, and file descriptors, on a socket. A candidate never has that
socket.
"""

from __future__ import annotations

import dataclasses
import json
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.networks import Network

MAX_MESSAGE = 1 << 20
MAX_FDS = 4


@dataclass(frozen=True)
class Job:
    """One initialisation: `region` sets the parameters of a new `arch` with `num_classes` outputs, seeded by `seed`."""

    region: str
    arch: str
    num_classes: int
    seed: int
    out: Path | None = None
    """The safetensors file to write the parameters to; None keeps them in memory."""
    network: Network | None = None
    """A user's network, of which `arch` is only the name. Its parameters may be left as its constructors made them."""


@dataclass(frozen=True)
class Limits:
    """The resources that one candidate may use. Times are in seconds, sizes in bytes."""

    wall_seconds: float = 30.0
    cpu_seconds: float = 15.0
    memory_bytes: int = 2 << 30
    """Memory beyond what the worker uses before the candidate runs (torch and the network)."""
    output_bytes: int = 64 << 10
    """How much of the candidate's output is kept."""


@dataclass(frozen=True)
class Configuration:
    """The settings that a zygote reads from a pipe when it starts."""

    control: int
    """The descriptor of the zygote's end of the socket."""
    parent: int | None
    """A process descriptor of the trusted process; None on platforms without them."""
    level: str
    landlock: bool
    apart: bool
    """Whether this zygote's addresses and process numbers must differ from those of other zygotes."""
    readable: tuple[str, ...]
    path: tuple[str, ...]
    listable: tuple[str, ...] = ()
    """Folders whose names, but not whose files, a candidate may read: imports look for packages there."""
    preload: tuple[str, ...] = ()
    """Installed packages that the zygote imports, so that no candidate needs time for it."""

    def encode(self) -> bytes:
        """Return the settings as JSON."""
        return json.dumps(dataclasses.asdict(self)).encode()


@dataclass(frozen=True)
class Request:
    """A request of the trusted process to a zygote: the layout of a network, or with `limits` a candidate's run.

    The candidate's region and seed go to the forked child through a separate pipe.
    """

    arch: str
    num_classes: int
    limits: Limits | None = None
    bare: bool = False
    """Run without Landlock and the system call filter. Only a canary does, to test bubblewrap alone."""
    foreign: bool = False
    """The child builds a user's network itself, after it was confined. Its text comes through the child's pipe."""

    @classmethod
    def decode(cls, message: dict[str, Any]) -> Request:
        """Read a request that was sent as `dataclasses.asdict`."""
        limits = message["limits"]
        return cls(**{**message, "limits": None if limits is None else Limits(**limits)})


class WireClosed(ConnectionError):
    """The other side has closed the connection, or sent no valid message."""


def send(sock: socket.socket, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
    """Send `message`, and `fds` with its first byte. Raises WireClosed if the connection is closed."""
    data = json.dumps(message).encode() + b"\n"
    try:
        sent = socket.send_fds(sock, [data], fds) if fds else 0
        sock.sendall(data[sent:])
    except OSError as error:
        raise WireClosed(f"cannot send to the other side: {error}") from error


def receive(sock: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Wait for one message; return it with its descriptors, which the caller closes.

    Raises WireClosed at the end of the stream, TimeoutError if `sock` has a timeout and it passes.
    """
    data, fds = b"", []
    while not data.endswith(b"\n"):
        try:
            chunk, more, _flags, _address = socket.recv_fds(sock, 1 << 16, MAX_FDS)
        except TimeoutError:
            raise
        except OSError as error:
            raise WireClosed(f"cannot read from the other side: {error}") from error
        fds += more
        data += chunk
        if not chunk or len(data) > MAX_MESSAGE:
            raise WireClosed("the other side closed the connection")
    message: dict[str, Any] = json.loads(data)
    return message, fds
