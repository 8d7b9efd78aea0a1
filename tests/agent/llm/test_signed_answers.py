"""Answers with parts that must come back unchanged, and servers that refuse their own model's answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent.llm.answers import WireCall, parse_answer
from agent.llm.calls import calls_in_text
from tests.agent.llm_servers import GOOD, SAID, BadServer, Reply, client, completion, error, proposals, search_with

HELLO = [{"role": "system", "content": "be good"}, {"role": "user", "content": "hello"}]
TOOLS: list[dict[str, Any]] = [{"type": "function", "function": {"name": "view", "parameters": {"type": "object"}}}]
SIGNATURE = {"google": {"thought_signature": "EjQKMgEMOdbHJChL" * 40}}
TURNS = [
    [("rewrite", {"content": GOOD.format(gain=1.0)}), ("test", {})],
    [("view", {})],
    [("submit", {"n": 1})],
]


def turn(request: dict[str, Any]) -> Reply:
    """The next answer of a model that tests and submits, without signatures."""
    said = sum(message["role"] == "assistant" for message in request["messages"])
    return completion("", *TURNS[min(said, 2)])


def changed(reply: Reply, change: Any) -> Reply:
    """A completion whose message was changed in place."""
    body = json.loads(reply.body)
    change(body["choices"][0]["message"])
    return Reply(json.dumps(body).encode())


def gemini(request: dict[str, Any]) -> Reply:
    """Google's endpoint for Gemini 3, and Vertex: the first call of an answer is signed."""
    for message in request["messages"]:
        for call in message.get("tool_calls", [])[:1]:
            if call.get("extra_content") != SIGNATURE:
                return error(400, "Function call is missing a thought_signature in functionCall parts.")
    return changed(turn(request), lambda message: message["tool_calls"][0].update(extra_content=SIGNATURE))


def litellm(request: dict[str, Any]) -> Reply:
    """A gateway that hides the signature in the id of the call."""
    ids = ["call_1__thought__" + "x" * 1000, "call_2"]
    for message in request["messages"]:
        if any(call["id"] not in ids for call in message.get("tool_calls", [])):
            return error(400, "Thought signature is not valid")

    def sign(message: dict[str, Any]) -> None:
        for call, identity in zip(message["tool_calls"], ids, strict=False):
            call["id"] = identity

    return changed(turn(request), sign)


def openrouter(request: dict[str, Any]) -> Reply:
    """A router that wants the encrypted thoughts of every answer with calls."""
    details = [{"type": "reasoning.encrypted", "data": "opaque", "format": "x-v1", "index": 0}]
    for message in request["messages"]:
        if message["role"] == "assistant" and message.get("reasoning_details") != details:
            return error(400, "Expected `thinking`, but found `tool_use`.")
    return changed(turn(request), lambda message: message.update(reasoning_details=details))


@pytest.mark.parametrize("server_of", [gemini, litellm, openrouter])
def test_signatures_come_back(server_of: Any, tmp_path: Path) -> None:
    """The second question was refused: the search went on without tools, or ended as `api`."""
    with BadServer(server_of) as server:
        end, on = search_with(tmp_path / "whole", client(server.url))
        assert (end.status, on.submitted) == ("submitted", 1)
        assert all("tools" in request for request in server.requests)
        asked = len(server.requests)
        assert asked == 3
        lines = (tmp_path / "whole" / "events.jsonl").read_text().splitlines(keepends=True)
        second = [number for number, line in enumerate(lines, 1) if '"kind": "proposal"' in line][1]
        (tmp_path / "cut").mkdir()
        (tmp_path / "cut" / "events.jsonl").write_text("".join(lines[:second]))
        assert search_with(tmp_path / "cut", client(server.url))[0] == end  # the log keeps them, too
        assert len(server.requests) == asked + 1
    assert len(proposals(tmp_path / "cut")) == 3


def test_fields_that_are_no_signatures_stay_away() -> None:
    """Only known fields come back, and none that is longer than a region."""
    call = {"id": "1", "type": "function", "function": {"name": "view", "arguments": "{}"}}
    for extra, kept in (
        ({"extra_content": {"a": 1}, "other": 2}, {"extra_content": {"a": 1}}),
        ({"extra_content": "x" * 70_000}, {}),
    ):
        body = {"choices": [{"message": {"content": "", "tool_calls": [{**call, **extra}]}}]}
        (wire,) = parse_answer(json.dumps(body), sent_characters=1).calls
        assert wire == WireCall("1", "view", "{}", kept)
        assert (
            "extra" in parse_answer(json.dumps(body), sent_characters=1).as_content()["message"]["tool_calls"][0]
            or not kept
        )


def test_signatures_in_an_answer_that_was_streamed_unasked() -> None:
    """They stand in the first part of the call."""
    part = {"index": 0, "id": "1", "function": {"name": "view", "arguments": "{}"}, "extra_content": SIGNATURE}
    events = [{"choices": [{"delta": {"tool_calls": [part]}}]}, {"choices": [{"delta": {}, "finish_reason": "stop"}]}]
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n"
    (wire,) = parse_answer(body, sent_characters=1).calls
    assert wire.extra == {"extra_content": SIGNATURE}


def test_calls_in_a_later_choice() -> None:
    """Some gateways send the text as one choice and the calls as the next: the calls were lost."""
    parts = [completion("I look.").body, completion(None, ("view", {})).body]
    choices = [json.loads(part)["choices"][0] for part in parts]
    answer = parse_answer(json.dumps({"choices": choices}), sent_characters=1)
    assert (answer.text, [call.name for call in answer.calls]) == ("I look.", ["view"])


@pytest.mark.parametrize(
    ("written", "calls"),
    [
        ('<function=submit>{"n": 1}</function>', [("submit", {"n": 1})]),
        ('```\n{"tool_calls": [{"name": "submit", "parameters": {"n": 1}}]}\n```', [("submit", {"n": 1})]),
        ("Tool use failed: JSON does not match the expected schema for tool calls", []),
        ("", []),
    ],
)
def test_an_answer_that_its_own_server_refuses(written: str, calls: list[Any]) -> None:
    """Groq answers 400 where its model writes no proper call. It is an answer: read, or explained to the model."""
    body = {"message": "Failed to call a function.", "code": "tool_use_failed", "failed_generation": written}
    with BadServer(Reply(json.dumps({"error": body}).encode(), 400)) as server:
        answer = client(server.url).complete(HELLO, TOOLS)
    assert [(call.tool, dict(call.arguments)) for call in calls_in_text(answer.text, code=False)] == calls
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("message", "written"),
    [
        ("error parsing tool call: raw='{\"content\": \"it's\"]', err=invalid character ']'", '{"content": "it\'s"]'),
        ("Failed to parse input at pos 4: <tool_call>x", "<tool_call>x"),
    ],
)
def test_an_answer_that_a_local_server_cannot_parse(message: str, written: str) -> None:
    """Ollama and llama.cpp answer 500: the search went on without tools, or asked five times for the same."""
    with BadServer(error(500, message)) as server:
        assert client(server.url).complete(HELLO, TOOLS).text == written
    assert len(server.requests) == 1


def test_thoughts_beside_an_answer_that_a_template_refuses() -> None:
    """gpt-oss's template takes content or thoughts with calls, not both: the search went on without tools."""

    def template(request: dict[str, Any]) -> Reply:
        if any(message.get("reasoning_content") and message.get("content") for message in request["messages"]):
            return error(400, "Cannot pass both content and thinking in an assistant message with tool calls!")
        return completion("fine")

    with BadServer(template) as server:
        assert client(server.url).complete([*HELLO, SAID], TOOLS).text == "fine"
    assert "tools" in server.requests[-1]


@pytest.mark.parametrize(
    "words",
    [
        "messages: text content blocks must be non-empty",
        "The text field in the ContentBlock object at messages.1.content.0 is blank. Add text to the text field.",
        "Invalid request: the message at position 2 with role 'assistant' must not be empty",
        "messages.2.content: String should have at least 1 character",
    ],
)
def test_calls_without_a_text_where_a_server_wants_one(words: str) -> None:
    """An answer of calls alone has no text, and went back so."""

    def strict(request: dict[str, Any]) -> Reply:
        full = all(str(message.get("content") or "").strip() for message in request["messages"])
        return completion("fine") if full else error(400, words)

    call = {"id": "1", "type": "function", "function": {"name": "view", "arguments": "{}"}}
    with BadServer(strict) as server:
        asked = client(server.url)
        said = {"role": "assistant", "content": "", "tool_calls": [call]}
        assert asked.complete([*HELLO, said], TOOLS).text == "fine"
        assert asked.complete([*HELLO, said], TOOLS).text == "fine"
    assert len(server.requests) == 3
    assert server.requests[-1]["messages"][-1]["content"] == "(no text)"


@pytest.mark.parametrize(
    "words",
    [
        "parameter.enable_thinking must be set to false for non-streaming calls",
        "enable thinking can not be support when `stream=False`.",
        "Stream must be set to true",
        "parameter.enable_thinking必须设置为false才能进行非流式调用",
    ],
)
def test_a_server_that_only_streams(words: str) -> None:
    """Qwen's thinking models at DashScope and some gateways refused every question."""
    event = {"choices": [{"delta": {"content": "fine"}, "finish_reason": "stop"}]}
    streamed = Reply(f"data: {json.dumps(event)}\n\ndata: [DONE]\n\n".encode())

    def only_streams(request: dict[str, Any]) -> Reply:
        return streamed if request.get("stream") else error(400, words)

    with BadServer(only_streams) as server:
        asked = client(server.url)
        assert [asked.complete(HELLO, None).text for _ in range(2)] == ["fine", "fine"]
    assert [request.get("stream") for request in server.requests] == [None, True, True]


def test_a_stream_that_was_asked_for_and_breaks_off() -> None:
    """Half an answer is asked for again."""
    event = {"choices": [{"delta": {"content": "fi"}}]}
    whole = {"choices": [{"delta": {"content": "fine"}, "finish_reason": "stop"}]}
    parts = [Reply(f"data: {json.dumps(one)}\n\n".encode()) for one in (event, whole)]
    with BadServer(error(400, "Stream must be set to true"), *parts) as server:
        assert client(server.url).complete(HELLO, None).text == "fine"
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [400, 500])
def test_ids_that_a_template_refuses(status: int) -> None:
    """Servers make ids that Mistral's template refuses with the next question: the search went on without tools."""
    calls = [{"id": f"call_{n}", "type": "function", "function": {"name": "view", "arguments": "{}"}} for n in (1, 2)]
    said: list[dict[str, Any]] = [{"role": "assistant", "content": "so", "tool_calls": calls}]
    said += [{"role": "tool", "tool_call_id": call["id"], "content": "text"} for call in calls]

    def mistral(request: dict[str, Any]) -> Reply:
        ids = [call["id"] for message in request["messages"] for call in message.get("tool_calls", [])]
        wrong = next((one for one in ids if not (one.isalnum() and len(one) == 9)), None)
        if wrong:
            return error(status, f"Tool call id was {wrong} but must be a-z, A-Z, 0-9, with a length of 9.")
        answered = [message.get("tool_call_id") for message in request["messages"] if message["role"] == "tool"]
        return completion("fine") if answered == ids and len(set(ids)) == 2 else error(400, "Unexpected tool call id")

    with BadServer(mistral) as server:
        assert client(server.url).complete([*HELLO, *said], TOOLS).text == "fine"
    assert len(server.requests) == 2
