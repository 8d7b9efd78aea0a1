"""Calls that a model wrote as text because its server did not parse them: the notations of the common model families.

| notation | families |
|---|---|
| `<tool_call>{…}</tool_call>`, also with a list inside or `<arg_key>`/`<arg_value>` | Qwen, Hermes, Granite, GLM |
| `<function=NAME><parameter=KEY>VALUE</parameter></function>`, `<invoke name="NAME">…` | Qwen-Coder, MiniMax |
| `<function=NAME>{…}</function>`, `<|python_tag|>{…}` | Llama |
| `[TOOL_CALLS][{…}]`, `[TOOL_CALLS]NAME[ARGS]{…}` | Mistral |
| `to=functions.NAME … <|message|>{…}<|call|>`, also without its marks | gpt-oss (harmony) |
| `<|tool_call_begin|>functions.NAME:0<|tool_call_argument_begin|>{…}` | Kimi |
| `<｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME` and JSON, with or without a fence | DeepSeek |
| `<|tool_call>call:NAME{key:<|"|>value<|"|>}<tool_call|>`, also without its marks | Gemma 4 |
| `<start_function_call>call:NAME{key:<escape>value<escape>}<end_function_call>` | FunctionGemma |
| `<|START_ACTION|>[{…}]`, `functools[{…}]`, `<tools>{…}`, `<|plugin|>{…}` | Command, Phi, Qwen, InternLM |
| `<|python_start|>[NAME(key="value")]`, `<function_calls>NAME()`, `<|tool_call_start|>[…]` | Llama, Olmo, LFM |
| JSON or a list of calls in Python on lines of its own, without any mark | all |
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from agent.llm.pythonic import after_separators, one_python_list, python_calls

_NAME = r"[\w.:-]{1,100}"
_MARKED = rf"""(?P<json><tool_calls?>|<function_calls?>|<\|tool_calls?\|>|<TOOLCALL>|<\|python_tag\|>
        |<\|python_start\|>|<\|tool_call_start\|>|<\|plugin\|>
        |<tools?>|<tool_use>|<\|START_ACTION\|>|\bfunctools(?=\[))
    |(?:<(?:\|tool_call|start_function_call)>\s{{0,9}}|(?<![^\n]))call:(?P<gemma>{_NAME})(?=\{{)
    |(?P<mistral>\[TOOL_CALLS\])
    |<(?:｜DSML｜|\w{{1,20}}:)?(?:function=|(?:invoke|function_call)[ ]name=)["']?(?P<xml>{_NAME})["']?\s{{0,9}}>
    |\bto=functions\.(?P<harmony>[\w-]{{1,100}})
        (?:[^\n{{}}]{{0,100}}?<\|message\|>|[ ]?(?:commentary)?[ ]?(?:json|code)?\s{{0,9}}(?=\{{))
    |<\|tool_call_begin\|>\s{{0,9}}(?P<kimi>{_NAME})\s{{0,9}}<\|tool_call_argument_begin\|>
    |<｜tool▁call▁begin｜>(?:function<｜tool▁sep｜>)?(?P<deepseek>{_NAME})\s{{0,9}}(?:<｜tool▁sep｜>)?"""
_BARE = r"""|(?P<bare>^[ \t]{0,9}(?=\{\s{0,99}"|\[\s{0,99}(?:\{|[\w.]{1,100}\()))"""
_OPENING = re.compile(_MARKED + _BARE, re.VERBOSE | re.MULTILINE)
_MARKED_OPENING = re.compile(_MARKED + "|(?P<bare>(?!))", re.VERBOSE)
_MOST_MISSES = 32
"""So many places that look like JSON or Python and are none are tried: each may be read to the end of the text."""
_MISTRAL = re.compile(rf"\s{{0,9}}(?P<name>{_NAME})(?:\[CALL_ID\][\w-]{{0,100}})?\s{{0,9}}(?:\[ARGS\])?")
_GLM = re.compile(rf"\s{{0,9}}(?P<name>{_NAME})\s{{0,9}}(?=<arg_key>|</tool_call>)")
_PAIR = re.compile(r"\s*<arg_key>(?P<key>[^<]{1,100})</arg_key>\s*<arg_value>")
_PARAMETER = re.compile(
    r"""\s*<(?:｜DSML｜|\w{1,20}:)?parameter(?:=|\ name=)["']?(?P<key>[^<>"'\s]{1,100})["']?
        (?:\ string="\w{1,9}")?\s{0,9}>""",
    re.VERBOSE,
)
_PARAMETER_END = re.compile(r"</(?:｜DSML｜|\w{1,20}:)?(?:parameter|function|invoke|function_call)>")
_FENCE = re.compile(r"\s{0,9}(?P<fence>```\w{0,9}\s{0,9})?")
_FENCE_END = re.compile(r"\s{0,9}```")
_LINE_END = re.compile(r"[ \t,;]*(?:$|\n|</|<\|)")
_GEMMA_END = re.compile(r"<tool_call\|>|<end_function_call>")
_GEMMA_PART = re.compile(
    r'(?P<quote><\|"\|>|<escape>)(?P<text>.*?)(?P=quote)|\b(?P<key>\w{1,100})(?=\s{0,9}:)', re.DOTALL
)
_DECODER = json.JSONDecoder(strict=False, parse_constant=lambda name: no_constant(name))


@dataclass(frozen=True)
class WrittenCall:
    """A call as it stands in the text up to `end`: a tool's name, and its arguments as a value or as unread text.

    Where the notation holds its own names, as a list of JSON objects does, `name` is "" and `arguments` is all of it.
    """

    name: str
    arguments: Any
    end: int


class Openings:
    """Finds where notations begin in a text, and reads them."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._misses = 0

    def next(self, position: int = 0) -> re.Match[str] | None:
        """The first one from `position` on."""
        pattern = _OPENING if self._misses < _MOST_MISSES else _MARKED_OPENING
        return pattern.search(self._text, position)

    def read(self, opening: re.Match[str]) -> tuple[WrittenCall | None, int]:
        """The call that begins with `opening`, None where nothing of the kind follows it; and where to go on."""
        named = opening["json"] is None and opening["bare"] is None
        call = _read(self._text, opening) if named else self._unnamed(opening)
        if call is None and opening["bare"] is not None:
            self._misses += 1
            return None, opening.end() + 1
        return call, max(opening.end(), call.end if call else 0)

    def _unnamed(self, opening: re.Match[str]) -> WrittenCall | None:
        """The JSON or Python that follows `opening`, which names no tool itself."""
        text, start = self._text, opening.end()
        if opening["bare"] is not None:
            value, end = json_value(text, start)
            if end == start:
                value, end = one_python_list(text, start)
            return WrittenCall("", value, end) if end > start and _LINE_END.match(text, end) else None
        values, end = _several(text, start)
        if not values and self._misses < _MOST_MISSES:
            values, end, missed = python_calls(text, start)
            self._misses += missed
        return WrittenCall("", values, end) if values else _read_pairs(text, start)


def _read(text: str, opening: re.Match[str]) -> WrittenCall:
    """The call of the tool that `opening` names."""
    start = opening.end()
    if opening["gemma"] is not None:
        return _read_gemma(text, opening["gemma"], start)
    if opening["mistral"] is not None:
        value, end = json_value(text, start)
        named = _MISTRAL.match(text, start) if end == start else None
        return _with_json(text, named["name"], named.end()) if named else WrittenCall("", value, max(end, start))
    if opening["xml"] is not None:
        return _read_parameters(text, opening["xml"], start)
    name = opening["harmony"] or opening["kimi"] or opening["deepseek"]
    return _with_json(text, name, start)


def json_value(text: str, position: int) -> tuple[Any, int]:
    """The object or list at `position`, also in a fence, and its end; `position` itself: there is none."""
    fence = _FENCE.match(text, position)
    start = fence.end() if fence else position
    if text[start : start + 1] not in ("{", "["):
        return None, position
    try:
        value, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return None, position
    closing = _FENCE_END.match(text, end) if fence and fence["fence"] else None
    return value, closing.end() if closing else end


def json_values(text: str) -> list[Any]:
    """All objects and lists of a text that holds nothing else but commas and semicolons; empty where it holds more."""
    values: list[Any] = []
    position = after_separators(text, 0)
    while position < len(text):
        value, end = json_value(text, position)
        if end == position:
            return []
        values.append(value)
        position = after_separators(text, end)
    return values


def _several(text: str, position: int) -> tuple[list[Any], int]:
    """The objects and lists that follow one another from `position` on, lists unpacked, and where they end."""
    values: list[Any] = []
    end, following = position, position
    while True:
        value, following = json_value(text, following)
        if value is None:
            return values, end
        values += value if isinstance(value, list) else [value]
        end, following = following, after_separators(text, following)


def _read_gemma(text: str, name: str, start: int) -> WrittenCall:
    """Gemma's notation: JSON with bare keys, and with a mark of its own in place of quotation marks."""
    found = _GEMMA_END.search(text, start)
    line_end = text.find("\n", start)
    stop = found.start() if found else len(text) if line_end < 0 or "<" in text[start:line_end] else line_end
    body = text[start:stop]
    written = _GEMMA_PART.sub(lambda part: json.dumps(part["key"] if part["text"] is None else part["text"]), body)
    return WrittenCall(name, written, found.end() if found else stop)


def _with_json(text: str, name: str, start: int) -> WrittenCall:
    """A named call with JSON after it. What cannot be read is kept as text, so that the model is told why."""
    value, end = json_value(text, start)
    if end > start:
        return WrittenCall(name, value, end)
    unread = text[start : start + 200].lstrip()
    return WrittenCall(name, unread if unread.startswith(("{", "[")) else {}, start)


def _read_pairs(text: str, start: int) -> WrittenCall | None:
    """GLM's notation: a name, then keys and values in tags of their own."""
    named = _GLM.match(text, start)
    if named is None:
        return None
    arguments: dict[str, Any] = {}
    position = named.end()
    while (key := _PAIR.match(text, position)) is not None:
        end = text.find("</arg_value>", key.end())
        arguments[key["key"].strip()] = text[key.end() : end if end >= 0 else None]
        if end < 0:
            return WrittenCall(named["name"], arguments, len(text))
        position = end + len("</arg_value>")
    return WrittenCall(named["name"], arguments, position)


def _read_parameters(text: str, name: str, start: int) -> WrittenCall:
    """Parameters in tags, or JSON in their place. A value keeps its lines, without the first and last line break."""
    value, end = json_value(text, start)
    if end > start:
        return WrittenCall(name, value, end)
    arguments: dict[str, Any] = {}
    position = start
    while (parameter := _PARAMETER.match(text, position)) is not None:
        closing = _PARAMETER_END.search(text, parameter.end())
        value = text[parameter.end() : closing.start() if closing else None]
        arguments[parameter["key"]] = value.removeprefix("\n").removesuffix("\n")
        if closing is None:
            return WrittenCall(name, arguments, len(text))
        position = closing.end()
    return WrittenCall(name, arguments, position)


def iterate(text: str) -> Iterator[WrittenCall]:
    """Every call in a text, in its order."""
    position, openings = 0, Openings(text)
    while (opening := openings.next(position)) is not None:
        call, position = openings.read(opening)
        if call is not None:
            yield call


def no_constant(name: str) -> NoReturn:
    """For `json.loads(parse_constant=…)`: refuses NaN and the infinities."""
    raise ValueError(f"{name} is not JSON")
