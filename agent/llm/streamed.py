"""Joins a stream of server-sent events, which some servers send although none was requested, into one answer."""

from __future__ import annotations

import json
from typing import Any


def is_stream(body: str) -> bool:
    """Whether a body is a stream of server-sent events."""
    return body.lstrip().startswith(("data: ", "data:{", "event:", "id:", "retry:", ": "))


def joined(body: str) -> dict[str, Any]:
    """The completion of all events: texts and arguments are joined, for other fields the last value is kept.

    Raises ValueError for an event that is not JSON, or a stream without its end, which would look like a short answer.
    """
    answer: dict[str, Any] = {}
    message: dict[str, Any] = {}
    calls: dict[int, dict[str, Any]] = {}
    finish_reason, ended = None, False
    for line in body.splitlines():
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            ended = True
            continue
        event = json.loads(data, strict=False)
        if not isinstance(event, dict):
            raise ValueError("an event of the stream is no object")
        answer |= {name: value for name, value in event.items() if name != "choices" and value is not None}
        choices = event.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
        finish_reason = choice.get("finish_reason") or finish_reason
        delta = choice.get("delta") or choice.get("message")
        if isinstance(delta, dict):
            _add(message, calls, delta)
    if not (ended or finish_reason or answer.get("error")):
        raise ValueError("the stream broke off")
    if calls:
        message["tool_calls"] = [
            {
                **call["extra"],
                "id": call["id"],
                "function": {name: "".join(call[name]) for name in ("name", "arguments")},
            }
            for _, call in sorted(calls.items())
        ]
    return {**answer, "choices": [{"message": _plain(message), "finish_reason": finish_reason}]}


def _add(message: dict[str, Any], calls: dict[int, dict[str, Any]], delta: dict[str, Any]) -> None:
    """Add one event to the message. Texts are collected in lists, because repeated string addition is quadratic."""
    for name, value in delta.items():
        if isinstance(value, str) and name != "role":
            message.setdefault(name, []).append(value)
    for position, part in enumerate(delta.get("tool_calls") or []):
        if isinstance(part, dict):
            index = part.get("index")
            number = index if isinstance(index, int) else position
            call = calls.setdefault(number, {"id": None, "name": [], "arguments": [], "extra": {}})
            call["extra"] |= {name: value for name, value in part.items() if name not in ("index", "id", "function")}
            call["id"] = part.get("id") or call["id"]
            function = part.get("function")
            if isinstance(function, dict):
                for name in ("name", "arguments"):
                    call[name].append(str(function.get(name) or ""))


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    return {name: "".join(value) if name != "tool_calls" else value for name, value in message.items()}
