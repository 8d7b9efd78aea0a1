"""A conversation as data, and its messages: with tool calls or in the portable form, whole or shortened.

The task is never removed. When there is too little room, old views are removed first, then the texts of old edits and
old reasoning, then the oldest exchanges.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from agent.llm.answers import Answer, clean, clip

Form = Literal["tools", "portable"]

_VIEW = "[Current file:"
_DROPPED_VIEW = "[the view that stood here is left out; call view() to see the file]"
_DROPPED_EXCHANGES = "[{count} earlier exchange(s) are left out here]"
_KEPT_OF_OLD_TEXT = 200
_LEVELS = 3


@dataclass
class Exchange:
    """An answer of the model, and our messages after it: a reply to each call, or an explanation."""

    answer: Answer
    replies: list[str] = field(default_factory=list)


@dataclass
class Conversation:
    """All messages so far. `system`, `task` and `answer_format` (how to answer) are never removed.

    The answer format follows the task, so that changing it keeps the server's cache of the text before it.
    """

    system: str
    task: str
    answer_format: str
    exchanges: list[Exchange] = field(default_factory=list)

    def messages(self, form: Form, room: int | None = None) -> list[dict[str, Any]]:
        """The messages to send: all of them, as many as fit into `room` characters, or the shortest possible list."""
        messages = self._render(form, 0, 0)
        if room is None:
            return messages
        last = _LEVELS - 1
        shorter = [(level, 0) for level in range(1, _LEVELS)] + [(last, n) for n in range(1, len(self.exchanges))]
        for level, left_out in shorter:
            if size(messages) <= room:
                break
            messages = self._render(form, level, left_out)
        return messages

    def _render(self, form: Form, level: int, left_out: int) -> list[dict[str, Any]]:
        task = f"{self.task}\n{self.answer_format}"
        if left_out:
            task = f"{task}\n{_DROPPED_EXCHANGES.format(count=left_out)}\n"
        messages: list[dict[str, Any]] = [
            {"role": "system", "content": self.system},
            {"role": "user", "content": task},
        ]
        kept = self.exchanges[left_out:]
        for number, exchange in enumerate(kept, start=1):
            messages += _rendered(exchange, form, level, last=number == len(kept))
        return messages


def size(messages: Iterable[dict[str, Any]]) -> int:
    """Number of characters of the messages as JSON."""
    return sum(len(json.dumps(message, ensure_ascii=False)) for message in messages)


def request_sha256(model: str, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> str:
    """The hash that identifies a request. A run never pays twice for the same request."""
    question = {"model": model, "messages": messages, "tools": tools}
    return hashlib.sha256(json.dumps(question, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _rendered(exchange: Exchange, form: Form, level: int, *, last: bool) -> Iterator[dict[str, Any]]:
    answer = exchange.answer
    replies = exchange.replies if last or level < 1 else [_without_view(reply) for reply in exchange.replies]
    old = level >= 2 and not last
    message: dict[str, Any] = {"role": "assistant", "content": answer.text if not old else _head(answer.text)}
    if answer.reasoning and not old:
        message |= {"reasoning": answer.reasoning, "reasoning_field": answer.reasoning_field}
    if not old:
        message |= answer.extra
    if form == "tools" and answer.calls:
        arguments = [_valid_json(call.arguments, short=old) for call in answer.calls]
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": written}, **call.extra}
            for call, written in zip(answer.calls, arguments, strict=True)
        ]
        yield message
        for call, reply in zip(answer.calls, replies, strict=True):
            yield {"role": "tool", "tool_call_id": call.id, "content": reply}
        return
    if answer.calls:
        written = [
            f'{{"tool": "{call.name}", "arguments": {_valid_json(call.arguments, old)}}}' for call in answer.calls
        ]
        message["content"] = "\n\n".join([answer.text, *(f"```json\n{call}\n```" for call in written)]).strip()
    message["content"] = message["content"] or "(nothing)"
    yield message
    yield {"role": "user", "content": "\n\n".join(replies).strip() or "(nothing)"}


def _valid_json(arguments: str, short: bool) -> str:
    """The arguments as valid JSON, which the server's template needs; `short` shortens long texts."""
    try:
        parsed = json.loads(arguments or "{}", strict=False)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        parsed = {"unreadable": clip(arguments, _KEPT_OF_OLD_TEXT * 10)}
    elif short:
        parsed = {key: _head(value) if isinstance(value, str) else value for key, value in parsed.items()}
    elif len(arguments) > 32 * 1024:
        parsed = {key: clip(value, 1000) if isinstance(value, str) else value for key, value in parsed.items()}
    return clean(json.dumps(parsed, ensure_ascii=False))


def _without_view(reply: str) -> str:
    before, view, _ = reply.partition(_VIEW)
    return before + _DROPPED_VIEW if view else reply


def _head(text: str) -> str:
    return text if len(text) <= _KEPT_OF_OLD_TEXT else f"{text[:_KEPT_OF_OLD_TEXT]}… ({len(text):,} characters)"
