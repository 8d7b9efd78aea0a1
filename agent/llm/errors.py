"""What can go wrong between us and a server, one type for each way the proposer reacts."""

from __future__ import annotations


class ServerFailed(Exception):
    """No answer is to be had, after all retries. The message names the server's own words, without secrets."""


class AccessRefused(ServerFailed):
    """The key is missing, wrong, or may not do this (401, 403)."""


class ModelUnknown(ServerFailed):
    """The server has no such model, or no Chat Completions at this address (404)."""


class OutOfTime(Exception):
    """The search's own wall time ended while an answer was awaited."""


class ContextExceeded(Exception):
    """The conversation is too long for the model's context: send less of it."""


class ToolsRefused(Exception):
    """The server or model cannot do tool calls: use the portable form."""
