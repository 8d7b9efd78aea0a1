"""Sessions of coding agents: Claude Code's JSONL, Codex's rollouts, and the `.traj.json` of mini-swe-agent.

Their tools are not ours: a replay cannot follow them, but every text that they showed can be audited. Formats as public
files show them; records that are no message, call or result are passed over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.transcripts.model import Note, RecordedCall, Role, Segment, Transcript, TranscriptError

_COMMAND = re.compile(r"^```(?:bash|sh|mswea_bash_command)[ \t]*\n", re.MULTILINE)
_CODEX_ITEMS = {"message", "reasoning", "function_call", "function_call_output", "local_shell_call", "custom_tool_call"}


@dataclass
class _Session:
    """A session while it is read: entries in order, and where each call stands by its id."""

    source: str
    prompt: str = ""
    model: str = ""
    entries: list[RecordedCall | Note] = field(default_factory=list)
    thinking: str = ""
    _places: dict[str, int] = field(default_factory=dict)
    _step: int = 0

    def say(self, role: Role, text: str) -> None:
        self._step += 1
        if role == "user" and not self.prompt:
            self.prompt = text
        elif text:
            self.entries.append(Note(role, text, self._step))

    def call(self, identity: object, tool: object, arguments: object) -> None:
        self._step += 1
        if isinstance(identity, str):
            self._places[identity] = len(self.entries)
        given, error = _arguments(arguments)
        self.entries.append(RecordedCall(self._step, str(tool or "?"), given, error, thinking=self.thinking))
        self.thinking = ""

    def reply(self, identity: object, text: str) -> None:
        place = self._places.pop(identity, None) if isinstance(identity, str) else None
        entry = None if place is None else self.entries[place]
        if place is None or not isinstance(entry, RecordedCall):
            self.say("system", text)
        else:
            self.entries[place] = RecordedCall(**{**vars(entry), "recorded": text})

    def close(self) -> Transcript:
        segments = (Segment(self.prompt, entries=tuple(self.entries)),) if self.prompt or self.entries else ()
        return Transcript(self.source, model=self.model, segments=segments)


def parse_lines(text: str, where: str) -> list[Mapping[str, Any]]:
    """The objects of a JSONL file. Raises TranscriptError with the line that is none."""
    records = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            raise TranscriptError(f"{where}: line {number} is not JSON; the file was cut or is no transcript") from None
        if not isinstance(record, Mapping):
            raise TranscriptError(f"{where}: line {number} is not an object; this is no session of a coding agent")
        records.append(record)
    return records


def read_lines(records: list[Mapping[str, Any]], where: str) -> Transcript | None:
    """A Claude Code session or a Codex rollout; None when it is neither."""
    if any(_is_codex(record) for record in records[:50]):
        return _read_codex(records)
    if any(_is_claude(record) for record in records[:50]):
        return _read_claude(records)
    return None


def is_mini(document: Mapping[str, Any]) -> bool:
    """Whether this object is a trajectory of mini-swe-agent."""
    named = str(document.get("trajectory_format", "")).startswith("mini-swe-agent")
    info = document.get("info")
    return named or (isinstance(info, Mapping) and "mini_version" in info)


def read_mini(document: Mapping[str, Any], where: str) -> Transcript:
    """Calls are `tool_calls`, or in the older form one shell block that the next user message answers."""
    session = _Session("mini-swe-agent")
    waiting = False
    for index, message in enumerate(_list(document.get("messages"))):
        if not isinstance(message, Mapping):
            raise TranscriptError(f"{where}: messages[{index}] is not an object")
        role, text = message.get("role"), _text(message.get("content"))
        if role == "assistant":
            session.say("assistant", text)
            calls = [one for one in _list(message.get("tool_calls")) if isinstance(one, Mapping)]
            for one in calls:
                function = _mapping(one.get("function"))
                session.call(one.get("id"), function.get("name"), function.get("arguments"))
            if waiting := not calls and (block := _COMMAND.search(text)) is not None:
                session.call("shell", "bash", {"command": text[block.end() :].split("\n```", 1)[0]})
        elif role == "tool" or (waiting and role == "user"):
            session.reply("shell" if waiting else message.get("tool_call_id"), text)
            waiting = False
        elif role in ("system", "user", "exit"):
            session.say("user" if role == "user" else "system", text)
        else:
            raise TranscriptError(
                f"{where}: messages[{index}]: role {role!r:.40} is unknown in mini-swe-agent's format"
            )
    return session.close()


def _is_claude(record: Mapping[str, Any]) -> bool:
    known = ("sessionId", "session_id", "uuid", "parentUuid")
    return record.get("type") in ("user", "assistant") and "message" in record and any(key in record for key in known)


def _read_claude(records: Iterable[Mapping[str, Any]]) -> Transcript:
    session = _Session("claude-code")
    for record in records:
        message, kind = _mapping(record.get("message")), record.get("type")
        if kind not in ("user", "assistant"):
            continue
        session.model = session.model or str(message.get("model") or "")
        content = message.get("content")
        for block in [{"type": "text", "text": content}] if isinstance(content, str) else _list(content):
            block = _mapping(block)
            if block.get("type") == "text":
                session.say("assistant" if kind == "assistant" else "user", _text(block.get("text")))
            elif block.get("type") == "thinking":
                session.thinking = _text(block.get("thinking"))
            elif block.get("type") == "tool_use":
                session.call(block.get("id"), block.get("name"), block.get("input"))
            elif block.get("type") == "tool_result":
                session.reply(block.get("tool_use_id"), _text(block.get("content")))
    return session.close()


def _is_codex(record: Mapping[str, Any]) -> bool:
    if record.get("type") in ("session_meta", "response_item"):
        return isinstance(record.get("payload"), Mapping)
    return record.get("type") in (
        "function_call",
        "local_shell_call",
        "reasoning",
    )  # the first rollouts had no envelope


def _read_codex(records: Iterable[Mapping[str, Any]]) -> Transcript:
    session = _Session("codex")
    for record in records:
        item = _mapping(record.get("payload")) if "payload" in record else record
        if record.get("type") == "turn_context":
            session.model = session.model or str(item.get("model") or "")
        if record.get("type") != "response_item" and str(record.get("type")) not in _CODEX_ITEMS:
            continue
        kind = str(item.get("type"))
        if kind == "message":
            role: Role = {"user": "user", "assistant": "assistant"}.get(str(item.get("role")), "system")  # type: ignore[assignment]
            session.say(role, _text(item.get("content")))
        elif kind == "reasoning":
            session.thinking = _text(item.get("summary"))
        elif kind in ("function_call", "local_shell_call", "custom_tool_call"):
            given = next((item[key] for key in ("arguments", "input", "action") if key in item), None)
            session.call(item.get("call_id"), item.get("name") or kind, given)
        elif kind.endswith("_output"):
            session.reply(item.get("call_id"), _text(item.get("output")))
    return session.close()


def _arguments(given: object) -> tuple[dict[str, Any], str | None]:
    """Arguments as an object; a text that is no JSON object (a patch, say) is kept as `input`."""
    if isinstance(given, str):
        try:
            parsed = json.loads(given)
        except (ValueError, RecursionError):
            return {"input": given}, None
        return (parsed, None) if isinstance(parsed, dict) else ({"input": given}, None)
    return (dict(given), None) if isinstance(given, Mapping) else ({}, None)


def _text(value: object, depth: int = 4) -> str:
    """A text, the texts in a list of parts, or what an object calls its content or output."""
    if isinstance(value, str):
        return value
    if depth and isinstance(value, list):
        return "\n".join(filter(None, (_text(part, depth - 1) for part in value)))
    if depth and isinstance(value, Mapping):
        return _text(next((value[key] for key in ("text", "content", "output") if key in value), None), depth - 1)
    return ""


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
