"""From what a model wrote to tool calls: arguments that should be JSON, and the portable form in plain text.

The portable form is for models and servers without tool calls. An answer holds fenced blocks: a `python` block that
defines `initialize_weights` replaces the region and is tested; a small JSON object `{"tool": NAME, …}` is one call.
Calls in the notations of `agent.llm.written` count in any answer. Where there is one, Python blocks are illustrations.
So do calls in Python, such as `test()`, that are the whole answer or stand in a fence of their own (```tool_code).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from agent.llm.answers import Answer, clean, plain_arguments, plain_name
from agent.llm.fences import block_at, next_fence
from agent.llm.prompting import note
from agent.llm.pythonic import only_python_calls, python_dict
from agent.llm.written import Openings, WrittenCall, iterate, json_values, no_constant
from agent.protocol import ToolCall

_MAX_CALLS = 10  # that one answer may hold
_MOST_FOUND = 200  # what comes later in a text is not looked at
_MAX_ARGUMENTS = 64 * 1024
_INTEGERS = ("n", "start_line", "end_line", "after_line")
_TOOLS = ("edit", "undo", "view", "rewrite", "screen", "test", "submit")
_NAME_KEYS = ("tool", "name", "tool_name", "function")
_ARGUMENT_KEYS = ("arguments", "parameters", "args", "tool_input", "input")
_TOOL_FENCE = re.compile(r"tools?|(?:tool|function)_(?:code|calls?)")
_DEFINES = re.compile(r"^def initialize_weights\b", re.MULTILINE)


class ArgumentError(ValueError):
    """The arguments of a call cannot be used; the message is the reply that the model gets."""


def steps_of(answer: Answer, *, code: bool) -> list[ToolCall | str]:
    """One step for each call of an answer, in order: the call, or our reply if the call cannot be read."""
    if not answer.calls:
        try:
            return list(calls_in_text(answer.text, code=code)[:_MAX_CALLS])
        except ArgumentError as error:
            return [str(error)]
    steps: list[ToolCall | str] = []
    readable = True
    for number, call in enumerate(answer.calls, start=1):
        if not readable or number > _MAX_CALLS:
            steps.append(note("too_many", count=_MAX_CALLS) if readable else note("skipped"))
            continue
        try:
            steps.append(tool_call(call.name, call.arguments))
        except ArgumentError as error:
            cut = answer.finish_reason == "length"
            steps.append(f"{error}{note('cut', count=answer.usage.completion) if cut else ''}")
            readable = False
    return steps


def tool_call(name: str, arguments: str) -> ToolCall:
    """One call from its name and its arguments as JSON. Raises ArgumentError."""
    if len(arguments) > _MAX_ARGUMENTS:
        raise ArgumentError(
            f"ERROR: Failed to parse tool arguments: {len(arguments):,} characters, more than the {_MAX_ARGUMENTS:,} "
            "that a call may have"
        )
    try:
        parsed = _parsed(plain_arguments(arguments))
        if not isinstance(parsed, dict):
            raise ArgumentError("ERROR: Failed to parse tool arguments: expected a JSON object")
        return _call(plain_name(name), parsed)
    except RecursionError:
        raise ArgumentError("ERROR: Failed to parse tool arguments: nested too deeply") from None
    except ArgumentError:
        raise
    except ValueError as error:
        raise ArgumentError(f"ERROR: Failed to parse tool arguments: {error}") from None


def _parsed(written: str) -> Any:
    """Arguments as a value: JSON, an object behind an empty one or twice, or Python. Raises ValueError."""
    try:
        return json.loads(written, strict=False, parse_constant=no_constant)
    except ValueError:
        values = [value for value in json_values(written) if value != {}]
        if values and all(value == values[0] for value in values):
            return values[0]
        found = python_dict(written)
        if found is None:
            raise
        return found


def calls_in_text(text: str, *, code: bool) -> list[ToolCall]:
    """The calls that a text holds, in its order; with `code`, a Python block counts as rewrite and test.

    A JSON object or a list of them counts in a fence or on lines of its own. An empty list: there is none.
    The work grows in proportion to the text. Raises ArgumentError for a call whose arguments cannot be used.
    """
    if calls := _calls_in(json_values(text) or only_python_calls(text)):
        return calls
    found: list[tuple[ToolCall, bool]] = []  # and whether a Python block stands for it
    marked = False
    position = 0
    first = fence = next_fence(text)
    openings = Openings(text)
    opening = openings.next()
    while (opening is not None or fence is not None) and len(found) < _MOST_FOUND:
        if opening is not None and (fence is None or opening.start() < fence.start()):
            written, position = openings.read(opening)
            calls = list(_calls(written)) if written else []
            marked = marked or (bool(calls) and opening["bare"] is None)
            found += [(call, False) for call in calls]
        elif fence is not None:
            block = block_at(text, fence)
            position = block.end
            body = text[block.body_start : block.body_end]
            if block.is_python and _DEFINES.search(body):
                found += [(_rewrite(body), True), (ToolCall("test"), True)] if code else []
            elif values := json_values(body) or _in_tool_fence(block.language, body):
                found += [(call, False) for call in _calls_in(values)]
            else:
                calls = [call for written in iterate(body) for call in _calls(written)]
                marked = marked or bool(calls)
                found += [(call, False) for call in calls]
        if opening is not None and opening.start() < position:
            opening = openings.next(position)
        if fence is not None and fence.start() < position:
            fence = next_fence(text, position)
    if marked:
        return [call for call, is_code in found if not is_code]
    if found or first is not None or not code:
        return [call for call, _ in found]
    whole = text.strip()
    bare = whole.startswith(("def ", "import ", "from ", "#", '"')) and _DEFINES.search(text)
    return [_rewrite(whole + "\n"), ToolCall("test")] if bare else []


def _in_tool_fence(language: str, body: str) -> list[Any]:
    """The calls in Python of a block that is marked as calls."""
    return only_python_calls(body) if _TOOL_FENCE.fullmatch(language) else []


def _rewrite(body: str) -> ToolCall:
    return ToolCall("rewrite", {"content": clean(body)})


def _calls(written: WrittenCall) -> Iterator[ToolCall]:
    """The calls of one notation; a tool that we do not have is none."""
    if not written.name:
        yield from _calls_in([written.arguments])
    elif (name := plain_name(written.name)) in _TOOLS:
        yield _with_arguments(name, written.arguments)


def _calls_in(values: list[Any]) -> list[ToolCall]:
    """The calls in JSON: an object, a list of objects, or an object that holds them as `tool_calls`."""
    flat = [one for value in values for one in (value if isinstance(value, list) else [value])]
    found = []
    for value in flat:
        if isinstance(value, dict):
            inner = value.get("tool_calls")
            for one in inner if isinstance(inner, list) else [value]:
                if isinstance(one, dict) and (call := _json_call(one)) is not None:
                    found.append(call)
    return found


def _json_call(value: dict[str, Any]) -> ToolCall | None:
    """The call in `{"tool": "submit", "n": 1}` or `{"name": "submit", "arguments": {"n": 1}}`, if it is one."""
    if isinstance(value.get("function"), dict):
        value = value["function"]
    name = next((value[key] for key in _NAME_KEYS if key in value), None)
    if not isinstance(name, str) or plain_name(name) not in _TOOLS:
        return None
    rest = {key: one for key, one in value.items() if key not in (*_NAME_KEYS, "type", "id")}
    return _with_arguments(plain_name(name), next((value[key] for key in _ARGUMENT_KEYS if key in value), rest))


def _with_arguments(name: str, arguments: Any) -> ToolCall:
    if isinstance(arguments, dict):
        return _call(name, arguments)
    return tool_call(name, arguments if isinstance(arguments, str) else json.dumps(arguments))


def _call(name: str, arguments: dict[str, Any]) -> ToolCall:
    """Plain values only, numbers as numbers, lists of lines as text. Raises ArgumentError for anything nested."""
    plain: dict[str, Any] = {}
    for key, value in arguments.items():
        key = clean(key)[:100]
        if isinstance(value, list) and all(isinstance(line, str) for line in value):
            value = "\n".join(line.rstrip("\n") for line in value)
        if isinstance(value, dict | list):
            raise ArgumentError(
                f"ERROR: Invalid arguments for {name!r}: {key} must be a plain value, not {value!r:.80}"
            )
        if isinstance(value, str):
            value = clean(value)
            if key in _INTEGERS and re.fullmatch(r"\s*-?\d{1,9}\s*", value):
                value = int(value)
        elif isinstance(value, float) and key in _INTEGERS and value.is_integer() and abs(value) < 1e9:
            value = int(value)
        plain[key] = value
    return ToolCall(clean(name)[:100], plain)
