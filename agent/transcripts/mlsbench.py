"""Conversations of the public benchmark MLS-Bench: one JSON object with `messages` and `file_snapshots`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agent.runs.untrusted import unwrapped
from agent.transcripts.model import (
    CUT_MARK,
    Note,
    RecordedCall,
    Segment,
    Snapshot,
    Transcript,
    TranscriptError,
    extras_from_json,
    extras_to_json,
    workspace_from_json,
    workspace_to_json,
)
from sandbox.lines import EditableFile

_OURS = "initsearch"
_LIMIT = 10_000
_PROMPT_LIMIT = 50_000


def is_mls_bench(document: Mapping[str, Any]) -> bool:
    """Whether this object calls itself such a conversation; `read_mls_bench` finds out if it is a sound one."""
    return isinstance(document.get("messages"), list)


def has_marks(document: Mapping[str, Any]) -> bool:
    """Whether it shows anything that distinguishes this format from an ordinary list of chat messages."""
    messages = [message for message in document["messages"] if isinstance(message, Mapping)]
    if any(message.get(key) for message in messages for key in ("tool_calls", "toolCalls", "function_call")):
        return False  # a chat API's calls, which would be passed over
    if any(key in document for key in ("task_id", "model_slug", "file_snapshots", _OURS)):
        return True
    return any(key in message for message in messages for key in ("step", "tool_name", "tool_input"))


@dataclass
class _OpenSegment:
    prompt: str
    prompt_cut: bool
    entries: list[RecordedCall | Note] = field(default_factory=list)
    unanswered: dict[int, list[int]] = field(default_factory=dict)
    """Step → where its calls that have no reply yet stand in `entries`, the latest last."""

    def add(self, entry: RecordedCall | Note) -> None:
        """Append what the model said or called."""
        if isinstance(entry, RecordedCall):
            self.unanswered.setdefault(entry.step, []).append(len(self.entries))
        self.entries.append(entry)

    def answer(self, step: int, text: str, cut: bool) -> bool:
        """Give `text` to the latest call of that step that has no reply yet."""
        if not self.unanswered.get(step):
            return False
        place = self.unanswered[step].pop()
        call = self.entries[place]
        assert isinstance(call, RecordedCall)
        self.entries[place] = replace(call, recorded=text, recorded_cut=cut)
        return True

    def close(self, workspace: list[EditableFile] | None) -> Segment:
        return Segment(self.prompt, self.prompt_cut, tuple(self.entries), workspace)


def read_mls_bench(document: Mapping[str, Any], where: str) -> Transcript:
    """Read a parsed JSON object. `where` names it in errors.

    A user message at step 0 opens a segment. A reply belongs to the latest call of its step that has none.
    Raises TranscriptError when a message is not of the shape that the format has.
    """
    segments: list[_OpenSegment] = []
    for index, message in enumerate(document["messages"]):
        at = f"{where}: messages[{index}]"
        if not isinstance(message, Mapping):
            raise TranscriptError(f"{at} is {_kind(message)}, not an object; this is no MLS-Bench conversation")
        step = message.get("step", 0)
        if isinstance(step, bool) or not isinstance(step, int):
            raise TranscriptError(f"{at}: step is {_kind(step)}, not a whole number")
        role = message.get("role")
        if role == "user" and step == 0:
            text, cut = _uncut(_text(message, "content", at), bool(message.get("content_truncated")))
            segments.append(_OpenSegment(text, cut))
            continue
        if not segments:
            segments.append(_OpenSegment("", False))
        segment = segments[-1]
        if role == "user":
            segment.entries.append(Note("user", _text(message, "content", at), step))
        elif role == "assistant":
            segment.add(_assistant(message, step, at))
        elif role == "tool_result":
            key = "result" if "result" in message else "content"
            text, cut = _uncut(_text(message, key, at), bool(message.get(f"{key}_truncated")))
            if not segment.answer(step, text, cut):
                segment.entries.append(Note("system", text, step))  # it answers nothing, but it was said
        else:
            raise TranscriptError(f"{at}: role is {role!r}; the format has user, assistant and tool_result")
    ours = document.get(_OURS)
    given = ours.get("workspaces") if isinstance(ours, Mapping) else None
    workspaces = given if isinstance(given, list) else []
    workspaces += [None] * (len(segments) - len(workspaces))
    return Transcript(
        source="mls-bench",
        task=str(document.get("task_id") or ""),
        model=str(document.get("model") or ""),
        segments=tuple(
            segment.close(workspace_from_json(workspace, where))
            for segment, workspace in zip(segments, workspaces, strict=False)
        ),
        snapshots=read_snapshots(document.get("file_snapshots"), where),
        **extras_from_json(ours, where),
    )


def write_mls_bench(transcript: Transcript) -> dict[str, Any]:
    """The conversation as a JSON object of this format, nothing shortened that was not already cut."""
    messages: list[dict[str, Any]] = []
    last_step = 0
    for segment in transcript.segments:
        messages.append({"step": 0, "role": "user", **_prompt(segment)})
        for entry in segment.entries:
            last_step = max(last_step, entry.step)
            thinking = {"thinking": entry.thinking} if entry.thinking else {}
            if isinstance(entry, Note):
                # A user message at step 0 would open a segment.
                step = max(1, entry.step) if entry.role == "user" else entry.step
                role = "user" if entry.role == "system" else entry.role
                messages.append({"step": step, "role": role, **thinking, "content": entry.text})
                continue
            said = {"content": entry.said} if entry.said else {}
            call = {"step": entry.step, "role": "assistant", **said, **thinking, "tool_name": entry.tool}
            if entry.parse_error is not None:
                call["tool_input"] = {"error": entry.parse_error}
            elif entry.arguments:
                call["tool_input"] = dict(entry.arguments)
            messages.append(call)
            if entry.recorded is not None:
                reply = _marked("result", entry.recorded, entry.recorded_cut)
                messages.append({"step": entry.step, "role": "tool_result", **reply})
    return {
        "task_id": transcript.task,
        "model": transcript.model,
        "model_slug": transcript.model.replace("/", "--"),
        "total_steps": last_step,
        "messages": messages,
        "file_snapshots": [vars(snapshot) for snapshot in transcript.snapshots],
        _OURS: {
            **extras_to_json(transcript),
            "workspaces": [
                None if segment.workspace is None else workspace_to_json(segment.workspace)
                for segment in transcript.segments
            ],
        },
    }


def _assistant(message: Mapping[str, Any], step: int, at: str) -> RecordedCall | Note:
    thinking, said = _text(message, "thinking", at), _text(message, "content", at)
    tool = message.get("tool_name")
    if tool is None:
        return Note("assistant", said, step, thinking)
    if not isinstance(tool, str):
        raise TranscriptError(f"{at}: tool_name is {_kind(tool)}, not a string")
    given = unwrapped(message.get("tool_input"))
    if given is None:
        given = {}
    error = None
    if not isinstance(given, Mapping):
        error, given = str(given), {}
    elif set(given) == {"error"}:
        error, given = str(given["error"]), {}
    return RecordedCall(step, tool, dict(given), error, thinking=thinking, said=said)


def read_snapshots(given: object, where: str) -> tuple[Snapshot, ...]:
    """The whole files among `file_snapshots`. Raises TranscriptError where one is not of the format's shape."""
    snapshots = []
    for index, item in enumerate(given if isinstance(given, list) else []):
        at = f"{where}: file_snapshots[{index}]"
        if not isinstance(item, Mapping) or not isinstance(item.get("step"), int):
            raise TranscriptError(f"{at} is not an object with a step, a filename and the file's content")
        content = _text(item, "content", at)
        if not content.endswith(CUT_MARK):  # a file that was cut is no whole file
            names = _text(item, "filename", at), _text(item, "original_name", at)
            snapshots.append(Snapshot(item["step"], *names, content))
    return tuple(snapshots)


def _text(message: Mapping[str, Any], key: str, at: str) -> str:
    value = message.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TranscriptError(f"{at}: {key} is {_kind(value)}, not a string")
    return value


def _uncut(text: str, flagged: bool) -> tuple[str, bool]:
    """The text without the mark of a cut, and whether it was cut."""
    marked = text.endswith(CUT_MARK) and (
        flagged or len(text) in (_LIMIT + len(CUT_MARK), _PROMPT_LIMIT + len(CUT_MARK))
    )
    return (text.removesuffix(CUT_MARK), True) if marked else (text, flagged)


def _prompt(segment: Segment) -> dict[str, Any]:
    return {"content": segment.prompt, **({"content_truncated": True} if segment.prompt_cut else {})}


def _marked(key: str, text: str, cut: bool) -> dict[str, Any]:
    return {key: text + CUT_MARK, f"{key}_truncated": True} if cut else {key: text}


def _kind(value: object) -> str:
    return {dict: "an object", list: "a list", str: "a string", type(None): "null"}.get(type(value), f"{value!r:.40}")
