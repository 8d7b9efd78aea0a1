"""Servers that call themselves OpenAI-compatible, over real HTTP: every failure is survived or ends typed."""

from __future__ import annotations

import itertools
import json
import time
from dataclasses import replace
from typing import Any

import pytest

from agent.llm.client import ChatClient
from agent.llm.errors import AccessRefused, ContextExceeded, ModelUnknown, OutOfTime, ServerFailed, ToolsRefused
from agent.llm.prompting import tools
from agent.llm.retry_after import asked_to_wait
from tests.agent.llm_servers import KEY, SAID, BadServer, Reply, client, completion, error, settings

HELLO = [{"role": "user", "content": "hello"}]
TOOLS = tools()


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(Reply(b"<html><body>Bad gateway</body></html>"), id="html with status 200"),
        pytest.param(Reply(b""), id="empty body"),
        pytest.param(Reply(b'{"error": {"message": "overloaded", "code": 502}}'), id="error body with status 200"),
        pytest.param(Reply(b'{"choices": null}'), id="choices null"),
        pytest.param(Reply(b'{"choices": []}'), id="no choices"),
        pytest.param(Reply(b'{"choices": [{"message": null}]}'), id="message null"),
        pytest.param(Reply(b'{"choices": [{"message": {"conte'), id="cut JSON"),
        pytest.param(Reply(b"[" * 100_000), id="nested too deeply"),
        pytest.param(Reply(b"\xff\xfe\x00"), id="not UTF-8"),
        pytest.param(Reply(completion("x").body, cut=True), id="connection dropped in the body"),
        pytest.param(Reply(hang_up=True), id="connection closed without an answer"),
        pytest.param(error(500, "boom"), id="500"),
        pytest.param(error(503, "busy", Retry_After="0"), id="503 with Retry-After"),
        pytest.param(error(429, "slow down", Retry_After="0.01"), id="429 with Retry-After"),
        pytest.param(error(408, "timeout"), id="408"),
        pytest.param(error(500, "limit of connections exceeded"), id="500 with a limit that is not the context's"),
        pytest.param(Reply(b'{"choices": [{"error": {"message": "provider down"}}]}'), id="error in a choice"),
        pytest.param(completion("half", finish_reason="error"), id="finish_reason error"),
        pytest.param(completion("", usage=None), id="an empty answer without usage"),
        pytest.param(completion("\n", usage={"prompt_tokens": 0, "completion_tokens": 0}), id="nothing, counted as 0"),
        pytest.param(completion("", error={"message": "provider down"}), id="error in a message"),
        pytest.param(Reply(b'data: {"choices": [{"delta": {"content": "cut"}}]}\n\n'), id="a stream that breaks off"),
    ],
)
def test_bad_luck_is_tried_again(bad: Reply) -> None:
    """Whatever goes wrong once with the server, the next attempt gets the answer, and a person reads why it took."""
    said: list[str] = []
    with BadServer(bad, bad, completion("fine")) as server:
        answer = client(server.url, said=said).complete(HELLO, None)
    assert (answer.text, len(server.requests)) == ("fine", 3)
    assert len(said) == 2
    assert all("asking again" in line for line in said)


def test_bad_luck_for_ever_ends_typed() -> None:
    """A server that is broken for good is asked five times, then its last words are told."""
    with BadServer(Reply(b"<html>maintenance</html>")) as server, pytest.raises(ServerFailed) as failed:
        client(server.url).complete(HELLO, None)
    assert len(server.requests) == 5
    assert "<html>maintenance</html>" in str(failed.value)


def test_server_that_is_down() -> None:
    """Nobody listens at the address: said with the address, after a few attempts."""
    with BadServer(completion("x")) as server:
        url = server.url
    with pytest.raises(ServerFailed, match="no connection") as failed:
        client(url).complete(HELLO, None)
    assert url in str(failed.value)


@pytest.mark.parametrize("slow", [Reply(completion("x").body, delay=3.0), Reply(completion("x").body, drip=0.05)])
def test_deadline_holds_however_the_server_is_slow(slow: Reply) -> None:
    """A server that sends a byte now and then does not get round the deadline: the wall clock counts, not each read."""
    start = time.monotonic()
    with BadServer(slow, completion("fine")) as server:
        answer = client(server.url, request_seconds=0.5).complete(HELLO, None)
        assert time.monotonic() - start < 2.5
    assert answer.text == "fine"


def test_retry_after_is_honoured_up_to_a_cap() -> None:
    """The server's wish is granted when it is reasonable; an hour is not waited for."""
    start = time.monotonic()
    with BadServer(error(429, "slow down", Retry_After="0.6"), completion("fine")) as server:
        client(server.url).complete(HELLO, None)
    assert time.monotonic() - start >= 0.6
    with BadServer(error(429, "slow down", Retry_After="3600")) as server:
        with pytest.raises(ServerFailed, match="3600 s"):
            client(server.url).complete(HELLO, None)
        assert len(server.requests) == 1


def test_search_time_bounds_the_waiting() -> None:
    """With a limit on the search's wall time, an answer is not awaited beyond it."""
    end = time.monotonic() + 0.5
    with BadServer(Reply(completion("x").body, delay=5.0)) as server:
        asked = ChatClient(settings(server.url), {}, seconds_left=lambda: end - time.monotonic(), first_wait=0.01)
        with pytest.raises(OutOfTime):
            asked.complete(HELLO, None)
    assert time.monotonic() - end < 1.5


def test_endless_answer_is_cut_off() -> None:
    """20 MB of blanks are not read to the end."""
    with BadServer(Reply(b" " * (20 << 20)), completion("fine")) as server:
        said: list[str] = []
        assert client(server.url, said=said).complete(HELLO, None).text == "fine"
    assert "more than" in said[0]


@pytest.mark.parametrize(
    ("refusal", "expected"),
    [
        (error(401, "Incorrect API key provided"), AccessRefused),
        (error(403, "not allowed"), AccessRefused),
        (error(404, "The model `tiny` does not exist"), ModelUnknown),
        (error(429, "You exceeded your current quota", code="insufficient_quota"), ServerFailed),
        (error(402, "Insufficient credits"), ServerFailed),
        (error(400, "messages: something is wrong"), ServerFailed),
    ],
)
def test_refusals_are_not_tried_again(refusal: Reply, expected: type[Exception]) -> None:
    """A refusal that another attempt cannot change is told at once, under its own type."""
    with BadServer(refusal) as server, pytest.raises(expected) as raised:
        client(server.url).complete(HELLO, None)
    assert type(raised.value) is expected
    assert len(server.requests) == 1


def _refuse(*names: str, words: str = "Unsupported parameter: '{name}' is not supported with this model.") -> Any:
    """A server that refuses requests with any of these parameters, naming the first."""

    def reply(request: dict[str, Any]) -> Reply:
        found = next((name for name in names if name in request), None)
        return completion("fine") if found is None else error(400, words.format(name=found))

    return reply


def test_refused_parameters_are_learned_once() -> None:
    """max_tokens, seed and temperature are refused one after the other; the second question provokes none of it."""
    with BadServer(_refuse("max_tokens", "seed", "temperature")) as server:
        asked = client(server.url, temperature=0.5)
        asked.complete(HELLO, None)
        first = len(server.requests)
        asked.complete(HELLO, None)
    assert (first, len(server.requests)) == (4, 5)
    assert set(server.requests[-1]) == {"model", "messages"}


def test_newer_name_of_the_token_limit() -> None:
    """A model that wants max_completion_tokens gets it, with the same value."""
    words = "Unsupported parameter: '{name}'. Use 'max_completion_tokens' instead."
    with BadServer(_refuse("max_tokens", words=words)) as server:
        client(server.url, answer_tokens=77).complete(HELLO, None)
    assert server.requests[-1]["max_completion_tokens"] == 77
    assert "max_tokens" not in server.requests[-1]


@pytest.mark.parametrize(
    "refusal",
    [
        error(400, "This model's maximum context length is 4096 tokens. However, you requested 9000 tokens"),
        error(400, "the request exceeds the available context size, try increasing it"),
        error(500, "context size exceeded"),
        error(400, "The input token count (40000) exceeds the maximum number of tokens allowed (32768)."),
        error(400, "This model's maximum prompt length is 8192 but the request contains 9000 tokens."),
        error(400, "prompt token count of 70000 exceeds the limit of 64000"),
        error(413, "Request too large for model `x` on tokens per minute (TPM): please reduce your message size"),
        error(400, "The prompt is longer than the maximum model length of 4096."),
        error(400, "Range of input length should be [1, 30720]"),
        error(400, "Prompt exceeds max length"),
        error(400, "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000"),
        error(400, "Prompt too long: 5000 exceeds max_seq_len 4096"),
        error(400, "Maximum input length exceeded"),
        error(400, "Your request exceeded model token limit: 262144 (requested: 270000)"),
        error(400, "invalid params, context window exceeds limit (2013)"),
        error(400, "request (8259 tokens) exceeds the available context size (8192 tokens), try increasing it"),
        error(
            400, "Trying to keep the first 4321 tokens when the context overflows. The model has 4096 tokens of context"
        ),
        error(400, "prompt is too long: 210000 tokens > 200000 maximum"),
        error(400, "Input is too long for requested model."),
        error(400, "too many tokens: size limit exceeded by 1234 tokens. Try using shorter or fewer inputs"),
        error(400, "You passed 40961 input tokens. However, the model's context length is only 40960 tokens."),
        error(400, "The input (5000 tokens) is longer than the model's context length (4096 tokens)."),
        error(413, "Request body too large for tiny model. Max size: 8000 tokens.", code="tokens_limit_reached"),
        error(
            429,
            "Request too large for tiny on tokens per min (TPM): Limit 30000, Requested 36055. The input or "
            "output tokens must be reduced in order to run successfully.",
        ),
        Reply(b'{"error": {"message": "Prompt is too long", "code": 400}}'),
    ],
)
def test_context_that_is_too_small(refusal: Reply) -> None:
    """Too long a conversation is told as such, after one try without reserving room for the answer."""
    with BadServer(refusal) as server, pytest.raises(ContextExceeded):
        client(server.url).complete(HELLO, None)
    assert [("max_tokens" in request) for request in server.requests] == [True, False]


@pytest.mark.parametrize(
    "refusal",
    [
        error(400, "tiny does not support tools"),
        error(404, "No endpoints found that support tool use."),
        error(500, "tools param requires --jinja flag"),
        error(400, '"auto" tool choice requires --enable-auto-tool-choice'),
    ],
)
def test_tools_that_are_refused(refusal: Reply) -> None:
    """A server or model without tool calls says so in many words; all mean the portable form."""
    with BadServer(refusal) as server, pytest.raises(ToolsRefused):
        client(server.url).complete(HELLO, TOOLS)


def test_untidy_answers_are_understood() -> None:
    """Null content, parts instead of a text, arguments that are an object, no id, no usage, half a surrogate pair."""
    body = {
        "choices": [
            {
                "message": {
                    "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b\ud800"}],
                    "tool_calls": [{"function": {"name": "test", "arguments": {"n": 1}}}, {"function": None}, "x"],
                    "reasoning": "because",
                }
            }
        ]
    }
    with BadServer(Reply(json.dumps(body).encode())) as server:
        answer = client(server.url).complete(HELLO, TOOLS)
    assert (answer.text, answer.reasoning, answer.reasoning_field) == ("ab?", "because", "reasoning")
    assert [(call.name, json.loads(call.arguments)) for call in answer.calls] == [("test", {"n": 1})]
    assert answer.calls[0].id
    assert answer.usage.estimated
    assert answer.usage.prompt > 0


@pytest.mark.parametrize(
    "part", [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "reasoning", "text": "hm"}]
)
def test_thoughts_among_the_parts_are_reasoning(part: dict[str, Any]) -> None:
    """Mistral's were lost; those of others stood in the answer, where a function in them would have been tested."""
    with BadServer(completion(None, content=[part, {"type": "text", "text": "yes"}])) as server:
        answer = client(server.url).complete(HELLO, None)
    assert (answer.reasoning, answer.text) == ("hm", "yes")


def test_thoughts_in_the_text_are_reasoning() -> None:
    """What stands in <think> tags is kept as reasoning and not taken for the answer."""
    with BadServer(completion("<think>hm</think>\n\nyes")) as server:
        answer = client(server.url).complete(HELLO, None)
    assert (answer.reasoning, answer.text) == ("hm", "yes")


def test_reasoning_is_echoed_where_it_is_wanted() -> None:
    """DeepSeek's reasoning_content goes back with its tool calls; a server that refuses it is not sent it again."""
    said = {**SAID, "content": ""}
    other = {**said, "reasoning_field": "reasoning"}
    with BadServer(completion("fine")) as server:
        client(server.url).complete([said], TOOLS)
        client(server.url).complete([other], TOOLS)
    assert [request["messages"][0].get("reasoning_content") for request in server.requests] == ["thought", None]
    assert all("reasoning_field" not in request["messages"][0] for request in server.requests)
    with BadServer(error(400, "reasoning_content is not allowed in input"), completion("fine")) as server:
        client(server.url).complete([said], TOOLS)
    assert "reasoning_content" not in server.requests[-1]["messages"][0]


def test_key_never_comes_out() -> None:
    """A server that repeats the key in errors and answers does not get it into a message or an answer."""
    said: list[str] = []
    with BadServer(error(500, f"your key {KEY} is odd"), completion(f"key: {KEY}")) as server:
        answer = client(server.url, said=said).complete(HELLO, None)
    assert KEY not in answer.text + "".join(said)
    assert server.keys[-1] == f"Bearer {KEY}"
    wrong = error(401, f"Incorrect API key provided: {KEY[:12]}****cret")
    with BadServer(wrong) as server, pytest.raises(AccessRefused) as refused:
        client(server.url).complete(HELLO, None)
    assert "0123" not in str(refused.value)


@pytest.mark.parametrize("body", [b"", b"{}", b'{"error": {"message": "nope"}}'])
def test_a_longer_question_that_is_refused_is_tried_shorter_once(body: bytes) -> None:
    """Servers have words for a full context that nobody listed, or none: a shorter question had been answered."""
    longer = [*HELLO, {"role": "assistant", "content": "x"}, {"role": "user", "content": "more"}]
    with BadServer(completion("fine"), Reply(body, 400)) as server:
        asked = client(server.url)
        asked.complete(HELLO, None)
        with pytest.raises(ContextExceeded):
            asked.complete(longer, None)
        with pytest.raises(ServerFailed):
            asked.complete(longer, None)
    with BadServer(Reply(body, 413)) as server, pytest.raises(ContextExceeded):
        client(server.url).complete(HELLO, None)


@pytest.mark.parametrize(
    ("said", "headers", "seconds"),
    [
        ("Please retry in 0.31s.", {}, 0.31),
        ('{"error": {"details": [{"retryDelay": "0.32s"}]}}', {}, 0.32),
        ("Rate limit reached. Please try again in 330ms.", {}, 0.33),
        ("slow down", {"Retry_After": "0.34s"}, 0.34),
        ("slow down", {"X_RateLimit_Reset": "0.35"}, 0.35),
        ("slow down", {"X_RateLimit_Reset_Requests": "360ms"}, 0.36),
        ("Please try again in 0m0.37s.", {"Retry_After": "0"}, 0.37),
        ('{"message": "throttled", "retry_after": 0.38}', {}, 0.38),
        ("Request was throttled. Expected available in 0.39 seconds.", {}, 0.39),
    ],
)
def test_waits_are_read_wherever_they_stand(said: str, headers: dict[str, str], seconds: float) -> None:
    """Without a Retry-After of plain seconds the search gave up after 15 s, though the server had said when."""
    told: list[str] = []
    with BadServer(error(429, said, **headers), completion("fine")) as server:
        client(server.url, said=told).complete(HELLO, None)
    assert f"asking again in {seconds:g} s" in told[0]


def test_durations_and_points_in_time() -> None:
    """Reset headers hold seconds, durations, and epochs in seconds or milliseconds."""
    assert asked_to_wait({"x-ratelimit-reset": "1m30s"}, "") == 90
    assert asked_to_wait({"x-ratelimit-reset": "2h0m0.5s"}, "") == 7200.5
    assert asked_to_wait({"x-ratelimit-reset": str(time.time() + 20)}, "") == pytest.approx(20, abs=2)
    assert asked_to_wait({"x-ratelimit-reset": str(1000 * (time.time() + 20))}, "") == pytest.approx(20, abs=2)
    assert asked_to_wait({"retry-after": "20s", "x-ratelimit-reset": "5"}, "retry in 3s") == 20
    assert asked_to_wait({"retry-after": "soon"}, "no idea when") is None
    assert asked_to_wait({}, "Please try again in 7m12.5s.") == 432.5
    in_body = json.dumps({"metadata": {"headers": {"X-RateLimit-Reset": str(int(1000 * (time.time() + 20)))}}})
    assert asked_to_wait({}, in_body) == pytest.approx(20, abs=2)


@pytest.mark.parametrize(
    "busy",
    [
        error(429, "busy"),
        error(429, "retry in 1ms"),
        error(503, "Loading model"),
        Reply(b'{"error": {"message": "Rate limit exceeded", "code": 429}}'),
    ],
)
def test_busy_servers_get_more_patience(busy: Reply) -> None:
    """A model that loads for 20 s was given up after five attempts in 15 s."""
    with BadServer(*[busy] * 7, completion("fine")) as server:
        assert client(server.url).complete(HELLO, None).text == "fine"
    assert len(server.requests) == 8


@pytest.mark.parametrize(
    "busy",
    [
        error(503, "This model is currently experiencing high demand. Spikes in demand are usually temporary."),
        error(503, "The model is overloaded. Please try again later."),
        error(503, "server busy, please try again.  maximum pending requests exceeded"),
        error(498, "flex tier capacity exceeded"),
        error(529, "Overloaded"),
        Reply(b'{"error": {"message": "Provider returned error", "code": 503}}'),
    ],
)
def test_overloaded_servers_get_more_patience(busy: Reply) -> None:
    """Only 429 and "loading" counted as busy: a model in high demand was given up after five attempts in 15 s."""
    with BadServer(*[busy] * 5, completion("fine")) as server:
        assert client(server.url).complete(HELLO, None).text == "fine"


def test_reasoning_that_must_come_back_comes_back() -> None:
    """A 400 that misses reasoning_content switched the echo off, so that every later question was refused, too."""

    def wants_all(request: dict[str, Any]) -> Reply:
        given = [one.get("reasoning_content") for one in request["messages"] if one["role"] == "assistant"]
        if None in given:
            return error(400, "The reasoning_content in the thinking mode must be passed back to the API.")
        return completion("fine") if all(given) else error(400, "reasoning_content is missing: it may not be empty")

    plain = {"role": "assistant", "content": "earlier, shortened"}
    with BadServer(wants_all) as server:
        asked = client(server.url)
        asked.complete([*HELLO, plain, SAID], TOOLS)
        assert [one.get("reasoning_content") for one in server.requests[-1]["messages"]] == [None, " ", "thought"]
        asked.complete([*HELLO, plain], TOOLS)
    assert len(server.requests) == 4


def test_a_server_that_wants_reasoning_and_refuses_it() -> None:
    """Whatever contradictory a server says, the client comes to an end."""

    def contradicts(request: dict[str, Any]) -> Reply:
        given = any("reasoning_content" in one for one in request["messages"])
        return error(400, "reasoning_content is not allowed" if given else "reasoning_content is missing")

    with BadServer(contradicts) as server, pytest.raises(ServerFailed):
        client(server.url).complete([*HELLO, SAID], TOOLS)
    assert len(server.requests) < 8


@pytest.mark.parametrize(
    "words",
    ["{} not provided for an assistant message", "assistant messages need {} while thinking is on", "expected {}"],
)
def test_reasoning_that_is_missed_in_other_words(words: str) -> None:
    """Only "missing" and the like counted: sending none was tried, and the search ended."""

    def wants_all(request: dict[str, Any]) -> Reply:
        given = [one.get("reasoning_content") for one in request["messages"] if one["role"] == "assistant"]
        return completion("fine") if all(given) else error(400, words.format("reasoning_content"))

    with BadServer(wants_all) as server:
        answer = client(server.url).complete([*HELLO, {"role": "assistant", "content": "earlier"}, SAID], TOOLS)
    assert answer.text == "fine"


@pytest.mark.parametrize("status", [400, 500])
@pytest.mark.parametrize(
    "words",
    [
        "This model does not support the system role",
        "Unexpected message role: system",
        "Only user and assistant roles are supported!",
        "Developer instruction is not enabled for models/gemma-3",
        "Role 'system' is not available here",
        "messages[0].role: Input should be 'user' or 'assistant'",
    ],
)
def test_templates_without_a_system_role_in_other_words(words: str, status: int) -> None:
    """These wordings ended the search, as 400 at once and as 500 after five attempts."""

    def template(request: dict[str, Any]) -> Reply:
        return error(status, words) if request["messages"][0]["role"] == "system" else completion("fine")

    with BadServer(template) as server:
        asked = client(server.url).complete([{"role": "system", "content": "be good"}, *HELLO], None)
    assert (asked.text, len(server.requests)) == ("fine", 2)


@pytest.mark.parametrize("status", [400, 500])
def test_chat_templates_with_few_roles(status: int) -> None:
    """Gemma's template knows no system role and wants the roles to alternate: the search ended, or retried in vain."""

    def template(request: dict[str, Any]) -> Reply:
        roles = [message["role"] for message in request["messages"]]
        if "system" in roles:
            return error(status, "System role not supported")
        if any(left == right for left, right in itertools.pairwise(roles)):
            return error(status, "Conversation roles must alternate user/assistant/user/assistant/...")
        return completion("fine")

    messages = [
        {"role": "system", "content": "be good"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "user", "content": "d"},
    ]
    with BadServer(template) as server:
        asked = client(server.url)
        assert asked.complete(messages, None).text == "fine"
        last = server.requests[-1]["messages"]
        assert [one["content"] for one in last] == ["be good\n\na", "b", "c\n\nd"]
        count = len(server.requests)
        asked.complete(messages, None)
    assert len(server.requests) == count + 1


def test_tools_where_roles_must_alternate() -> None:
    """Replies of tools have a role of their own, so such a template means the portable form."""
    messages = [*HELLO, {k: v for k, v in SAID.items() if "reasoning" not in k}]
    messages.append({"role": "tool", "tool_call_id": "1", "content": "text"})
    refusal = error(400, "Conversation roles must alternate user/assistant/user/assistant/...")
    with BadServer(refusal) as server, pytest.raises(ToolsRefused):
        client(server.url).complete(messages, TOOLS)


def test_answers_that_are_streamed_unasked() -> None:
    """A gateway that always streams sent events, which were taken for rubbish."""
    events = [
        {"model": "m", "choices": [{"delta": {"role": "assistant", "content": "he"}}]},
        {"choices": [{"delta": {"content": "llo", "reasoning_content": "hm"}}]},
        {"choices": [{"delta": {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "test"}}]}}]},
        {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]}}]},
        {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]}}]},
        {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]},
        {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}},
    ]
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    with BadServer(Reply(body.encode()), Reply(f"\ufeffid: 1\nretry: 10\n{body}".encode())) as server:
        asked = client(server.url)
        answer = asked.complete(HELLO, TOOLS)
        assert replace(asked.complete(HELLO, TOOLS), seconds=0.0) == replace(answer, seconds=0.0)
    assert (answer.text, answer.reasoning, answer.finish_reason) == ("hello", "hm", "tool_calls")
    assert answer.usage.prompt == 7
    assert [(call.id, call.name, call.arguments) for call in answer.calls] == [("c", "test", '{"a": 1}')]


def test_a_smaller_answer_is_asked_for_where_the_account_pays_no_more() -> None:
    """A router's 402 that names what can be afforded ended the search."""
    words = (
        "This request requires more credits, or fewer max_tokens. You requested up to 16384, but can only afford 900."
    )

    def poor(request: dict[str, Any]) -> Reply:
        return completion("fine") if request.get("max_tokens", 0) <= 900 else error(402, words)

    with BadServer(poor) as server:
        client(server.url).complete(HELLO, None)
        assert server.requests[-1]["max_tokens"] == 900
        words = "This request requires more credits, or fewer max_tokens."
        client(server.url).complete(HELLO, None)
    assert 450 < server.requests[-1]["max_tokens"] <= 900


def test_other_names_of_the_token_limit() -> None:
    """A refusal that speaks of max_output_tokens is about what we call max_tokens."""

    def strict(request: dict[str, Any]) -> Reply:
        return error(400, "max_output_tokens must be below 8192") if "max_tokens" in request else completion("fine")

    with BadServer(strict) as server:
        client(server.url).complete(HELLO, None)
    assert len(server.requests) == 2
