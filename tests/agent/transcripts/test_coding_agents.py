"""Sessions of coding agents, and chat logs that are no transcript: read truly or refused, never passed unread."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from agent.cli.transcript_text import run_audit, run_replay
from agent.transcripts import TranscriptError, audit, load_transcript, parse_transcript, replay
from tests.agent.transcript_samples import conversation, prompt, write

HIDDEN = "mobilenetv2-tiny"
SHOWN = f"### resnet (scripts/resnet.sh)\ntest_acc_resnet=61.5\ntest_acc_{HIDDEN}=33.10\n"
COMMAND = {"command": "python -m train"}


def claude(shown: str) -> list[dict[str, Any]]:
    """A session of Claude Code with one call of its shell."""

    def line(kind: str, content: Any) -> dict[str, Any]:
        message = {"role": kind, "content": content, **({"model": "claude-x"} if kind == "assistant" else {})}
        return {"type": kind, "uuid": "u", "parentUuid": None, "sessionId": "s", "message": message}

    use = {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": COMMAND}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": shown}]}
    return [
        {"type": "summary", "summary": "x", "leafUuid": "u"},
        line("user", "Find a better init."),
        line("assistant", [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "I try."}, use]),
        line("user", [result]),
        {"type": "file-history-snapshot", "snapshot": {}},
    ]


def codex(shown: str) -> list[dict[str, Any]]:
    """A rollout of Codex with one call."""

    def item(**payload: Any) -> dict[str, Any]:
        return {"timestamp": "2026-01-01T00:00:00Z", "type": "response_item", "payload": payload}

    return [
        {"type": "session_meta", "payload": {"id": "s", "cwd": "/x"}},
        {"type": "turn_context", "payload": {"model": "gpt-x"}},
        item(type="message", role="user", content=[{"type": "input_text", "text": "Find a better init."}]),
        item(type="reasoning", summary=[{"type": "summary_text", "text": "hm"}]),
        item(type="function_call", name="shell", call_id="c", arguments=json.dumps(COMMAND)),
        item(type="function_call_output", call_id="c", output=shown),
        {"type": "event_msg", "payload": {"type": "agent_message", "message": "done"}},
    ]


def mini(shown: str, *, tools: bool = True) -> dict[str, Any]:
    """A trajectory of mini-swe-agent with one command."""
    call = [{"id": "c", "type": "function", "function": {"name": "bash", "arguments": json.dumps(COMMAND)}}]
    said = {"role": "assistant", "content": "", "tool_calls": call} if tools else {}
    block = {"role": "assistant", "content": "I try.\n\n```bash\npython -m train\n```"}
    answer = {"role": "tool", "tool_call_id": "c", "content": shown} if tools else {"role": "user", "content": shown}
    messages = [{"role": "system", "content": "You."}, {"role": "user", "content": "Find."}, said or block, answer]
    return {"trajectory_format": "mini-swe-agent-1.1", "info": {"mini_version": "2"}, "messages": messages}


def _path(folder: Path, document: Any) -> Path:
    path = folder / ("session.jsonl" if isinstance(document, list) else "one.traj.json")
    lines = document if isinstance(document, list) else [document]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    return path


SESSIONS = {"claude": claude, "codex": codex, "mini": mini, "older mini": lambda shown: mini(shown, tools=False)}


@pytest.mark.parametrize("make", SESSIONS.values(), ids=list(SESSIONS))
def test_a_session_is_audited_and_its_tools_are_not_followed(make: Any, tmp_path: Path) -> None:
    """A hidden value in a shell's output passed unseen: "0 calls", exit 0."""
    path = _path(tmp_path, make(SHOWN))
    transcript = load_transcript(path)
    ((_, call),) = transcript.calls
    assert (call.recorded, dict(call.arguments)["command"]) == (SHOWN, COMMAND["command"])
    assert [leak.label for leak in audit(path).leaks] == [HIDDEN]
    ((verdict),) = replay(path)
    assert verdict.verdict == "unverifiable"
    assert "another harness" in str(verdict.reason)
    assert audit(_path(tmp_path, make(SHOWN.replace(HIDDEN, "resnet")))).leaks == ()


def test_the_name_with_a_number_in_any_form() -> None:
    """A result file that was printed shows the value without our words."""
    for text in (f'{{"{HIDDEN}": {{"0": 33.1}}}}', f"{HIDDEN}   33.10 %", f"| {HIDDEN} | 33.1"):
        assert [leak.label for leak in audit(parse_transcript(mini(text))).leaks] == [HIDDEN]
    after = mini("[submit] Submitting result from test #1 as final.\n" + SHOWN)
    assert audit(parse_transcript(after)).leaks == ()
    assert audit(parse_transcript(mini(f"{HIDDEN} is no number"))).leaks == ()


def test_tools_of_another_harness_in_atif() -> None:
    """`bash` and `mcp__lab__test` were compared with "Unknown tool", and their texts not looked into."""
    results = [{"source_call_id": "a", "content": SHOWN}, {"source_call_id": "b", "content": "[Test #1] ok"}]
    calls = [
        {"tool_call_id": "a", "function_name": "bash", "arguments": COMMAND},
        {"tool_call_id": "b", "function_name": "mcp__lab__test", "arguments": {}},
    ]
    step = {"step_id": 2, "source": "agent", "message": "", "tool_calls": calls, "observation": {"results": results}}
    steps = [{"step_id": 1, "source": "user", "message": "Find."}, step]
    document = {"schema_version": "ATIF-v1.6", "agent": {"name": "x", "version": "1"}, "steps": steps}
    transcript = parse_transcript(document)
    assert [verdict.verdict for verdict in replay(transcript)] == ["unverifiable", "unverifiable"]
    assert [leak.label for leak in audit(transcript).leaks] == [HIDDEN]


@pytest.mark.parametrize(
    "document",
    [
        {"messages": [{"role": "user", "content": SHOWN}, {"role": "assistant", "content": "Fine."}]},
        {"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": SHOWN}]},
        [{"type": "a", "text": SHOWN}, {"type": "b"}],
        [{"role": "user", "content": SHOWN}],
    ],
)
def test_a_chat_log_is_no_transcript(document: Any, tmp_path: Path) -> None:
    """Any JSON with messages counted as ours and passed the audit with "0 calls"."""
    path = _path(tmp_path, document)
    with pytest.raises(TranscriptError) as refused:
        load_transcript(path)
    assert refused.value.exit_code == 2
    assert str(path) in str(refused.value)


def test_a_known_format_in_which_nobody_acted(tmp_path: Path) -> None:
    """45 public conversations hold only prompts: exit 0, and the reader is told that there was nothing to check."""
    path = write(tmp_path, conversation(prompt(), prompt()))
    for run in (run_audit, run_replay):
        out = io.StringIO()
        assert run(path, as_json=False, out=out) == 0
        assert "no call in 2 messages" in out.getvalue()
