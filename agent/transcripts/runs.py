"""Our own runs as recorded conversations: the event log holds every call, reply and region hash."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from agent.errors import RunDamaged
from agent.runs.log import Launch, Proposal, Record, ToolCalled, ToolReplied, read_events
from agent.transcripts.model import Call, Note, Segment, Transcript, TranscriptError
from benchmark.tasks import PROFILES
from sandbox.editing import Dialect
from sandbox.region import SCAFFOLD_NAME, RegionError, split


def read_run(path: Path) -> Transcript:
    """The conversation in a run directory or its events.jsonl. Raises TranscriptError when it can't be read."""
    log = path / "events.jsonl" if path.is_dir() else path
    if not log.is_file():
        raise TranscriptError(f"{path}: no events.jsonl here; give a run directory (`agent runs` lists them)")
    try:
        records = read_events(log)
    except RunDamaged as error:
        raise TranscriptError(str(error)) from None
    if not records or not isinstance(launch := records[0].event, Launch):
        raise TranscriptError(f"{log}: the log does not begin with a launch; the run was stopped before it started")
    try:
        workspace = [split(launch.scaffold).editable(SCAFFOLD_NAME)]
    except RegionError as error:
        raise TranscriptError(f"{log}: the recorded scaffold cannot be used: {error}") from None
    budget = launch.config.get("budget")
    if isinstance(budget, bool) or not isinstance(budget, int):
        raise TranscriptError(f"{log}: the launch names no budget of tests; the log was edited")
    profile = PROFILES.get(launch.profile)
    prompt, entries = _conversation(records)
    return Transcript(
        source="run",
        task=launch.profile,
        model=str(launch.config.get("model") or launch.config.get("proposer") or ""),
        segments=[Segment(prompt, entries=entries, workspace=workspace)],
        dialect=Dialect.OURS,
        budget=budget,
        hidden_labels=frozenset(task.name for task in profile.hidden) if profile else frozenset(),
    )


def _conversation(records: list[Record]) -> tuple[str, list[Call | Note]]:
    """What a model was told at first, and each call with its reply and with what the proposer thought before it.

    What a model was told in between and no tool said, and what it said after its last call, are notes.
    """
    replies = {r.event.step: r.event for r in records if isinstance(r.event, ToolReplied)}
    prompt = ""
    entries: list[Call | Note] = []
    thoughts: list[Proposal] = []
    step = 0
    for record in records:
        event = record.event
        if isinstance(event, Proposal):
            told = [str(text) for text in event.content.get("sent") or ()]
            if told and not prompt:
                prompt = "\n\n".join(told)
            else:
                entries += [Note("user", text, step) for text in told]
            thoughts.append(event)
        elif isinstance(event, ToolCalled):
            step = event.step
            reply = replies.get(step)
            said, thinking, model_called = _thoughts(thoughts)
            thoughts = []
            entries.append(
                Call(
                    step=step,
                    tool=event.tool,
                    arguments=event.arguments,
                    recorded=None if reply is None else reply.reply,
                    thinking=thinking,
                    said=said,
                    model_called=model_called,
                    region_sha256=None if reply is None else reply.region_sha256,
                )
            )
    if thoughts:
        said, thinking, model_called = _thoughts(thoughts)
        entries.append(Note("assistant", said, step, thinking, model_called))
    return prompt, entries


def _thoughts(proposals: list[Proposal]) -> tuple[str, str, bool]:
    """What was said and thought before a call, and whether a language model was asked for it."""
    said, thinking, model_called = [], [], False
    for proposal in proposals:
        message: dict[str, Any] | None = proposal.content.get("message")
        if message is None:
            said.append(json.dumps(proposal.content, ensure_ascii=False))
            continue
        model_called = True
        said.append(str(message.get("content") or ""))
        thinking.append(str(message.get("reasoning_content") or message.get("reasoning") or ""))
    return "\n".join(filter(None, said)), "\n".join(filter(None, thinking)), model_called
