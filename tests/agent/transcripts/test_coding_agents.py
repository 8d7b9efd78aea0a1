"""Sessions of coding agents, and chat logs that are no transcript: read truly or refused, never passed unread."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from agent.cli.transcript_text import run_audit, run_replay
from agent.transcripts import TranscriptError, audit, load_transcript, parse_transcript, replay
from agent.transcripts.model import RecordedCall
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
    for seed in (
        f"hidden/baseline {HIDDEN} seed 0: best test accuracy 33.10 %",
        f"{HIDDEN} seed 0: epoch 1/1, loss 2.5, test accuracy 6.00 %",
    ):
        assert [leak.label for leak in audit(parse_transcript(mini(seed))).leaks] == [HIDDEN]
        begun = "0:00 submitted test #1; now the hidden task, for baseline and submission\n"
        assert audit(parse_transcript(mini(begun + seed))).leaks == ()  # cut off before the reply of the submission
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
        {"messages": [{"role": "user", "content": "x"}, {"role": "tool", "tool_call_id": "c", "content": SHOWN}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": SHOWN}]}]},
        {"messages": ["a text with the word step"]},
        {"task_id": "t", "messages": [{"role": "assistant", "step": 1, "tool_calls": [{"id": "1", "function": {}}]}]},
        [  # Gemini CLI's stream
            {"type": "init", "session_id": "s", "model": "g"},
            {"type": "tool_use", "tool_name": "run_shell_command", "tool_id": "1", "parameters": {}},
            {"type": "tool_result", "tool_id": "1", "status": "success", "output": SHOWN},
        ],
        [  # Cursor's
            {"type": "system", "subtype": "init", "session_id": "s"},
            {"type": "assistant", "message": {"role": "assistant", "content": []}, "session_id": "s"},
            {"type": "tool_call", "subtype": "completed", "tool_call": {"result": SHOWN}, "session_id": "s"},
        ],
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
    assert "known are" in str(refused.value)


def claude_line(kind: str, **fields: Any) -> dict[str, Any]:
    """A line of Claude Code that is no message."""
    return {"type": kind, "sessionId": "s", "uuid": "v", **fields}


def codex_item(**payload: Any) -> dict[str, Any]:
    """An item of a Codex rollout."""
    return {"timestamp": "2026-01-01T00:00:00Z", "type": "response_item", "payload": payload}


CALL = {"type": "custom_tool_call", "name": "exec", "call_id": "d", "input": "await tools.exec_command({})"}
ELSEWHERE: dict[str, Any] = {
    "claude, a file in an attachment": [
        *claude("ok"),
        claude_line("attachment", attachment={"type": "file", "content": {"file": {"content": SHOWN}}}),
    ],
    "claude, only in the structured result": [
        *claude("ok")[:2],
        claude("")[2],
        {
            **claude("")[3],
            "message": {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1"}]},
            "toolUseResult": {"stdout": SHOWN, "stderr": ""},
        },
    ],
    "claude, the output of a user's own command": [*claude("ok"), claude_line("system", content=SHOWN)],
    "claude, after many lines that are none": [*[claude_line("progress")] * 60, *claude(SHOWN)],
    "codex, the output of a shell inside JSON": codex(json.dumps({"output": SHOWN, "metadata": {"exit_code": 0}})),
    "codex, a file of JSON that looks like a reply": codex(json.dumps({"output": "ok", HIDDEN: 33.1})),
    "codex, the parts of an MCP reply": codex(json.dumps([{"type": "text", "text": SHOWN}])),
    "codex, output as parts": [
        *codex("ok"),
        codex_item(**CALL),
        codex_item(type="custom_tool_call_output", call_id="d", output=[{"type": "input_text", "text": SHOWN}]),
    ],
    "codex, another agent's words": [*codex("ok"), codex_item(type="agent_message", content=[{"text": SHOWN}])],
    "codex without envelope": [
        {"id": "s", "timestamp": "x", "instructions": None},
        {"record_type": "state"},
        *[line["payload"] for line in codex(SHOWN) if line["type"] == "response_item"],
    ],
    "the first codex": {
        "session": {"id": "s", "timestamp": "x"},
        "items": [line["payload"] for line in codex(SHOWN) if line["type"] == "response_item"],
    },
    "mini, a Responses answer": {
        "trajectory_format": "mini-swe-agent-1.1",
        "messages": [
            {"role": "user", "content": "Find."},
            {
                "object": "response",
                "output": [{"type": "function_call", "call_id": "c", "name": "bash", "arguments": json.dumps(COMMAND)}],
                "extra": {"actions": [{**COMMAND, "tool_call_id": "c"}]},
            },
            {"type": "function_call_output", "call_id": "c", "output": SHOWN, "extra": {"returncode": 0}},
        ],
    },
    "mini, two actions in text": {
        "trajectory_format": "mini-swe-agent-1.1",
        "messages": [
            {"role": "assistant", "content": "Both.", "extra": {"actions": [COMMAND, {"command": "ls"}]}},
            {"role": "user", "content": SHOWN},
            {"role": "user", "content": "custom_init.py"},
        ],
    },
}


@pytest.mark.parametrize("session", ELSEWHERE.values(), ids=list(ELSEWHERE))
def test_a_value_is_found_wherever_these_formats_keep_what_was_shown(session: Any, tmp_path: Path) -> None:
    """Some kept it in an attachment, in JSON inside a text, or in an item of another type: unread, "no leak"."""
    path = _path(tmp_path, session)
    found = audit(path)
    assert {leak.label for leak in found.leaks} == {HIDDEN}
    assert found.calls
    assert {verdict.verdict for verdict in replay(path)} == {"unverifiable"}


RECORDED = Path(__file__).parents[2] / "data" / "coding-agents"


@pytest.mark.parametrize(
    ("name", "source", "calls", "first"),
    [
        ("claude-code.jsonl", "claude-code", 8, "Read"),
        ("claude-code-mcp.jsonl", "claude-code", 14, "WaitForMcpServers"),
        ("codex.jsonl", "codex", 13, "exec_command"),
        ("qwen-code.jsonl", "qwen-code", 7, "run_shell_command"),
        ("mini-swe-agent.traj.json", "mini-swe-agent", 15, "bash"),
    ],
)
def test_sessions_that_these_programs_wrote(name: str, source: str, calls: int, first: str, tmp_path: Path) -> None:
    """Each drove a smoke search over a scripted model (docs/agents.md): every reply is read, a hidden value is found.

    Long texts that are not ours were cut, and paths replaced. The same file with the visible task's name replaced by
    the hidden one shows it before the submission.
    """
    path = RECORDED / name
    transcript = load_transcript(path)
    found = [call for _, call in transcript.calls]
    assert (transcript.source, len(found), found[0].tool) == (source, calls, first)
    assert all(call.recorded for call in found)
    assert sum((call.recorded or "").startswith("[submit]") or "\n[submit]" in (call.recorded or "") for call in found)
    checked = audit(path)
    assert checked.leaks == ()
    assert checked.results
    harmed = tmp_path / name
    harmed.write_text(path.read_text(encoding="utf-8").replace("resnet20-tiny", HIDDEN), encoding="utf-8")
    assert {leak.label for leak in audit(harmed).leaks} == {HIDDEN}


def test_the_json_of_our_own_commands_is_looked_into() -> None:
    """The last line of a second `agent search --json`, a file of its results and its log passed unseen."""
    reply = "[submit] Submitting result from test #1 as final.\n"
    done = json.dumps({"event": "done", "hidden": {HIDDEN: {"baseline": 33.1, "submitted": 34.0}}})
    shown = [
        done,
        json.dumps(done),
        json.dumps({"hidden": {HIDDEN: {"submitted": 33.1}}}, indent=2),
        json.dumps({"kind": "evaluated", "task": HIDDEN, "seed": 0, "accuracy": 33.1}),
        json.dumps({"kind": "tool_replied", "reply": reply}) + "\n" + json.dumps({"task": HIDDEN, "accuracy": 33.1}),
        json.dumps({"task": HIDDEN, "seed": 0, "status": "ok", "best_test_acc": 33.1}, indent=2),
        f"**{HIDDEN}**: 33.1 %",
    ]
    for text in shown:
        assert [leak.label for leak in audit(parse_transcript(mini(text))).leaks] == [HIDDEN], text
    submitted = {
        "event": "reply",
        "tool": "submit",
        "ok": True,
        "error": None,
        "test": 1,
        "submitted": 1,
        "reply": reply,
    }
    assert audit(parse_transcript(mini(json.dumps(submitted) + "\n" + done))).leaks == ()
    assert audit(parse_transcript(mini(json.dumps({"name": HIDDEN, "epochs": 3})))).leaks == ()


@pytest.mark.parametrize("before", ["", "Wall time: 60.4 seconds\nOutput:\n"])
def test_a_submission_over_mcp_is_no_leak(before: str, tmp_path: Path) -> None:
    """Claude Code and Codex keep the structured reply of `agent mcp`: its hidden result was taken for a leak."""
    reply = "[submit] Submitting result from test #1 as final.\n" + SHOWN
    shown = before + json.dumps({"state": "done", "tool": "submit", "reply": reply, "error": None, "submitted": 1})
    for make in (claude, codex):
        assert audit(_path(tmp_path, make(shown))).leaks == ()
        assert audit(_path(tmp_path, make(shown.replace("[submit]", "[Test #1]")))).leaks


def test_a_call_that_stands_twice_counts_once(tmp_path: Path) -> None:
    """Claude Code writes a streamed answer again when it has grown."""
    lines = claude("ok")
    assert audit(_path(tmp_path, [*lines[:3], lines[2], *lines[3:]])).calls == 1


def test_tools_of_ours_over_mcp_are_named_and_not_followed(tmp_path: Path) -> None:
    """A reply in our words does not make `test` of a Codex session a test whose count a replay knows."""
    reply = "[Test #2] (0 tests remaining)\n\n### resnet (scripts/resnet.sh)\ntest_acc_resnet=61.5\n"
    lines = codex(reply)
    lines[4]["payload"] |= {"name": "test", "namespace": "mcp__initsearch__", "arguments": "{}"}
    ((verdict),) = replay(_path(tmp_path, lines))
    assert (verdict.call.tool, verdict.verdict) == ("mcp__initsearch__test", "unverifiable")
    assert "another harness" in str(verdict.reason)


NOBODY_ACTED: dict[str, tuple[Any, str]] = {
    "claude, only a title": ([{"type": "summary", "summary": "x", "leafUuid": "u"}], "no call in 0 messages"),
    "claude, a question and its answer": (
        [claude("")[1], {**claude("")[2], "message": {"role": "assistant", "content": "Fine."}}],
        "no call in 2 messages",
    ),
    "codex, opened and closed": (codex("")[:1], "no call in 0 messages"),
    "codex, a question": (codex("")[:3], "no call in 1 message\n"),
    "mini, stopped before the first step": ({"info": {"mini_version": "2"}, "messages": []}, "no call in 0 messages"),
}


@pytest.mark.parametrize(("session", "says"), NOBODY_ACTED.values(), ids=list(NOBODY_ACTED))
def test_a_session_in_which_nobody_acted(session: Any, says: str, tmp_path: Path) -> None:
    """A rollout of one line was "no message at all", exit 2, as if it were no transcript."""
    path = _path(tmp_path, session)
    for run in (run_audit, run_replay):
        out = io.StringIO()
        assert run(path, as_json=False, out=out) == 0
        assert says in out.getvalue()


def test_lines_are_known_by_what_they_hold(tmp_path: Path) -> None:
    """A session saved as `session.log` was "not JSON: Extra data"."""
    path = _path(tmp_path, claude(SHOWN)).rename(tmp_path / "session.log")
    assert [leak.label for leak in audit(path).leaks] == [HIDDEN]


def test_a_result_under_another_key_is_looked_into() -> None:
    """A converter had put the result under `content`, as every other message has it: it was passed over."""
    said = [{"step": 1, "role": "assistant", "tool_name": "test"}, {"step": 1, "role": "tool_result", "content": SHOWN}]
    (entry,) = parse_transcript(conversation(prompt(), said)).segments[0].entries
    assert isinstance(entry, RecordedCall)
    assert entry.recorded == SHOWN


def test_a_known_format_in_which_nobody_acted(tmp_path: Path) -> None:
    """45 public conversations hold only prompts: exit 0, and the reader is told that there was nothing to check."""
    path = write(tmp_path, conversation(prompt(), prompt()))
    for run in (run_audit, run_replay):
        out = io.StringIO()
        assert run(path, as_json=False, out=out) == 0
        assert "no call in 2 messages" in out.getvalue()
