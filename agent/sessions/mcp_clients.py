"""What `agent mcp --print-config` prints: the entry for this server in the configuration of a client."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

CLIENTS = {
    "claude": "Claude Code: .mcp.json in the project, or `claude mcp add-json initsearch` with the inner object",
    "codex": "Codex: ~/.codex/config.toml, or .codex/config.toml in a trusted project",
    "cursor": "Cursor: .cursor/mcp.json in the project, or ~/.cursor/mcp.json",
    "vscode": "VS Code: .vscode/mcp.json in the workspace",
}
"""Client → where its configuration lies."""
_NAME = "initsearch"
_SECONDS, _START_SECONDS = 120, 60
"""Longer than a call of `test` or `wait` takes by default, 45 s, and than a busy machine needs to import everything."""


def client_config(client: str, command: str, arguments: Sequence[str], *, url: str = "", variable: str = "") -> str:
    """The text to paste. With `url` the client connects to it, with the token that it finds in `variable`."""
    if client == "codex":
        return _codex(command, arguments, url, variable)
    entry: dict[str, Any]
    if url:
        value = {"claude": f"${{{variable}}}", "cursor": f"${{env:{variable}}}", "vscode": "${input:token}"}[client]
        entry = {"type": "http", "url": url, "headers": {"Authorization": f"Bearer {value}"}}
    else:
        entry = {"type": "stdio", "command": command, "args": list(arguments)}
    if client == "vscode":
        token = {"type": "promptString", "id": "token", "description": variable, "password": True}
        document: dict[str, Any] = {"servers": {_NAME: entry}, **({"inputs": [token]} if url else {})}
    else:
        document = {"mcpServers": {_NAME: entry}}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _codex(command: str, arguments: Sequence[str], url: str, variable: str) -> str:
    """TOML. A JSON string in ASCII is a TOML string as well."""
    if url:
        lines = [f"url = {json.dumps(url)}", f"bearer_token_env_var = {json.dumps(variable)}"]
    else:
        lines = [f"command = {json.dumps(command)}", f"args = {json.dumps(list(arguments))}"]
    lines += [f"startup_timeout_sec = {_START_SECONDS}", f"tool_timeout_sec = {_SECONDS}"]
    return "\n".join([f"[mcp_servers.{_NAME}]", *lines, ""])
