"""A scripted model that plays a short conversation from `demo.json`, without network and cost.

It uses the same code as a real model (prompt, calls, replies, log), also in tests. Arguments such as `first+2` are line
numbers, counted from the first editable line of the latest view.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from agent.llm.answers import Answer, Usage, WireCall
from agent.llm.capabilities import Message

_SCRIPT = Path(__file__).with_name("demo.json")
_EDITABLE = re.compile(r"\[Current file: \S+ \| editable: (\d+)")
_LISTED = re.compile(r"\[EDITABLE — lines (\d+)")
_TEST = re.compile(r"^\[Test #(\d+)\] \((\d+) tests? remaining", re.MULTILINE)
_SCORE = re.compile(r"^Final metrics \((\S+)\):\n(\S+)_\1=(\S+)$", re.MULTILINE)


class DemoModel:
    """Answers depend only on the conversation, so a resumed run continues as the first one would."""

    def __init__(self) -> None:
        self._script: list[dict[str, Any]] = json.loads(_SCRIPT.read_text(encoding="utf-8"))

    def complete(self, messages: list[Message], tools: list[dict[str, Any]] | None) -> Answer:
        """The next answer of the script. At its end, or when no test is left, the submission of the best test."""
        turn = sum(message["role"] == "assistant" for message in messages)
        tests, left = _tests(messages)
        if turn < len(self._script) and left != 0:
            step = self._script[turn]
        elif tests:
            number = max(tests, key=lambda test: (tests[test], -test))
            step = {
                "reasoning": "Nothing is left to try. Which test was the best one?",
                "content": f"Test {number} has the {'highest accuracy' if _accuracy(messages) else 'best score'}.",
                "calls": [["submit", {"n": number}]],
            }
        else:
            step = {"reasoning": "", "content": "Nothing that I tested worked.", "calls": []}
        first = _first_line(messages)
        calls = tuple(
            WireCall(f"call_{turn}_{number}", name, json.dumps(_resolved(arguments, first), ensure_ascii=False))
            for number, (name, arguments) in enumerate(step["calls"])
        )
        return Answer(
            text=step["content"],
            reasoning=step["reasoning"],
            reasoning_field="reasoning",
            calls=calls,
            finish_reason="tool_calls" if calls else "stop",
            model="demo",
            usage=Usage(0, 0),
        )


def _tests(messages: list[Message]) -> tuple[dict[int, float], int | None]:
    """Mean score of each test in the replies, higher is better, and how many tests are left (None: no test yet)."""
    said = " ".join(str(message["content"]) for message in messages if message["role"] == "user")
    means: dict[int, float] = {}
    left = None
    for message in messages:
        if message["role"] == "tool" and (match := _TEST.search(message["content"])):
            left = int(match[2])
            scores = [
                float(value) * (-1 if f"{metric}, lower is better" in said else 1)
                for _, metric, value in _SCORE.findall(message["content"])
            ]
            if scores and "FAILED" not in message["content"]:
                means[int(match[1])] = sum(scores) / len(scores)
    return means, left


def _accuracy(messages: list[Message]) -> bool:
    """Whether every score in the replies is an accuracy."""
    replies = "\n".join(str(message["content"]) for message in messages if message["role"] == "tool")
    return all(metric == "test_acc" for _, metric, _ in _SCORE.findall(replies))


def _first_line(messages: list[Message]) -> int:
    for pattern in (_EDITABLE, _LISTED):
        for message in reversed(messages):
            if match := pattern.search(str(message["content"])):
                return int(match[1])
    return 1


def _resolved(arguments: dict[str, Any], first: int) -> dict[str, Any]:
    return {
        name: first + int(value.removeprefix("first+"))
        if isinstance(value, str) and value.startswith("first+")
        else value
        for name, value in arguments.items()
    }
