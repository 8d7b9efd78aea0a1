"""Models with bad manners, and good ones: real HTTP, real workspace, the project's own loop, made-up accuracies."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.errors import RunDamaged, UsageError
from agent.llm.answers import Answer
from agent.llm.capabilities import Message
from agent.llm.errors import (
    AccessRefused,
    ContextExceeded,
    ModelUnknown,
    OutOfTime,
    ServerFailed,
    ToolsRefused,
)
from agent.llm.settings import Price, SpendingLimits
from agent.proposers.demo import DemoModel
from agent.proposers.llm import MAX_REPAIRS, PATIENCE, LLMProposer
from tests.agent.llm_servers import (
    GOOD,
    KEY,
    BadServer,
    Reply,
    bench,
    brief,
    client,
    completion,
    error,
    proposals,
    replies,
    run,
    search_with,
)

FAILING = GOOD.format(gain=1.0) + "    # fail\n"


def by_turn(*turns: Reply) -> Callable[[dict[str, Any]], Reply]:
    """A server that answers by how many answers the conversation already has, as a model does; the last for ever."""

    def reply(request: dict[str, Any]) -> Reply:
        turn: int = sum(message["role"] == "assistant" for message in request["messages"])
        return turns[min(turn, len(turns) - 1)]

    return reply


def write(gain: float) -> tuple[str, Any]:
    return "rewrite", {"content": GOOD.format(gain=gain)}


Call = tuple[str, Any]
TEST: Call = ("test", {})
SUBMIT: Call = ("submit", {"n": 1})


def test_good_manners(tmp_path: Path) -> None:
    """Write, test, edit, test, submit: every call is carried out and every reply comes back under its call."""
    lines = {"op": "replace", "filename": "sandbox/custom_init.py", "start_line": 29, "end_line": 29}
    second = "edit", {**lines, "content": "    gain = 2.0"}
    turns = by_turn(
        completion("", ("view", {})),
        completion("", write(1.0), TEST),
        completion(None, second, TEST, reasoning_content="hm"),
        completion("", ("submit", {"n": "2"})),
    )
    with BadServer(turns) as server:
        end, on = search_with(tmp_path, client(server.url))
    assert (end.status, on.submitted, on.by) == ("submitted", 2, "proposer")
    assert "gain = 2.0" in on.workspace.region
    last = server.requests[-1]["messages"]
    assert [message["role"] for message in last[-4:]] == ["tool", "assistant", "tool", "tool"]
    assert last[-1]["content"].startswith("[Test #2]")
    assert last[-3]["reasoning_content"] == "hm"
    assert [call["id"] for call in last[-3]["tool_calls"]] == [last[-2]["tool_call_id"], last[-1]["tool_call_id"]]


def test_the_prompt_has_what_a_model_needs(tmp_path: Path) -> None:
    """The first question carries task, numbered file with its range, networks, baseline with its noise, and budget."""
    with BadServer(completion("", ("view", {})), completion("bye")) as server:
        search_with(tmp_path, client(server.url), budget=7)
    system, task = (message["content"] for message in server.requests[0]["messages"])
    assert "researcher" in system
    for needed in (
        "initialize_weights(model, config)",
        "[EDITABLE — lines 28–40 only]",
        "28: def initialize_weights",
        "class InvertedResidual",
        "resnet20-tiny: 10.00 %",
        "standard\n  deviation",
        "7 test(s)",
        "`submit(n)`",
    ):
        assert needed in task, needed
    assert "mobilenetv2-" not in task
    offered = {tool["function"]["name"] for tool in server.requests[0]["tools"]}
    assert offered == {"edit", "rewrite", "undo", "view", "test", "submit"}


def test_model_that_edits_for_ever(tmp_path: Path) -> None:
    """Edits without a test are let pass for a while, with a nudge, then nobody pays for more of them."""
    with BadServer(completion("", write(1.0))) as server:
        end, on = search_with(tmp_path, client(server.url))
    assert (end.status, on.submitted) == ("format", None)
    assert f"{PATIENCE} calls without a new test" in end.message
    assert "nothing to submit" in end.message
    assert len(server.requests) == PATIENCE
    assert "Call test() to try the region" in server.requests[10]["messages"][-1]["content"]


def test_model_that_tests_without_editing(tmp_path: Path) -> None:
    """The same region costs one test, not all of them; the search ends and submits it."""
    with BadServer(completion("", TEST)) as server:
        end, on = search_with(tmp_path, client(server.url))
    assert (end.status, len(on.tests), on.submitted, on.by) == ("format", 1, 1, "harness")
    assert len(server.requests) == PATIENCE + 1


def test_model_that_submits_nothing(tmp_path: Path) -> None:
    """After its last test it only talks: the best valid test is submitted for it, and the end says so."""
    turns = by_turn(completion("", write(1.0), TEST), completion("", write(2.0), TEST), completion("I am done. Bye!"))
    with BadServer(turns) as server:
        end, on = search_with(tmp_path, client(server.url), budget=2)
    assert (end.status, on.submitted, on.by) == ("format", 2, "harness")
    assert "I am done. Bye!" in end.message
    assert "The best test, #2, was submitted for it." in end.message
    assert len(server.requests) == 2 + MAX_REPAIRS + 1


def test_model_that_goes_on_editing_after_its_last_test(tmp_path: Path) -> None:
    """With no test left, it is reminded by the tools' replies and given up soon."""
    with BadServer(by_turn(completion("", write(1.0), TEST), completion("", write(2.0), TEST))) as server:
        end, on = search_with(tmp_path, client(server.url), budget=1)
    assert (end.status, on.submitted) == ("format", 1)
    assert len(server.requests) < 10


def test_model_that_submits_a_failed_test(tmp_path: Path) -> None:
    """The refusal reaches the model, which may choose another test."""
    turns = by_turn(
        completion("", ("rewrite", {"content": FAILING}), TEST, SUBMIT),
        completion("", SUBMIT),
        completion("", write(1.0), TEST),
        completion("", ("submit", {"n": 2})),
    )
    with BadServer(turns) as server:
        end, on = search_with(tmp_path, client(server.url))
    assert (end.status, on.submitted) == ("submitted", 2)
    told = [message["content"] for message in server.requests[-1]["messages"] if message["role"] == "tool"]
    assert "Not carried out" in told[2]  # the submit that came in one answer with the test that failed
    assert "cannot be submitted" in told[3]


def test_model_that_only_submits_failed_tests(tmp_path: Path) -> None:
    """Nothing valid, nothing submitted; the end says so."""
    turns = by_turn(completion("", ("rewrite", {"content": FAILING}), TEST), completion("", SUBMIT))
    with BadServer(turns) as server:
        end, on = search_with(tmp_path, client(server.url), budget=1)
    assert (end.status, on.submitted) == ("format", None)
    assert "nothing to submit" in end.message


@pytest.mark.parametrize("where", ["text", "arguments", "reasoning", "name"])
def test_model_that_writes_a_million_characters(tmp_path: Path, where: str) -> None:
    """Neither log nor conversation grows by a million characters, and the model is told."""
    flood = "x" * 1_000_000
    first = {
        "text": completion(flood),
        "arguments": completion("", ("rewrite", {"content": flood})),
        "reasoning": completion("", ("view", {}), reasoning_content=flood),
        "name": completion("", (flood, {})),
    }[where]
    with BadServer(by_turn(first, completion("", write(1.0), TEST), completion("", SUBMIT))) as server:
        end, _ = search_with(tmp_path, client(server.url))
    assert end.status == "submitted"
    assert (tmp_path / "events.jsonl").stat().st_size < 400_000
    assert len(json.dumps(server.requests[-1])) < 250_000


@pytest.mark.parametrize(
    "arguments",
    [
        "{not json",
        '{"content": "def f(',
        "[1]",
        '"text"',
        '{"content": NaN}',
        '{"content": {"a": [1]}}',
        "[" * 50_000,
        '{"n": ' + "9" * 5000 + "}",
    ],
)
def test_unusable_arguments_get_an_error_as_reply(tmp_path: Path, arguments: str) -> None:
    """The reply says what is wrong; the history that goes back to the server stays valid JSON; no test is spent."""
    turns = by_turn(
        completion("", ("rewrite", arguments), TEST), completion("", write(1.0), TEST), completion("", SUBMIT)
    )
    with BadServer(turns) as server:
        end, on = search_with(tmp_path, client(server.url))
    assert (end.status, len(on.tests)) == ("submitted", 1)
    answer, wrong, skipped = server.requests[1]["messages"][2:]
    assert wrong["content"].startswith("ERROR:")
    assert "Not carried out" in skipped["content"]
    assert all(isinstance(json.loads(call["function"]["arguments"]), dict) for call in answer["tool_calls"])


def test_unusable_arguments_for_ever(tmp_path: Path) -> None:
    """Two repairs, then the typed end `format`."""
    with BadServer(completion("", ("rewrite", "{"), finish_reason="length")) as server:
        end, on = search_with(tmp_path, client(server.url))
    assert (end.status, len(on.tests), len(server.requests)) == ("format", 0, MAX_REPAIRS + 1)
    assert "cut at the limit of 10 tokens" in server.requests[1]["messages"][-1]["content"]


def test_half_surrogate_in_the_code(tmp_path: Path) -> None:
    """JSON can carry what UTF-8 cannot; the log survives it."""
    content = GOOD.format(gain=1.0).replace("gain =", "gain = 1.0  # \ud83d\n    gain =")
    turns = by_turn(completion("", ("rewrite", {"content": content}), TEST), completion("", SUBMIT))
    with BadServer(turns) as server:
        end, _ = search_with(tmp_path, client(server.url))
    assert end.status == "submitted"


@pytest.mark.parametrize("silent", [completion(None), completion(""), completion(None, finish_reason="content_filter")])
def test_silent_model(tmp_path: Path, silent: Reply) -> None:
    """A model that says nothing is asked twice more, the second time in the other form, then it is over."""
    with BadServer(silent) as server:
        end, on = search_with(tmp_path, client(server.url))
    assert (end.status, len(on.tests), len(server.requests)) == ("format", 0, MAX_REPAIRS + 1)


def test_unknown_tool_and_many_calls(tmp_path: Path) -> None:
    """A tool that does not exist is answered; of fifty calls at once the first ten are carried out."""
    turns = by_turn(
        completion("", ("read", {})), completion("", *[("view", {})] * 50), completion("", write(1.0), TEST, SUBMIT)
    )
    with BadServer(turns) as server:
        end, _ = search_with(tmp_path, client(server.url))
    assert end.status == "submitted"
    assert replies(tmp_path)[0] == "ERROR: Unknown tool 'read'"
    told = [message["content"] for message in server.requests[2]["messages"] if message["role"] == "tool"]
    assert sum("at most 10 calls" in text for text in told) == 40


CODE = f"An idea:\n\n```python\n{GOOD.format(gain=3.0)}```\n"
JSON_SUBMIT = '```json\n{"tool": "submit", "n": 1}\n```'


def test_server_that_refuses_tools(tmp_path: Path) -> None:
    """The same search in the portable form: a code block is written and tested, a JSON block is a call."""

    def reply(request: dict[str, Any]) -> Reply:
        if "tools" in request:
            return error(400, "tiny does not support tools")
        return by_turn(completion(CODE), completion(JSON_SUBMIT))(request)

    said: list[str] = []
    with BadServer(reply) as server:
        end, on = search_with(tmp_path, client(server.url), said=said)
    assert (end.status, on.submitted, len(on.tests)) == ("submitted", 1, 1)
    assert "gain = 3.0" in on.workspace.region
    assert any("without tool calls" in line for line in said)
    assert [message["role"] for message in server.requests[-1]["messages"]] == ["system", "user", "assistant", "user"]
    assert "```python\ndef initialize_weights" in server.requests[-1]["messages"][1]["content"]


def test_portable_form_has_looks_and_confirmation(tmp_path: Path) -> None:
    """Without tool calls a model was not told of `screen`, and that `submit` was final when it was not."""

    def reply(request: dict[str, Any]) -> Reply:
        if "tools" in request:
            return error(400, "tiny does not support tools")
        return by_turn(completion(CODE), completion(JSON_SUBMIT))(request)

    def form(name: str, **settings: Any) -> tuple[bool, ...]:
        with BadServer(reply) as server:
            search_with(tmp_path / name, client(server.url), **settings)
        text = server.requests[-1]["messages"][1]["content"].partition("You have no tool calls here")[2]
        return '{"tool": "screen"}' in text, "put forward" in text, "is final" in text

    assert form("plain") == (False, False, True)
    assert form("both", screening=True, confirm=2) == (True, True, False)


def test_model_that_ignores_tools(tmp_path: Path) -> None:
    """A server that drops the tools without a word: the model is told the other form and goes on in it."""
    with BadServer(
        by_turn(completion("Sure! Here is how I would begin."), completion(CODE), completion(JSON_SUBMIT))
    ) as server:
        end, on = search_with(tmp_path, client(server.url))
    assert (end.status, len(on.tests)) == ("submitted", 1)
    assert "tools" not in server.requests[1]


def test_calls_written_as_text(tmp_path: Path) -> None:
    """Models whose server does not parse their calls write them in tags; these are understood."""
    turns = [
        f"<tool_call>{json.dumps({'name': 'rewrite', 'arguments': {'content': GOOD.format(gain=1.0)}})}</tool_call>",
        '<tool_call>\n{"name": "test", "arguments": "{}"}\n</tool_call>',
        '{"tool": "submit", "arguments": {"n": 1}}',
    ]
    with BadServer(by_turn(*(completion(text) for text in turns))) as server:
        end, on = search_with(tmp_path, client(server.url))
    assert (end.status, on.submitted) == ("submitted", 1)


def test_context_that_is_too_small_is_filled_with_care(tmp_path: Path) -> None:
    """Old views and old code go, the task stays, and the search gets to its end."""
    with BadServer(completion("", ("view", {})), completion("bye")) as server:
        search_with(tmp_path / "measure", client(server.url))
        room = len(json.dumps(server.requests[0]["messages"], ensure_ascii=False)) + 6000

    def reply(request: dict[str, Any]) -> Reply:
        if len(json.dumps(request["messages"], ensure_ascii=False)) > room:
            return error(400, "This model's maximum context length is exceeded")
        texts = [str(message["content"]) for message in request["messages"]]
        done = sum("[Test #3]" in text for text in texts)
        count["asked"] += 1
        return (
            completion("", SUBMIT)
            if done
            else completion("", write(count["asked"] / 8), *[TEST] * (count["asked"] % 8 == 7))
        )

    count = {"asked": 0}
    said: list[str] = []
    with BadServer(reply) as server:
        end, on = search_with(tmp_path / "real", client(server.url), said=said)
    assert (end.status, len(on.tests)) == ("submitted", 3)
    assert any("too long" in line for line in said)
    assert all("class InvertedResidual" in request["messages"][1]["content"] for request in server.requests)
    assert "earlier exchange(s) are left out" in server.requests[-1]["messages"][1]["content"]


def test_task_that_does_not_fit(tmp_path: Path) -> None:
    """A context that cannot hold the task is a typed end that says what to do."""
    with BadServer(error(400, "maximum context length is 512 tokens")) as server:
        end, _ = search_with(tmp_path, client(server.url))
    assert end.status == "api"
    assert "num_ctx" in end.message


def test_known_context_is_not_exceeded(tmp_path: Path) -> None:
    """With --context-tokens the conversation is shortened before the server has to refuse it."""
    answers = [completion("", write(n / 10)) for n in range(1, 12)]
    with BadServer(*answers, completion("", write(9.0), TEST, SUBMIT)) as server:
        end, _ = search_with(tmp_path, client(server.url), context_tokens=8192, answer_tokens=1000)
    assert end.status == "submitted"
    assert (
        max(len(json.dumps(request["messages"], ensure_ascii=False)) for request in server.requests)
        < (8192 - 1000) * 3 + 600
    )


def test_power_of_two_is_noticed(tmp_path: Path) -> None:
    """A server that cuts the conversation without a word gives itself away by its token count."""
    said: list[str] = []
    cut = completion("", ("view", {}), usage={"prompt_tokens": 4096, "completion_tokens": 5})
    with BadServer(by_turn(cut, cut, completion("", write(1.0), TEST, SUBMIT))) as server:
        search_with(tmp_path, client(server.url), said=said)
    assert sum("4096 tokens" in line for line in said) == 1


def test_limits_on_tokens_and_cost(tmp_path: Path) -> None:
    """The question that would pass the limit is not asked; what was tested is submitted."""
    usage = {"prompt_tokens": 5000, "completion_tokens": 1000}
    turns = by_turn(*[completion("", write(float(n)), TEST, usage=usage) for n in range(1, 10)])
    with BadServer(turns) as server:
        end, on = search_with(tmp_path / "t", client(server.url), budget=9, limits=SpendingLimits(tokens=20_000))
        assert (end.status, len(on.tests), on.submitted) == ("cost", 3, 3)
        price = Price.parse("1/10")
        end, on = search_with(
            tmp_path / "c", client(server.url), budget=9, limits=SpendingLimits(cost=0.049, price=price)
        )
    assert (end.status, len(on.tests)) == ("cost", 3)
    assert "$0.049" in end.message


def test_tiny_limit_is_known_before_the_first_question(tmp_path: Path) -> None:
    """A limit that the task alone passes lets nothing be asked at all."""
    with BadServer(completion("x")) as server:
        end, _ = search_with(tmp_path, client(server.url), limits=SpendingLimits(tokens=100))
    assert (end.status, server.requests) == ("cost", [])


class Failing:
    """A model that plays the demo and then raises, for ever."""

    def __init__(self, error: Exception, after: int) -> None:
        self.error, self.after, self.asked = error, after, 0
        self._demo = DemoModel()

    def complete(self, messages: list[Message], tools: list[dict[str, Any]] | None) -> Answer:
        self.asked += 1
        if self.asked > self.after:
            raise self.error
        return self._demo.complete(messages, tools)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ServerFailed("gone"), "api"),
        (AccessRefused("the key was taken back"), "api"),
        (OutOfTime("late"), "time"),
        (ContextExceeded("small"), "api"),
    ],
)
def test_server_that_gives_out_midway(tmp_path: Path, error: Exception, status: str) -> None:
    """What was tested is submitted; the end is typed; a resumed run ends alike without asking anybody."""
    model = Failing(error, after=3)
    end, on = search_with(tmp_path, model)
    assert (end.status, len(on.tests), on.submitted, on.by) == (status, 1, 1, "harness")
    asked = model.asked
    again, on = search_with(tmp_path, model)
    assert (again, on.submitted, model.asked) == (end, 1, asked)


def test_wrong_key_with_the_first_question(tmp_path: Path) -> None:
    """A key that only the first question shows to be wrong is the user's to mend, not an end of the search."""
    with pytest.raises(UsageError, match="not known"):
        search_with(tmp_path, Failing(AccessRefused("not known"), after=0))
    assert proposals(tmp_path) == []


def test_tools_refused_for_ever(tmp_path: Path) -> None:
    """A model that refuses the portable form for its tools, too, makes no endless loop."""
    end, _ = search_with(tmp_path, Failing(ToolsRefused("no tools"), after=0))
    assert end.status == "api"


def test_resume_pays_nothing_twice(tmp_path: Path) -> None:
    """Cut anywhere, the log is the cache: recorded answers are not asked for again, and the end is the same."""
    turns = by_turn(
        completion("Hello."),
        completion(CODE),
        completion("", ("view", {})),
        completion(CODE.replace("3.0", "4.0")),
        completion('```json\n{"tool": "submit", "n": 2}\n```'),
    )
    with BadServer(turns) as server:
        end, on = search_with(tmp_path / "whole", client(server.url))
        assert (end.status, on.submitted) == ("submitted", 2)
        whole = len(server.requests)
        lines = (tmp_path / "whole" / "events.jsonl").read_text().splitlines(keepends=True)
        for kept in range(0, len(lines), 3):
            folder = tmp_path / f"cut{kept}"
            folder.mkdir()
            (folder / "events.jsonl").write_text("".join(lines[:kept]) + lines[kept][:9])
            paid = sum('"kind": "proposal"' in line for line in lines[:kept])
            before = len(server.requests)
            again, on = search_with(folder, client(server.url))
            assert (again, on.submitted) == (end, 2)
            assert len(server.requests) - before == whole - paid


@pytest.mark.parametrize(
    "error", [AccessRefused("wrong key"), ModelUnknown("no such model"), ServerFailed("not started")]
)
def test_resume_without_the_server_keeps_the_search(tmp_path: Path, error: Exception) -> None:
    """A search that was resumed with a wrong key, or before its server was started, ended as `api` for good."""
    end, _ = search_with(tmp_path / "whole", DemoModel())
    lines = (tmp_path / "whole" / "events.jsonl").read_text().splitlines(keepends=True)
    kept = next(number for number, line in enumerate(lines, 1) if '"kind": "proposal"' in line)
    folder = tmp_path / "cut"
    folder.mkdir()
    (folder / "events.jsonl").write_text("".join(lines[:kept]))
    with pytest.raises(UsageError, match=str(error)):
        search_with(folder, Failing(error, after=0))
    assert len(proposals(folder)) == 1
    assert search_with(folder, DemoModel())[0] == end


def test_resume_with_another_question_is_refused(tmp_path: Path) -> None:
    """An answer belongs to its question: with another prompt, the recorded run cannot go on."""
    search_with(tmp_path, DemoModel())
    with pytest.raises(RunDamaged, match="request_sha256"):
        search_with(tmp_path, DemoModel(), model="another")


def test_log_has_the_conversation_and_no_key(tmp_path: Path) -> None:
    """Prompt, answers, reasoning, usage and request hash are in the log; the key is nowhere."""
    turns = by_turn(
        completion(f"I know {KEY}", ("view", {}), reasoning_content="because"), completion("", write(1.0), TEST, SUBMIT)
    )
    with BadServer(turns) as server:
        search_with(tmp_path, client(server.url))
    first = proposals(tmp_path)[0]
    assert first["sent"] == [message["content"] for message in server.requests[0]["messages"]]
    assert len(first["request_sha256"]) == 64
    assert first["message"]["reasoning"] == "because"
    assert first["usage"]["prompt"] == 100
    assert KEY not in (tmp_path / "events.jsonl").read_text()
    assert not any(KEY.encode() in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


def test_early_question(tmp_path: Path) -> None:
    """When only a question can tell whether the server answers, the baseline's numbers follow with the first reply."""
    turns = by_turn(completion("", ("view", {})), completion("", write(1.0), TEST, SUBMIT))
    with BadServer(turns) as server, bench(tmp_path) as on:
        proposer = LLMProposer(brief(), client(server.url), on.log, ask_early=True)
        proposer.prepare(dataclasses.replace(on.situation(), baseline={}))
        assert len(server.requests) == 1
        assert run(proposer, on).status == "submitted"
    assert "It is being measured" in server.requests[0]["messages"][1]["content"]
    assert server.requests[1]["messages"][-1]["content"].startswith("[The baseline was measured meanwhile")
    assert "10.00 %" in server.requests[1]["messages"][-1]["content"]
