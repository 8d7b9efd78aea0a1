"""The server of `agent mcp --http`: streamable HTTP on loopback, for clients that have the token."""

from __future__ import annotations

import hmac
import os
import secrets
import socket
from collections.abc import Callable
from typing import Any

import anyio
import uvicorn
from mcp.server import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from agent.errors import UsageError

TOKEN_VARIABLE = "INITSEARCH_MCP_TOKEN"
HOST = "127.0.0.1"
PATH = "/mcp"
_SHORTEST_TOKEN = 16


def chosen_token() -> tuple[str, bool]:
    """The token of INITSEARCH_MCP_TOKEN, or a new one; and whether it is new. Raises UsageError for a short one."""
    given = os.environ.get(TOKEN_VARIABLE, "").strip()
    if given and len(given) < _SHORTEST_TOKEN:
        raise UsageError(f"{TOKEN_VARIABLE}: at least {_SHORTEST_TOKEN} characters, or unset it and get a new token")
    return given or secrets.token_urlsafe(32), not given


def serve_http(server: MCPServer[Any], port: int, token: str, listening: Callable[[str], None]) -> None:
    """Serve until a signal. `listening` gets the address once the port is bound; port 0 takes a free one.

    Raises UsageError when the port is taken.
    """
    try:
        bound = socket.create_server((HOST, port))
    except OSError as error:
        raise UsageError(f"--http {port}: cannot listen on {HOST}: {error.strerror}") from None
    local = [f"{HOST}:*", "localhost:*"]
    security = TransportSecuritySettings(allowed_hosts=local, allowed_origins=[f"http://{name}" for name in local])
    app = server.streamable_http_app(streamable_http_path=PATH, transport_security=security)
    config = uvicorn.Config(_Guarded(app, token), log_level="warning", access_log=False)
    with bound:
        listening(f"http://{HOST}:{bound.getsockname()[1]}{PATH}")
        anyio.run(uvicorn.Server(config).serve, [bound])


class _Guarded:
    """Refuses requests without the token before anything of the protocol sees them."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self._token):
                refusal = PlainTextResponse("the token is missing or wrong", 401, {"WWW-Authenticate": "Bearer"})
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)
