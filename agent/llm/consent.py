"""Where the key may be sent: an address that the user did not name this time is confirmed, or nothing is sent."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from agent.config import Loaded
from agent.errors import UsageError
from agent.llm.settings import address
from agent.secrets import KEY_VARIABLE

Ask = Callable[[str], bool]
"""Puts a question to a person; True for yes."""


def is_loopback(url: str) -> bool:
    """Whether an address is one of this machine by its name; nothing is looked up."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def confirm_address(url: str, source: str, *, key_host: str | None, ask: Ask | None) -> None:
    """Return if `url` is on this machine, on the host that the user names, or the person who is asked says yes.

    `source` is who chose the address, in words; `key_host` what --yes-send-key-to was given. Raises UsageError.
    """
    if is_loopback(url):
        return
    parts = urlsplit(url)
    shown = url if url.isascii() else f"{url} ({url!a})"
    if key_host is not None:
        if key_host.lower() in (parts.hostname, parts.netloc.lower()):
            return
        raise UsageError(f"--yes-send-key-to {key_host}: {source} names another server, {shown}")
    if ask is not None:
        if ask(f"{source} sends the conversation and the key in {KEY_VARIABLE} to {shown}. Go on?"):
            return
        raise UsageError(f"nothing was sent to {shown}; --base-url URL names another server")
    raise UsageError(
        f"{source} sends the conversation and the key in {KEY_VARIABLE} to {shown}. If you trust that server, "
        f"add --yes-send-key-to {parts.hostname}"
    )


def confirm_loaded(loaded: Loaded, environ: Mapping[str, str], *, key_host: str | None, ask: Ask | None) -> None:
    """Confirm the address of a new search's server where a file in the working directory chose it.

    Raises UsageError.
    """
    if "base_url" in loaded.found_here:
        url = address(loaded.config, environ)
        confirm_address(url, loaded.origin["base_url"], key_host=key_host, ask=ask)
