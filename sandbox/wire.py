"""Messages between the trusted process and the zygote: one line of JSON, with file descriptors beside it.

Only these two speak this way. A candidate never holds the socket.
"""

from __future__ import annotations

import json
import socket
from typing import Any

MAX_MESSAGE = 1 << 20
MAX_FDS = 4


class WireClosed(ConnectionError):
    """The other side is gone, or what it sent is not a message."""


def send(sock: socket.socket, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
    """Send `message`, and `fds` with its first byte. Raises WireClosed when nobody listens any more."""
    data = json.dumps(message).encode() + b"\n"
    try:
        sent = socket.send_fds(sock, [data], fds) if fds else 0
        sock.sendall(data[sent:])
    except OSError as error:
        raise WireClosed(f"cannot send to the other side: {error}") from error


def receive(sock: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Wait for one message and return it with the descriptors it carried; the caller closes those.

    Raises WireClosed at the end of the stream and TimeoutError when `sock` has a timeout that passes.
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
