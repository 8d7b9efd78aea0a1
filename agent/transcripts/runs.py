"""Our own runs as recorded conversations: the event log holds every call, reply and region hash."""

from __future__ import annotations

import json
import os
from pathlib import Path

from agent.errors import RunDamaged
from agent.profiles import recorded_profile
from agent.runs.events import Launch, TestStarted, ToolReplied
from agent.runs.log import Record, read_events
from agent.runs.log_lines import Fields, exchanges
from agent.transcripts.model import Note, RecordedCall, Segment, Transcript, TranscriptError
from sandbox.editing import Dialect
from sandbox.region import SCAFFOLD_NAME, RegionError, split


def read_run(path: Path) -> Transcript:
    """The conversation in a run directory or its events.jsonl. Raises TranscriptError when it can't be read."""
    log = path / "events.jsonl" if path.is_dir() else path
    if not os.path.lexists(log):
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
    try:
        profile = recorded_profile(launch.profile, launch.tasks)
    except ValueError:  # of another version, or edited: then nothing is known to be hidden
        profile = None
    try:
        prompt, entries = _conversation(records)
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise TranscriptError(f"{log}: a proposal or the configuration is no search's: {error!r:.300}") from None
    return Transcript(
        source="run",
        task=launch.profile,
        model=str(launch.config.get("model") or launch.config.get("proposer") or ""),
        segments=[Segment(prompt, entries=entries, workspace=workspace)],
        dialect=Dialect.OURS,
        budget=budget,
        hidden_labels=frozenset(task.name for task in profile.hidden) if profile else frozenset(),
    )


def _begun(records: list[Record]) -> dict[int, int]:
    """Step of a test → tests that had been begun when its reply was given. Empty where one was in flight at a time."""
    launch = records[0].event
    if not isinstance(launch, Launch) or launch.config.get("parallel", 1) == 1:
        return {}
    begun, found = 0, {}
    for record in records:
        if isinstance(record.event, TestStarted):
            begun += 1
        elif isinstance(record.event, ToolReplied):
            found[record.event.step] = begun
    return found


def _conversation(records: list[Record]) -> tuple[str, list[RecordedCall | Note]]:
    """What a model was told first, then each call with its reply and with what the proposer thought before it.

    What a model was told in between and no tool said, and what it said after its last call, are notes.
    """
    prompt = ""
    entries: list[RecordedCall | Note] = []
    step, begun = 0, _begun(records)
    for exchange in exchanges(record.event.model_dump() for record in records):
        contents: list[Fields] = [proposal["content"] for proposal in exchange.proposals]
        for content in contents:
            told = [str(text) for text in content.get("sent") or ()]
            if told and not prompt:
                prompt = "\n\n".join(told)
            else:
                entries += [Note("user", text, step) for text in told]
        said, thinking, model_called = _thoughts(contents)
        if (call := exchange.call) is None:
            entries.append(Note("assistant", said, step, thinking, model_called))
            continue
        step, reply = call["step"], exchange.reply
        entries.append(
            RecordedCall(
                step=step,
                tool=call["tool"],
                arguments=call["arguments"],
                recorded=None if reply is None else reply["reply"],
                thinking=thinking,
                said=said,
                model_called=model_called,
                region_sha256=None if reply is None else reply["region_sha256"],
                begun=begun.get(step) if call["tool"] == "test" else None,
            )
        )
    return prompt, entries


def _thoughts(contents: list[Fields]) -> tuple[str, str, bool]:
    """What was said and thought before a call, and whether a language model was asked for it."""
    said, thinking, model_called = [], [], False
    for content in contents:
        message: Fields | None = content.get("message")
        if message is None:
            said.append(json.dumps(content, ensure_ascii=False))
            continue
        model_called = True
        said.append(str(message.get("content") or ""))
        thinking.append(str(message.get("reasoning_content") or message.get("reasoning") or ""))
    return "\n".join(filter(None, said)), "\n".join(filter(None, thinking)), model_called
