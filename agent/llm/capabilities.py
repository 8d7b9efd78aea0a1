"""Learns what a server and its model accept. Each refusal changes one part of the later requests."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from agent.llm.answers import CARRIED
from agent.llm.errors import ContextExceeded, ToolsRefused

Message = dict[str, Any]
"""One message of Chat Completions. `reasoning` has the model's reasoning; it is sent to servers that want it."""

Echo = Literal["off", "calls", "all", "blank"]
"""Which reasoning is sent back. `off`: none. `calls`: that of messages with tool calls. `all`: that of every message of
the model, even if empty. `blank`: as `all`, with a space for an empty one."""

_TOOLS = re.compile(r"\btools?\b|tool_choice|function.?call", re.IGNORECASE)
_SIZE = r"(?:tokens?|prompt|input|context|messages?(?!\"\s*:)|sequence|request)"
_EXCESS = r"(?:exceed|overflow|longer than|too (?:long|large|many)|must be <=|at most|maximum|limit|should be \[1,)"
_CONTEXT = re.compile(
    r"context[ _-]?(?:length|size|window)|exceed_context|reduce (?:the length|your message)"
    rf"|{_SIZE}[^.\n]{{0,80}}\b{_EXCESS}|{_EXCESS}[^.\n]{{0,80}}{_SIZE}",
    re.IGNORECASE,
)
_DEMANDED = re.compile(r"missing|must be (?:passed|provided|included|sent|set)|required|passed back", re.IGNORECASE)
_NO_SYSTEM = re.compile(
    r"system (?:role|message|prompt|instruction)s?\b.{0,40}(?:not supported|unsupported|not allowed)"
    r"|(?:not support|unsupported|unexpected|unknown|invalid)\b[^.\n]{0,40}\bsystem\b"
    r"|only (?:the )?user\b[^.\n]{0,40}\broles? (?:is|are)|developer instruction"
    r"|\brole\b\W{0,4}system\b|\brole\b[^.\n]{0,40}\buser\b[^.\n]{0,40}\bassistant\b",
    re.IGNORECASE,
)
_ALTERNATE = re.compile(r"roles? must alternate|alternat\w+ (?:between )?user|must be user/assistant", re.I)
_EMPTY = re.compile(
    r"\b(?:is blank|is empty|non-?empty|(?:not|cannot) be (?:empty|blank)|non-whitespace|min_length|at least 1 char)",
    re.IGNORECASE,
)
_STREAM = re.compile(r"(?<!up)stream|流式", re.IGNORECASE)
_IDS = re.compile(r"tool.?calls?\b.{0,20}\bid\b.{0,200}\b(?:length|too long)", re.IGNORECASE)
_NO_TEXT = "(no text)"
_LIMIT_NAMES = ("max_completion_tokens", "max_output_tokens", "maxoutputtokens", "max_new_tokens")
_LEAST_TOKENS = 512
_AFFORDABLE = re.compile(r"can only afford (\d{1,9})|at most (\d{1,9}) (?:completion|output) tokens", re.IGNORECASE)


def speaks_of_context(said: str) -> bool:
    """Whether a refusal says that the request is too long for the model."""
    return _CONTEXT.search(said) is not None


def speaks_of_tools(said: str) -> bool:
    """Whether a refusal is about tool calls."""
    return _TOOLS.search(said) is not None


def speaks_of_roles(said: str) -> bool:
    """Whether a chat template refuses the roles of the messages."""
    return _NO_SYSTEM.search(said) is not None or _ALTERNATE.search(said) is not None


@dataclass(frozen=True)
class ServerCapabilities:
    """What this server and model accept in a request."""

    limit_name: str | None = "max_tokens"
    """Name of the parameter for the longest answer; None: it is not sent."""
    most_tokens: int | None = None
    """The longest answer that the server allows, if it refused a longer one."""
    seed: bool = True
    temperature: bool = True
    echo: Echo = "calls"
    system_role: bool = True
    """False: the system message is sent with the role `user`."""
    any_order: bool = True
    """False: consecutive messages of one role are sent as one message."""
    empty_text: bool = True
    """False: a message without text, beside its tool calls, says that it has none."""
    stream: bool = False
    """True: the server gives its answer only as a stream, which is read to its end all the same."""
    any_id: bool = True
    """False: the ids of tool calls are replaced by nine letters and digits, which Mistral's templates demand."""

    def after_refusal(
        self, said: str, *, tools: bool, temperature: bool, answer_tokens: int
    ) -> ServerCapabilities | None:
        """The capabilities after a refusal; None when the refusal gives no information.

        `tools`, `temperature`: whether the refused request had them. `answer_tokens`: the longest answer it asked for,
        if no refusal lowered that. Raises ContextExceeded, ToolsRefused.
        """
        affordable = next((int(n) for match in _AFFORDABLE.finditer(said) for n in match.groups() if n), None)
        if self.limit_name and affordable and (self.most_tokens is None or affordable < self.most_tokens):
            return replace(self, most_tokens=affordable)
        asked = min(self.most_tokens or answer_tokens, answer_tokens)
        if self.limit_name and "fewer max_tokens" in said and asked > _LEAST_TOKENS:
            return replace(self, most_tokens=asked // 2)
        if self.limit_name and self._about_limit(said):
            # Most servers know `max_tokens`. The newest models want `max_completion_tokens`.
            other = self.limit_name == "max_tokens" and "max_completion_tokens" in said and "large" not in said
            return replace(self, limit_name="max_completion_tokens" if other else None)
        if self.seed and re.search(r"\bseed\b", said):
            return replace(self, seed=False)
        if self.temperature and temperature and "temperature" in said:
            return replace(self, temperature=False)
        if not self.stream and _STREAM.search(said):
            return replace(self, stream=True)
        if self.any_id and _IDS.search(said):
            return replace(self, any_id=False)
        if re.search("reasoning|thinking", said) and (echo := self._echo_after(said)) is not None:
            return replace(self, echo=echo)
        if self.empty_text and _EMPTY.search(said):
            return replace(self, empty_text=False)
        if self.system_role and _NO_SYSTEM.search(said):
            return replace(self, system_role=False)
        if speaks_of_roles(said):
            if self.any_order:
                return replace(self, any_order=False, system_role=False)
            if tools:
                raise ToolsRefused(said)
        if speaks_of_context(said):
            if not self.limit_name:
                raise ContextExceeded(said)
            return replace(self, limit_name=None)  # the limit reserves room for the answer: try without it
        if tools and speaks_of_tools(said):
            raise ToolsRefused(said)
        return None

    def _about_limit(self, said: str) -> bool:
        if self.limit_name is not None and self.limit_name in said:
            return True
        return any(name in said.lower() for name in _LIMIT_NAMES) and "`inputs`" not in said

    def _echo_after(self, said: str) -> Echo | None:
        """The next value of `echo`: more reasoning if the server misses it or was sent none, else none."""
        following: dict[Echo, Echo] = {"off": "all", "calls": "off", "all": "blank"}
        return "all" if self.echo == "calls" and _DEMANDED.search(said) else following.get(self.echo)

    def shaped(self, messages: Sequence[Message]) -> list[Message]:
        """The messages in the form that this server accepts."""
        shaped = [self._with_reasoning(message) for message in messages]
        if not self.any_id:
            shaped = [_with_short_ids(message) for message in shaped]
        if not self.empty_text:
            shaped = [message if message.get("content") else {**message, "content": _NO_TEXT} for message in shaped]
        if not self.system_role:
            shaped = [{**message, "role": "user"} if message.get("role") == "system" else message for message in shaped]
        if self.any_order and self.system_role:
            return shaped
        merged: list[Message] = []
        for message in shaped:
            plain = merged and set(message) == set(merged[-1]) == {"role", "content"}
            if plain and merged[-1]["role"] == message["role"]:
                merged[-1] = {**message, "content": f"{merged[-1]['content']}\n\n{message['content']}"}
            else:
                merged.append(message)
        return merged

    def _with_reasoning(self, message: Message) -> Message:
        plain = {name: value for name, value in message.items() if name not in ("reasoning", "reasoning_field")}
        if message.get("role") != "assistant":
            return plain
        if self.echo == "off":
            return {name: value for name, value in plain.items() if name not in CARRIED}
        reasoning = message.get("reasoning") or ""
        if self.echo == "calls":
            wanted = message.get("reasoning_field") == "reasoning_content" and message.get("tool_calls")
            return {**plain, "reasoning_content": reasoning} if wanted else plain
        return {**plain, "reasoning_content": reasoning or (" " if self.echo == "blank" else "")}


def _with_short_ids(message: Message) -> Message:
    changed = dict(message)
    if "tool_call_id" in message:
        changed["tool_call_id"] = _short(message["tool_call_id"])
    if "tool_calls" in message:
        changed["tool_calls"] = [{**call, "id": _short(call["id"])} for call in message["tool_calls"]]
    return changed


def _short(identity: str) -> str:
    return hashlib.sha256(identity.encode()).hexdigest()[:9]
