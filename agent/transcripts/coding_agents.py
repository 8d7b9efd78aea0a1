"""Sessions of coding agents: the JSONL of Claude Code and Qwen Code, Codex's rollouts, mini-swe-agent's `.traj.json`.

Their tools are not ours: a replay cannot follow them, but every text that they showed can be audited. Formats as public
files show them, old ones too; records that show the model nothing (token counts, snapshots, titles) are passed over.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agent.runs.untrusted import mapping
from agent.transcripts.model import Note, RecordedCall, Role, Segment, Transcript, TranscriptError

_COMMAND = re.compile(r"^```(?:bash|sh|mswea_bash_command)[ \t]*\n", re.MULTILINE)
_CODEX_PARTS = {"input_text", "output_text"}
_CLAUDE_OWN = {"summary": "leafUuid", "file-history-snapshot": "snapshot"}
"""Records of Claude Code that carry no session's id, and a field that each of them has."""
_OTHERS = {"message", "tool_call", "tool_use", "tool_result"}
"""Records of other agents' streams (Gemini CLI, Cursor), which resemble Claude Code's. Their calls would be lost."""
_WRAPPING = ("content", "reply", "output", "output_head", "output_tail", "exception_info")
"""What a reply that is itself JSON calls its words: those of a shell, and the structured ones of `agent mcp`."""
_BESIDE = {
    "metadata",
    "returncode",
    "elided_chars",
    "warning",
    "state",
    "tool",
    "error",
    "test",
    "submitted",
    "isError",
}
"""Keys beside them that carry no words of a tool. With any other key the JSON is a tool's own and stays as it is."""
_TEXT_KEYS = ("text", *_WRAPPING, "stdout", "stderr", "aggregated_output")


@dataclass
class _Session:
    """A session while it is read: entries in order, and where each call stands by its id."""

    source: str
    prompt: str = ""
    model: str = ""
    entries: list[RecordedCall | Note] = field(default_factory=list)
    thinking: str = ""
    _places: dict[str, int] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)
    _step: int = 0

    def say(self, role: Role, text: str) -> None:
        self._step += 1
        if role == "user" and not self.prompt:
            self.prompt = text
        elif text:
            self.entries.append(Note(role, text, self._step))

    def call(self, identity: object, tool: object, arguments: object) -> None:
        if isinstance(identity, str):
            if identity in self._seen:
                return  # a streamed or resumed session can hold a call twice
            self._seen.add(identity)
            self._places[identity] = len(self.entries)
        self._step += 1
        given, error = _arguments(arguments)
        self.entries.append(RecordedCall(self._step, str(tool or "?"), given, error, thinking=self.thinking))
        self.thinking = ""

    def reply(self, identity: object, text: str) -> None:
        place = self._places.pop(identity, None) if isinstance(identity, str) else None
        entry = None if place is None else self.entries[place]
        if place is None or not isinstance(entry, RecordedCall):
            self.say("system", text)
        else:
            self.entries[place] = replace(entry, recorded=text)

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


def read_coding_session(records: list[Mapping[str, Any]]) -> Transcript | None:
    """A session of Claude Code or Qwen Code, or a Codex rollout; None when it is none of them."""
    if any(map(_is_codex, records)):
        return _read_codex(records)
    if any(map(_is_qwen, records)):
        return _read_qwen(records)
    if any(map(_is_claude, records)) and _OTHERS.isdisjoint(str(record.get("type")) for record in records):
        return _read_claude(records)
    return None


def is_codex_document(document: Mapping[str, Any]) -> bool:
    """Whether this is a rollout of the first Codex, which was one object."""
    return isinstance(document.get("session"), Mapping) and isinstance(document.get("items"), list)


def read_codex_document(document: Mapping[str, Any]) -> Transcript:
    """Its items are those of the later rollouts, without an envelope."""
    return _read_codex([mapping(item) for item in _list(document.get("items"))])


def is_mini(document: Mapping[str, Any]) -> bool:
    """Whether this object is a trajectory of mini-swe-agent."""
    named = str(document.get("trajectory_format", "")).startswith("mini-swe-agent")
    info = document.get("info")
    return named or (isinstance(info, Mapping) and "mini_version" in info)


def read_mini(document: Mapping[str, Any], where: str) -> Transcript:
    """Calls are `tool_calls`, items of a Responses answer, `extra.actions`, or in the oldest form one shell block."""
    session = _Session("mini-swe-agent")
    session.model = str(
        mapping(mapping(mapping(document.get("info")).get("config")).get("model")).get("model_name") or ""
    )
    waiting: deque[str] = deque()  # calls without an id of their own, which the next messages answer in order
    for index, message in enumerate(_list(document.get("messages"))):
        if not isinstance(message, Mapping):
            raise TranscriptError(f"{where}: messages[{index}] is not an object")
        role, text = message.get("role"), _unwrapped(_text(message.get("content")))
        if message.get("object") == "response" or message.get("type") == "function_call_output":
            items = _list(message.get("output")) if message.get("object") == "response" else [message]
            for item in items:
                _codex_item(session, mapping(item))
        elif role == "assistant":
            waiting.clear()
            session.say("assistant", text)
            calls = [one for one in _list(message.get("tool_calls")) if isinstance(one, Mapping)]
            for one in calls:
                function = mapping(one.get("function"))
                session.call(one.get("id"), function.get("name"), function.get("arguments"))
            if not calls:
                for number, action in enumerate(_actions(message, text)):
                    identity = action.get("tool_call_id")
                    if not isinstance(identity, str):
                        identity = f"message {index}, action {number}"
                        waiting.append(identity)
                    session.call(identity, "bash", {"command": action.get("command")})
        elif role == "tool" or (waiting and role == "user"):
            identity = message.get("tool_call_id")
            session.reply(waiting.popleft() if waiting and not isinstance(identity, str) else identity, text)
        elif role in ("system", "user", "exit", "developer"):
            session.say("user" if role == "user" else "system", text)
        else:
            raise TranscriptError(
                f"{where}: messages[{index}]: role {role!r:.40} is unknown in mini-swe-agent's format"
            )
    return session.close()


def _actions(message: Mapping[str, Any], text: str) -> list[Mapping[str, Any]]:
    """The commands that the agent took from an answer in text."""
    extra = mapping(message.get("extra"))
    if isinstance(extra.get("actions"), list):
        return [mapping(action) for action in extra["actions"]]
    block = _COMMAND.search(text)
    return [] if block is None else [{"command": text[block.end() :].split("\n```", 1)[0]}]


def _is_claude(record: Mapping[str, Any]) -> bool:
    kind = record.get("type")
    if not isinstance(kind, str):
        return False
    if kind in _CLAUDE_OWN:
        return _CLAUDE_OWN[kind] in record
    if kind in ("user", "assistant"):
        known = ("sessionId", "session_id", "uuid", "parentUuid")
        return "message" in record and any(key in record for key in known)
    return isinstance(record.get("sessionId"), str) or ("session_id" in record and "subtype" in record)


def _read_claude(records: Iterable[Mapping[str, Any]]) -> Transcript:
    session = _Session("claude-code")
    for record in records:
        message, kind = mapping(record.get("message")), record.get("type")
        if kind == "attachment":
            session.say("system", "\n".join(_strings(record.get("attachment"))))
        elif kind == "system":
            session.say("system", _text(record.get("content")))
        if kind not in ("user", "assistant"):
            continue
        session.model = session.model or str(message.get("model") or "")
        content = message.get("content")
        for block in [{"type": "text", "text": content}] if isinstance(content, str) else _list(content):
            block = mapping(block)
            part = str(block.get("type"))
            if part in ("text", "document"):
                session.say("assistant" if kind == "assistant" else "user", _text(block) or _text(block.get("source")))
            elif part == "thinking":
                session.thinking = _text(block.get("thinking"))
            elif part.endswith("tool_use"):
                session.call(block.get("id"), block.get("name"), block.get("input"))
            elif part.endswith("tool_result"):
                shown = _unwrapped(_text(block.get("content"))) or "\n".join(_strings(record.get("toolUseResult")))
                session.reply(block.get("tool_use_id"), shown)
    return session.close()


def _is_qwen(record: Mapping[str, Any]) -> bool:
    """Its records have the envelope of Claude Code's, and messages of the Gemini API."""
    return isinstance(mapping(record.get("message")).get("parts"), list)


def _read_qwen(records: Iterable[Mapping[str, Any]]) -> Transcript:
    session = _Session("qwen-code")
    for record in records:
        session.model = session.model or str(record.get("model") or "")
        message = mapping(record.get("message"))
        for part in map(mapping, _list(message.get("parts"))):
            if call := mapping(part.get("functionCall")):
                session.call(call.get("id"), call.get("name"), call.get("args"))
            elif answer := mapping(part.get("functionResponse")):
                session.reply(answer.get("id"), "\n".join(_strings(answer.get("response"))))
            elif part.get("thought"):
                session.thinking = _text(part)
            else:
                session.say("assistant" if message.get("role") == "model" else "user", _text(part))
    return session.close()


def _is_codex(record: Mapping[str, Any]) -> bool:
    kind = record.get("type")
    if kind in ("session_meta", "response_item", "turn_context", "event_msg"):
        return isinstance(record.get("payload"), Mapping)
    if kind == "message":  # the first rollouts had no envelope
        parts = _list(record.get("content"))
        return any(mapping(part).get("type") in _CODEX_PARTS for part in parts)
    return kind in ("function_call", "local_shell_call", "reasoning") or record.get("record_type") == "state"


def _read_codex(records: Iterable[Mapping[str, Any]]) -> Transcript:
    session = _Session("codex")
    for record in records:
        kind = record.get("type")
        item = mapping(record.get("payload")) if "payload" in record else record
        if kind in ("turn_context", "session_meta"):
            session.model = session.model or str(item.get("model") or "")
        elif kind == "compacted":
            session.say("assistant", _text(item.get("message")))
        elif kind == "response_item" or "payload" not in record:
            _codex_item(session, item)
    return session.close()


def _codex_item(session: _Session, item: Mapping[str, Any]) -> None:
    """One item of the Responses API, as Codex and mini-swe-agent keep it."""
    kind = str(item.get("type"))
    if kind == "message":
        role: Role = {"user": "user", "assistant": "assistant"}.get(str(item.get("role")), "system")  # type: ignore[assignment]
        session.say(role, _text(item.get("content")))
    elif kind == "agent_message":  # from another agent of the same session
        session.say("system", _text(item.get("content")))
    elif kind == "reasoning":
        session.thinking = _text(item.get("summary"))
    elif kind.endswith("_call"):
        given = next((item[key] for key in ("arguments", "input", "action") if key in item), None)
        name = item.get("name") or kind
        session.call(item.get("call_id") or item.get("id"), f"{item.get('namespace') or ''}{name}", given)
    elif kind.endswith("_output"):
        session.reply(item.get("call_id"), _unwrapped(_text(item.get("output"))))


def _unwrapped(text: str) -> str:
    """The words in an output that is itself JSON: `{"output": …}`, `{"reply": …}`, or the parts of an MCP reply."""
    head, mark, rest = text.partition("Output:\n")
    if mark and head.startswith(("Wall time:", "Chunk ID:")):  # as Codex prints the end of a command and an MCP reply
        return head + mark + _unwrapped(rest)
    if not text.startswith(("{", "[")):
        return text
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text
    keys = set(mapping(found))
    wraps = isinstance(found, list) or (keys & {*_WRAPPING} and keys <= {*_WRAPPING} | _BESIDE)
    return (_text(found) or text) if wraps else text


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
    """A text, the texts in a list of parts, or what an object calls its text, content or output."""
    if isinstance(value, str):
        return value
    if depth and isinstance(value, list):
        return "\n".join(filter(None, (_text(part, depth - 1) for part in value)))
    if depth and isinstance(value, Mapping):
        return "\n".join(filter(None, (_text(value[key], depth - 1) for key in _TEXT_KEYS if key in value)))
    return ""


def _strings(value: object, depth: int = 6) -> Iterator[str]:
    """Every text in a structure whose keys differ from tool to tool."""
    if isinstance(value, str):
        yield value
    elif depth and isinstance(value, list | Mapping):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _strings(part, depth - 1)


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
