"""A script as proposer: prepared tool calls, for tests, demonstrations and existing code."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from agent.errors import UsageError, unread
from agent.protocol import Observation, Situation, ToolCall, replace_region
from agent.spaces.start import accepted
from benchmark.files import read_regular
from sandbox.region import region_of

MAX_BYTES = 16 * 2**20
Step = Callable[[Situation], ToolCall]


class ScriptedProposer:
    """Makes its calls one after the other and ignores the replies."""

    ignores_baseline = True

    def __init__(self, steps: Iterable[ToolCall | Step], name: str = "scripted") -> None:
        self.name = name
        self._steps = iter(tuple(steps))

    def ask(self, situation: Situation) -> ToolCall | None:
        """The next call of the script, or None at the end."""
        step = next(self._steps, None)
        return step(situation) if callable(step) else step

    def tell(self, call: ToolCall, observation: Observation) -> None:
        """Does nothing, because a script does not depend on replies."""

    @classmethod
    def from_script(cls, script: str, name: str = "scripted") -> ScriptedProposer:
        """A JSON list of tool calls, or a region text (then: edit, test, submit).

        A call is `{"tool": NAME, "arguments": {…}}`; the spellings of the public record (`tool_name`, `tool_input`)
        and of Chat Completions (`function`: `name` and `arguments` as a string) are understood too.
        Raises ValueError when it is neither of the two.
        """
        if _is_list(script):
            return cls(_parse(script), name)
        region = region_of(script)
        edit: Step = lambda situation: replace_region(situation, region)  # noqa: E731 - a step like the others
        return cls([edit, ToolCall("test"), ToolCall("submit", {"n": 1})], name)


def read_script(path: str) -> str:
    """Read a script from a file.

    Raises UsageError when the file is missing or is not a script, Rejected when its region breaks a rule.
    """
    if not path:
        raise UsageError("--proposer scripted:FILE needs a file: a JSON list of tool calls, or a region text")
    if Path(path).is_dir():
        raise UsageError(f"--proposer scripted:{path}: cannot be read: Is a directory")
    try:
        text = read_regular(Path(path), limit=MAX_BYTES).decode("utf-8-sig")
        if Path(path).suffix == ".json" or _is_list(text):
            _parse(text)
        else:
            accepted(region_of(text), text, f"--proposer scripted:{path}", Path(path))
    except FileNotFoundError:
        raise UsageError(f"--proposer scripted:{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--proposer scripted:{path}: {unread(error)}") from None
    except ValueError as error:
        raise UsageError(f"--proposer scripted:{path}: {error!s:.300}") from None
    return text


def as_script(calls: Iterable[ToolCall]) -> str:
    """Tool calls as a text that `ScriptedProposer.from_script` reads."""
    return json.dumps([{"tool": call.tool, "arguments": dict(call.arguments)} for call in calls])


def _is_list(script: str) -> bool:
    return script.lstrip().startswith("[")


def _parse(text: str) -> list[ToolCall]:
    try:
        items = json.loads(text)
    except RecursionError:
        raise ValueError("not a list of tool calls: nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(items, list):
        raise ValueError("expected a JSON list of tool calls")
    return [_call(number, item) for number, item in enumerate(items, start=1)]


def _call(number: int, item: Any) -> ToolCall:
    if isinstance(item, dict) and isinstance(item.get("function"), dict):
        item = item["function"]
    if isinstance(item, dict):
        name = next((item[key] for key in ("tool", "tool_name", "name") if key in item), None)
        arguments: Any = next((item[key] for key in ("arguments", "tool_input", "args") if key in item), {})
        if isinstance(arguments, str):
            arguments = json.loads(arguments, strict=False)
        if isinstance(name, str) and isinstance(arguments, dict):
            return ToolCall(name, arguments)
    raise ValueError(f'call {number} is not {{"tool": NAME, "arguments": {{…}}}} but {str(item)[:200]}')
