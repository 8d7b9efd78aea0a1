"""Opens the port, says the address, and serves until a signal."""

from __future__ import annotations

import os
import secrets
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable
from pathlib import Path

import uvicorn

from agent.errors import UsageError
from agent.web.access import Access
from agent.web.app import make_app
from agent.web.jobs import Jobs
from agent.web.shelf import Shelf
from agent.web.site import Site

_ANY = ("0.0.0.0", "::")


def serve(
    runs: Path, *, host: str, port: int, browser: bool, read_only: bool, say: Callable[[str, Access], None]
) -> None:
    """Serve the runs of a folder. `say` gets the address with its token, once it can be asked.

    Raises UsageError when nothing can listen on `host` and `port`.
    """
    listening = _listen(host, port)
    access = Access(secrets.token_urlsafe(32), host)
    address = _address(host, listening.getsockname()[1], access)
    site = Site(Shelf(runs), access, read_only)
    jobs = Jobs(site.shelf.runs)
    config = uvicorn.Config(
        make_app(site, jobs),
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=1,
        h11_max_incomplete_event_size=64 * 1024,
    )
    threading.Thread(target=_warm_up, daemon=True).start()
    say(address, access)
    if browser and _has_screen():
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
    try:
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        listening.close()
        jobs.close()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=128)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"--host {host} --port {port}: nothing can listen there: {reason}") from None


def _warm_up() -> None:
    """Import what draws and colours while nobody waits for a page yet."""
    import pygments.formatters
    import pygments.lexers  # noqa: F401


def _address(host: str, port: int, access: Access) -> str:
    name = "127.0.0.1" if host in _ANY else host
    return f"http://{f'[{name}]' if ':' in name else name}:{port}/?token={access.token}"


def _has_screen() -> bool:
    """Whether opening a browser can be meant: somebody sits at a terminal with a screen."""
    screen = sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return screen and sys.stdout.isatty()
