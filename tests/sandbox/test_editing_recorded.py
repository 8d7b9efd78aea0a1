"""The editing machine against what another harness really answered, in the public conversations."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from sandbox.editing import Dialect, Editor, Reply
from sandbox.lines import EditableFile, Range

FOLDER = Path(__file__).resolve().parents[2] / "../shared/transcripts/mls-bench"
CUT = "\n... (truncated)"

pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="the recorded conversations (../shared/transcripts) are absent"
)


def _files(prompt: str) -> list[EditableFile]:
    files = []
    for heading in re.finditer(r"^## (.+?)  \[EDITABLE — (.+) only\]\n```\w*\n", prompt, re.MULTILINE):
        ranges = [Range(int(first), int(last)) for first, last in re.findall(r"lines (\d+)–(\d+)", heading[2])]
        body = prompt[heading.end() :].split("\n```", 1)[0]
        files.append(EditableFile(heading[1], [line.split(": ", 1)[1] for line in body.split("\n")], ranges))
    return files


def _calls() -> list[tuple[str, Editor, dict[str, Any], str]]:
    """Every recorded edit and undo before the first one whose own text was cut, segment by segment."""
    found = []
    for path in sorted(FOLDER.glob("*.json")):
        machine, call, known = Editor.of(dialect=Dialect.RECORDED), {}, True
        for message in json.loads(path.read_text(encoding="utf-8"))["messages"]:
            if message["role"] == "user" and message["step"] == 0:
                machine, known = Editor.of(*_files(message["content"]), dialect=Dialect.RECORDED), True
            elif message["role"] == "assistant":
                call = message
            elif call.get("tool_name") in ("edit", "undo"):
                known = known and not str((call["tool_input"] or {}).get("content")).endswith(CUT)
                if known:
                    found.append((f"{path.stem}, step {call['step']}", machine, call, message["result"]))
    return found


def test_every_uncut_recorded_reply_is_ours_to_the_letter() -> None:
    """Replayed in order, each reply equals the recorded one, or begins with it where the record was cut."""
    calls = _calls()
    for where, machine, call, recorded in calls:
        arguments = call.get("tool_input") or {}
        reply: Reply = machine.undo(arguments.get("n", 1)) if call["tool_name"] == "undo" else machine.edit(arguments)
        if recorded.endswith(CUT):
            assert reply.text.startswith(recorded.removesuffix(CUT)), where
        else:
            assert reply.text == recorded, where
    assert len(calls) >= 50
    assert sum(recorded.startswith("ERROR") for *_, recorded in calls) >= 8
