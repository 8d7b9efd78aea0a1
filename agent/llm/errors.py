"""Errors of a model's server. Each type stands for one reaction of the proposer."""

from __future__ import annotations


class ServerFailed(Exception):
    """The server gave no answer after all retries. The message quotes the server, without secrets."""


class AccessRefused(ServerFailed):
    """The key is missing, wrong, or has no permission (401, 403)."""


class ModelUnknown(ServerFailed):
    """The server has no such model, or no Chat Completions at this address (404)."""


class OutOfTime(Exception):
    """The search's time limit passed while it waited for an answer."""


class ContextExceeded(Exception):
    """The conversation is too long for the model's context: send less of it."""


class ToolsRefused(Exception):
    """The server or model cannot do tool calls: use the portable form."""
