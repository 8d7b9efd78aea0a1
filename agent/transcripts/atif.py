"""Trajectories in the Agent Trajectory Interchange Format (ATIF 1.0 to 1.8).

A trajectory is `schema_version`, `agent`, and `steps` numbered from 1: what the user said, and agent steps with their
tool calls and observations. ATIF knows no segments and no starting files, so what we write carries both under the keys
it leaves free (`extra`): without them a reader takes every user step that lists an editable file as a new segment.
Specification: harbor, rfcs/0001-trajectory-format.md; the PyPI package `atif` validates it.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agent.runs.untrusted import mapping, unwrapped
from agent.transcripts.mlsbench import read_snapshots
from agent.transcripts.model import (
    CUT_MARK,
    Note,
    RecordedCall,
    Role,
    Segment,
    Transcript,
    TranscriptError,
    extras_from_json,
    extras_to_json,
    workspace_from_json,
    workspace_to_json,
)
from agent.transcripts.views import parse_listings
from sandbox.lines import EditableFile

SCHEMA_VERSION = "ATIF-v1.8"
_OURS = "initsearch"


def is_atif(document: Mapping[str, Any]) -> bool:
    """Whether this object calls itself an ATIF trajectory."""
    return str(document.get("schema_version", "")).startswith("ATIF-") or (
        isinstance(document.get("steps"), list) and isinstance(document.get("agent"), Mapping)
    )


def read_atif(document: Mapping[str, Any], where: str) -> Transcript:
    """Read a parsed trajectory. Raises TranscriptError when it is not of the shape that ATIF prescribes."""
    agent, steps = document.get("agent"), document.get("steps")
    if not isinstance(agent, Mapping) or not isinstance(steps, list):
        raise TranscriptError(f"{where}: an ATIF trajectory needs `agent` and `steps`")
    ours = mapping(mapping(document.get("extra")).get(_OURS))
    segments: list[tuple[str, bool, list[RecordedCall | Note], list[EditableFile] | None]] = []
    for index, step in enumerate(steps):
        at = f"{where}: steps[{index}]"
        if not isinstance(step, Mapping):
            raise TranscriptError(f"{at} is not an object")
        number, source = step.get("step_id"), step.get("source")
        if isinstance(number, bool) or not isinstance(number, int):
            raise TranscriptError(f"{at}: step_id is {number!r}, not a whole number")
        note = mapping(mapping(step.get("extra")).get(_OURS))
        text = _content(step.get("message"), f"{at}: message")
        if source in ("user", "system"):
            opens = bool(note["opens_segment"]) if "opens_segment" in note else bool(parse_listings(text))
            if not segments or (source == "user" and opens):
                workspace = workspace_from_json(note.get("workspace"), at)
                segments.append((text, bool(note.get("prompt_cut")), [], workspace))
            else:
                segments[-1][2].append(Note(_role(source), text, _number(note.get("step"), number)))
            continue
        if source != "agent":
            raise TranscriptError(f"{at}: source is {source!r}; ATIF has system, user and agent")
        if not segments:
            segments.append(("", False, [], None))
        segments[-1][2].extend(_agent_step(step, note, text, number, at))
    return Transcript(
        source="atif",
        task=str(ours.get("task") or ""),
        model=str(agent.get("model_name") or ""),
        segments=tuple(Segment(prompt, cut, tuple(entries), files) for prompt, cut, entries, files in segments),
        snapshots=read_snapshots(ours.get("file_snapshots"), where),
        **extras_from_json(ours, where),
    )


def write_atif(transcript: Transcript, *, agent_name: str, agent_version: str) -> dict[str, Any]:
    """The conversation as an ATIF object. Steps that no language model took have `llm_call_count` 0."""
    steps: list[dict[str, Any]] = []

    def add(source: str, message: str, ours: Mapping[str, Any] | None = None, **fields: Any) -> None:
        extra = {"extra": {_OURS: dict(ours)}} if ours else {}
        steps.append({"step_id": len(steps) + 1, "source": source, "message": message, **fields, **extra})

    for segment in transcript.segments:
        opening: dict[str, Any] = {"opens_segment": True, "prompt_cut": segment.prompt_cut}
        if segment.workspace is not None:
            opening["workspace"] = workspace_to_json(segment.workspace)
        add("user", segment.prompt, opening)
        for entry in segment.entries:
            if isinstance(entry, Note):
                agentic = entry.role == "assistant"
                fields = _inference(entry) if agentic else {}
                add(
                    "agent" if agentic else entry.role,
                    entry.text,
                    {"step": entry.step, "opens_segment": False},
                    **fields,
                )
                continue
            identity = f"call_{len(steps) + 1}"
            call: dict[str, Any] = {
                "tool_call_id": identity,
                "function_name": entry.tool,
                "arguments": dict(entry.arguments),
            }
            ours: dict[str, Any] = {"step": entry.step}
            if entry.parse_error is not None:
                ours["parse_error"] = entry.parse_error
            if entry.region_sha256 is not None:
                ours["region_sha256"] = entry.region_sha256
            fields = {**_inference(entry), "tool_calls": [call]}
            if entry.recorded is not None:
                content = entry.recorded + (CUT_MARK if entry.recorded_cut else "")
                ours["reply_cut"] = entry.recorded_cut
                fields["observation"] = {"results": [{"source_call_id": identity, "content": content}]}
            add("agent", entry.said, ours, **fields)
    extras = {"task": transcript.task, **extras_to_json(transcript)}
    if transcript.snapshots:
        extras["file_snapshots"] = [vars(snapshot) for snapshot in transcript.snapshots]
    model = {"model_name": transcript.model} if transcript.model else {}
    return {
        "schema_version": SCHEMA_VERSION,
        "agent": {"name": agent_name, "version": agent_version, **model},
        "steps": steps,
        "final_metrics": {"total_steps": len(steps)},
        "extra": {_OURS: extras},
    }


def _inference(entry: RecordedCall | Note) -> dict[str, Any]:
    if not entry.model_called:
        return {"llm_call_count": 0}  # ATIF forbids reasoning on such a step
    return {"llm_call_count": 1, **({"reasoning_content": entry.thinking} if entry.thinking else {})}


def _agent_step(
    step: Mapping[str, Any], note: Mapping[str, Any], said: str, number: int, at: str
) -> Iterator[RecordedCall | Note]:
    """One step may hold several calls; results name their call, or, where they do not, follow the same order."""
    thinking = _content(step.get("reasoning_content"), f"{at}: reasoning_content")
    by_model = step.get("llm_call_count") != 0
    own = _number(note.get("step"), number)
    calls = step.get("tool_calls") or []
    results = mapping(step.get("observation")).get("results") or []
    if not isinstance(calls, list) or not isinstance(results, list):
        raise TranscriptError(f"{at}: tool_calls and observation.results must be lists")
    if not calls:
        yield Note("assistant", said, own, thinking, by_model)
        return
    replies = [(mapping(result).get("source_call_id"), mapping(result).get("content")) for result in results]
    unnamed = collections.deque(content for name, content in replies if name is None)
    named = dict(reversed([(name, content) for name, content in replies if isinstance(name, str)]))
    for position, call in enumerate(calls):
        if not isinstance(call, Mapping) or not isinstance(call.get("function_name"), str):
            raise TranscriptError(f"{at}: tool_calls[{position}] has no function_name")
        identity = call.get("tool_call_id")
        if isinstance(identity, str) and identity in named:
            found = named[identity]
        else:
            found = unnamed.popleft() if unnamed else None
        recorded = None if found is None else _content(found, f"{at}: observation")
        cut = bool(note.get("reply_cut")) or (recorded is not None and recorded.endswith(CUT_MARK))
        arguments = unwrapped(call.get("arguments"))
        error = None if note.get("parse_error") is None else str(note["parse_error"])
        if error is None and not isinstance(arguments, Mapping):
            error = str(arguments)
        yield RecordedCall(
            step=own,
            tool=call["function_name"],
            arguments=dict(arguments) if isinstance(arguments, Mapping) and error is None else {},
            parse_error=error,
            recorded=recorded.removesuffix(CUT_MARK) if cut and recorded is not None else recorded,
            recorded_cut=cut and recorded is not None,
            thinking=thinking if position == 0 else "",
            said=said if position == 0 else "",
            model_called=by_model,
            region_sha256=None if note.get("region_sha256") is None else str(note["region_sha256"]),
        )


def _content(value: object, at: str) -> str:
    """A message is a text, or since 1.6 a list of parts of which only the texts are kept."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence):
        return "\n".join(str(part["text"]) for part in value if isinstance(part, Mapping) and part.get("text"))
    raise TranscriptError(f"{at} is neither a text nor a list of parts")


def _number(value: object, otherwise: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else otherwise


def _role(source: str) -> Role:
    return "system" if source == "system" else "user"
