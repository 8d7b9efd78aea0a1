"""Twice the text takes about twice the time, whatever a model or a file repeats."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable

import pytest

from agent.llm.answers import BadBody, parse_answer
from agent.llm.calls import ArgumentError, calls_in_text
from agent.report.diff import side_by_side
from agent.transcripts import parse_transcript
from agent.transcripts.audit import audit
from agent.transcripts.views import parse_listings, parse_view
from tests.agent.transcript_samples import call, conversation, prompt
from tests.agent.transcripts.test_coding_agents import mini

MOST = 3.5
"""How much longer twice the text may take; an expression that starts anew at each place takes four times as long."""
ENOUGH = 0.02
"""Seconds of processor time: less cannot be measured, and is fast enough."""


def _said(text: str) -> None:
    with contextlib.suppress(ArgumentError):
        calls_in_text(text, code=True)
    for content in (text, "<think>" + text):
        body = json.dumps({"choices": [{"message": {"content": content}}]})
        with contextlib.suppress(BadBody):
            parse_answer(body, sent_characters=1)


def _replied(text: str) -> None:
    parse_view(text)
    parse_listings(text)
    audit(parse_transcript(conversation(prompt(text), call(1, "test", {}, text))))
    audit(parse_transcript(mini(text, tools=False)))


READERS: dict[str, tuple[Callable[[str], object], int]] = {"answer": (_said, 32_000), "reply": (_replied, 16_000)}
_PIECES = (
    *(
        "<tool_call>",
        "</tool_call>",
        "<tool_call></tool_call>",
        "```\n",
        "~~~\n```\n",
        "```python\n",
        "<think>",
        "{",
        "[",
    ),
    *("def initialize_weights\n", "'", "\"'", "#", "_", "a_", "a=1 ", "1 - ", "hidden ", "label: `", "### a\n"),
    *("[Leaderboard] {'a", "[EDITABLE ", "## a.py  [EDITABLE — lines 1–2 only]\n", " | editable: ", "Editable range: "),
    *("mobilenetv2-tiny: ", "mobilenetv2-tiny 1", "[submit] ", "```bash\n"),
)
_NOTATIONS = (
    *("\ncall:test{a:", "call:test{}\n"),
    *("<thinkthink", "<|end_of_think think", "< a_think ", "<|/aaaaaaaaaaaaaaaaathink>"),
    *("</think>", "[/THINK]", "'\\' </think>", "</think>\n```x\n", "<|end|>"),
    *("```python\n# </think>\n```\n", "```python\n# </think> '\\'\n"),
    *("<|channel|>analysis<|message|>", "<|channel|>", "to=functions.a", "to=functions.test<|message|>{"),
    *("<function=test><parameter=n>", "<function=test>\n<parameter=n>\n```x\n</parameter>\n", "<function="),
    *(
        "<parameter=n>",
        "[TOOL_CALLS]",
        "[TOOL_CALLS][",
        '[TOOL_CALLS]test[ARGS]{"a',
        "<|python_tag|>[",
        '<tool_call>["',
        '{"a\n',
        "[{\n",
        '{"a": 1} x\n',
        "functools[{",
        "<tool_call>{};",
        '<|tool_call>call:test{a:<|"|>',
        "<|tool_call>call:test{aaaaaaaaaaaaaaaaaaaa",
    ),
    *("[test(", "[test(\n", "[test(n='\n", "[test()]\n", "[test()] x\n", "<tools>test() test( ", "test() "),
    *("<tools>test(n=[[[", "<tools>[test(n='" + "''a", '[test(n="\\', "```tool_code\n[test(\n```\n"),
    *("```tool_code\ntest()\n```\n", "<start_function_call>call:test{a:<escape>", "<a:invoke name=", "[a."),
    *("{}", "[]\n", "[{}]```\n", "~~~\n<tool_call>{}\n", "<tool_call>test<arg_key>n</arg_key><arg_value>"),
    *("<|tool_call_begin|>functions.test:0<|tool_call_argument_begin|>", "<｜tool▁call▁begin｜>"),
    "<｜tool▁call▁begin｜>function<｜tool▁sep｜>test\n```json\n{}\n",
)
REPEATED = {
    **{"spaces after a tag": "<tool_call>x{ }y", "spaces after an open fence": "```python\n{ }x", "spaces": "{ }x"},
    **{piece.strip(): piece for piece in _PIECES},
    **{piece.strip(): piece for piece in _NOTATIONS},
    **{"a quote in code": "```python\n</think>{ }'x\n```", "a text in code": "```python\n# </think>\n'{ }'\n```"},
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("piece", REPEATED.values(), ids=list(REPEATED))
def test_time_grows_with_the_text_and_not_with_its_square(reader: str, piece: str) -> None:
    """An answer of 32 kB held a search for twelve seconds, one of 64 kB would have for fifty."""
    read, size = READERS[reader]
    for _ in range(3):  # what else runs on the machine disturbs one measurement, and not three
        twice, once = _seconds(read, _text(piece, 2 * size), 1), 0.0
        if twice < ENOUGH or twice < MOST * (once := _seconds(read, _text(piece, size), 2)):
            return
    pytest.fail(f"{twice:.3f} s for twice the text that took {once:.3f} s")


def test_a_thousand_equal_lines_are_compared_in_a_moment() -> None:
    """A region of empty lines held the report for a minute."""
    seconds = _seconds(lambda text: side_by_side(text, text[: len(text) // 2] + "x\n" + text), "\n" * 16_000, 1)
    assert seconds < 5


def _text(piece: str, length: int) -> str:
    """`length` characters of the piece again and again; where it has a mark, of spaces in the place of the mark."""
    start, mark, end = piece.partition("{ }")
    return start + " " * length + end if mark else (piece * (length // len(piece) + 1))[:length]


def _seconds(read: Callable[[str], object], text: str, repeats: int) -> float:
    """The least processor time of so many: what else runs makes one longer, and none shorter."""
    times = []
    for _ in range(repeats):
        started = time.process_time()
        read(text)
        times.append(time.process_time() - started)
    return min(times)
