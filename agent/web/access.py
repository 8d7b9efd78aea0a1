"""Who may talk to the server: token, cookie, Host and Origin, and the headers of every answer."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent.errors import UsageError

MAX_FORM = 64 * 1024
"""Bytes of a form. A review is a few sentences."""
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    # With no-referrer, a browser would send `Origin: null` with our own forms.
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}


class Forbidden(UsageError):
    """A form did not come from a page of this server."""


@dataclass(frozen=True)
class Access:
    """The token of a server, and the names under which it may be asked. `host` is the address it listens on."""

    token: str
    host: str

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return _is_loopback(self.host)

    @property
    def csrf(self) -> str:
        """A value that each form contains. Another site can neither read nor guess it."""
        return hmac.new(self.token.encode(), b"form", hashlib.sha256).hexdigest()

    def knows(self, given: str | None) -> bool:
        """Whether `given` is the token."""
        return given is not None and hmac.compare_digest(given.encode(errors="replace"), self.token.encode())

    def is_our_name(self, host_header: str) -> bool:
        """Whether a Host header names this server.

        A page of another site that has its own name lead here (DNS rebinding) sends that name: an address cannot.
        """
        try:
            name = (urlsplit(f"//{host_header}").hostname or "").rstrip(".")
            _ = urlsplit(f"//{host_header}").port
        except ValueError:
            return False
        if self.loopback:
            return name == self.host or _is_loopback(name)
        return name in {self.host.lower(), socket.gethostname().lower(), "localhost"} or _is_address(name)


class Guard:
    """ASGI middleware: refuses what `Access` does not let in, and sets cookie and headers."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        access, headers = self._access, Headers(scope=scope)
        host, port = headers.get("host", ""), scope["server"][1]
        by_address = access.knows(parse_qs(scope["query_string"].decode("latin-1")).get("token", [None])[-1])
        cookie = f"initsearch-{port}"  # cookies of one host are shared by its ports
        set_cookie = f"{cookie}={access.token}; HttpOnly; SameSite=Strict; Path=/" if by_address else None

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                out = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    out[name] = value
                if set_cookie is not None:
                    out.append("set-cookie", set_cookie)
            await send(message)

        refusal = self._refusal(host, headers, known=by_address or access.knows(_cookie(headers, cookie)))
        await (refusal or self._app)(scope, receive, guarded)

    def _refusal(self, host: str, headers: Headers, *, known: bool) -> PlainTextResponse | None:
        if not self._access.is_our_name(host):
            return PlainTextResponse(
                f"agent serve is not called {host[:100]!a}: ask for it by the address that it printed.\n", 403
            )
        origin = headers.get("origin")
        if origin is not None and origin != f"http://{host}":
            return PlainTextResponse("This request comes from a page of another site, so it is refused.\n", 403)
        if not known:
            return PlainTextResponse("Open the address that agent serve printed: it has the token.\n", 403)
        return None


async def read_form(request: Request, access: Access) -> Mapping[str, str]:
    """The fields of a form of this server. Raises Forbidden for any other, UsageError for one that is too large."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Forbidden("This form was sent by a page of another site, so nothing was done.")
    data = b""
    async for part in request.stream():
        data += part
        if len(data) > MAX_FORM:
            raise UsageError(f"The form is larger than {MAX_FORM:,} bytes, so nothing was done.")
    try:
        fields = {
            name: values[-1]
            for name, values in parse_qs(data.decode(), keep_blank_values=True, max_num_fields=100).items()
        }
    except ValueError:
        raise UsageError("The form cannot be read, so nothing was done.") from None
    given = fields.pop("csrf", request.headers.get("x-csrf-token", ""))
    if not hmac.compare_digest(given.encode(errors="replace"), access.csrf.encode()):
        raise Forbidden("The form does not come from a page of this server, so nothing was done. Load the page again.")
    return fields


def _cookie(headers: Headers, name: str) -> str | None:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(name)
    except CookieError:
        return None
    return None if found is None else found.value


def _is_loopback(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
