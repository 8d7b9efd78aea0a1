"""From what a model wrote to tool calls: arguments that should be JSON, and the portable form in plain text.

The portable form is for models and servers without tool calls. An answer holds fenced blocks: a `python` block that
defines `initialize_weights` replaces the region and is tested; a small JSON object `{"tool": NAME, …}` is one call.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from agent.llm.answers import clean
from agent.protocol import ToolCall

MAX_CALLS = 10
"""Calls that one answer may hold."""

_MAX_ARGUMENTS = 64 * 1024
_INTEGERS = ("n", "start_line", "end_line", "after_line")
_TOOLS = ("edit", "undo", "view", "rewrite", "screen", "test", "submit")
_FENCE = re.compile(r"[ \t]*(?P<fence>```+|~~~+)[ \t]*(?P<language>[\w+-]*)")
_TAG, _END_TAG = "<tool_call>", "</tool_call>"
_DEFINES = re.compile(r"^def initialize_weights\b", re.MULTILINE)


class ArgumentError(ValueError):
    """The arguments of a call cannot be used; the message is the reply that the model gets."""


def tool_call(name: str, arguments: str) -> ToolCall:
    """One call from its name and its arguments as JSON. Raises ArgumentError."""
    if len(arguments) > _MAX_ARGUMENTS:
        raise ArgumentError(
            f"ERROR: Failed to parse tool arguments: {len(arguments):,} characters, more than the {_MAX_ARGUMENTS:,} "
            "that a call may have"
        )
    try:
        parsed = json.loads(arguments or "{}", strict=False, parse_constant=_no_constant)
        if not isinstance(parsed, dict):
            raise ArgumentError("ERROR: Failed to parse tool arguments: expected a JSON object")
        return _call(name, parsed)
    except RecursionError:
        raise ArgumentError("ERROR: Failed to parse tool arguments: nested too deeply") from None
    except ArgumentError:
        raise
    except ValueError as error:
        raise ArgumentError(f"ERROR: Failed to parse tool arguments: {error}") from None


def calls_in_text(text: str, *, code: bool) -> list[ToolCall]:
    """The calls that a text holds, in its order; with `code`, a Python block counts as rewrite and test.

    A JSON object counts in a fence, in a `<tool_call>` tag, or as the whole text. An empty list: there is none.
    The work grows in proportion to the text. Raises ArgumentError for a call whose arguments cannot be used.
    """
    found: list[ToolCall] = []
    blocks = list(_blocks(text))
    for language, body in blocks:
        if code and language in ("python", "py", "python3", "") and _DEFINES.search(body):
            found += [ToolCall("rewrite", {"content": clean(body)}), ToolCall("test")]
        elif (call := _json_call(body)) is not None:
            found.append(call)
    if not blocks:
        whole = text.strip()
        bare = code and whole.startswith(("def ", "import ", "from ", "#", '"'))
        rewrite = ToolCall("rewrite", {"content": clean(whole + "\n")})
        for written in list(_tagged(text)) or [text]:
            if (call := _json_call(written)) is not None:
                found.append(call)
            elif bare and _DEFINES.search(written):
                found += [rewrite, ToolCall("test")]
    return found


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    """Language and text of each fenced block. One whose end is missing goes on to the end of the text."""
    lines = text.split("\n")
    start = 0
    while start < len(lines) - 1:
        opening = _FENCE.match(lines[start])
        start += 1
        if opening is None:
            continue
        end = start
        while end < len(lines) and lines[end].strip(" \t") != opening["fence"]:
            end += 1
        closing = [""] if end < len(lines) else []
        yield opening["language"].lower(), "\n".join([*lines[start:end], *closing])
        start = end + 1


def _tagged(text: str) -> Iterator[str]:
    """What stands in each `<tool_call>` tag. One whose end is missing goes on to the end of the text."""
    start = text.find(_TAG)
    while start >= 0:
        end = text.find(_END_TAG, start)
        yield text[start + len(_TAG) : end if end >= 0 else None].strip()
        start = text.find(_TAG, end) if end >= 0 else -1


def _json_call(text: str) -> ToolCall | None:
    """The call in `{"tool": "submit", "n": 1}` or `{"name": "submit", "arguments": {"n": 1}}`, if it is one."""
    try:
        parsed = json.loads(text, strict=False, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    if not isinstance(parsed, dict):
        return None
    name = next((parsed[key] for key in ("tool", "name", "tool_name", "function") if key in parsed), None)
    if not isinstance(name, str) or name not in _TOOLS:
        return None
    inner = next((parsed[key] for key in ("arguments", "parameters", "args", "tool_input") if key in parsed), None)
    if isinstance(inner, str):
        return tool_call(name, inner)
    rest = {key: value for key, value in parsed.items() if key not in ("tool", "name", "tool_name", "function")}
    return _call(name, inner if isinstance(inner, dict) else rest)


def _call(name: str, arguments: dict[str, Any]) -> ToolCall:
    """Plain values only, numbers as numbers, lists of lines as text. Raises ArgumentError for anything nested."""
    plain: dict[str, Any] = {}
    for key, value in arguments.items():
        key = clean(key)[:100]
        if isinstance(value, list) and all(isinstance(line, str) for line in value):
            value = "\n".join(line.rstrip("\n") for line in value)
        if isinstance(value, dict | list):
            raise ArgumentError(
                f"ERROR: Invalid arguments for {name!r}: {key} must be a plain value, not {value!r:.80}"
            )
        if isinstance(value, str):
            value = clean(value)
            if key in _INTEGERS and re.fullmatch(r"\s*-?\d{1,9}\s*", value):
                value = int(value)
        elif isinstance(value, float) and key in _INTEGERS and value.is_integer() and abs(value) < 1e9:
            value = int(value)
        plain[key] = value
    return ToolCall(clean(name)[:100], plain)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
