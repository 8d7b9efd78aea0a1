"""Canned tool calls as a proposer: for tests, demonstrations, and code that somebody already wrote."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from agent.errors import UsageError
from agent.protocol import Observation, Situation, ToolCall, replace_region
from benchmark.files import read_regular
from sandbox.region import RegionError, region_of

MAX_BYTES = 16 * 2**20
Step = Callable[[Situation], ToolCall]


class ScriptedProposer:
    """Plays its calls one after the other, whatever the answers are."""

    def __init__(self, steps: Iterable[ToolCall | Step], name: str = "scripted") -> None:
        self.name = name
        self._steps = iter(tuple(steps))

    def ask(self, situation: Situation) -> ToolCall | None:
        """The next canned call, or None at the end."""
        step = next(self._steps, None)
        return step(situation) if callable(step) else step

    def tell(self, call: ToolCall, observation: Observation) -> None:
        """A script does not listen."""

    @classmethod
    def from_file(cls, argument: str) -> ScriptedProposer:
        """A JSON list of tool calls, or a region text (then: edit, test, submit).

        A call is `{"tool": NAME, "arguments": {…}}`; the spellings of the public record (`tool_name`, `tool_input`)
        and of Chat Completions (`function`: `name` and `arguments` as a string) are understood too.
        Raises UsageError when the file is missing or neither of the two.
        """
        if not argument:
            raise UsageError("--proposer scripted:FILE needs a file: a JSON list of tool calls, or a region text")
        try:
            text = read_regular(Path(argument), limit=MAX_BYTES).decode("utf-8")
        except FileNotFoundError:
            raise UsageError(f"--proposer scripted:{argument}: no such file") from None
        except UnicodeDecodeError as error:
            raise UsageError(f"--proposer scripted:{argument}: not UTF-8 text: {error}") from None
        except OSError as error:
            raise UsageError(f"--proposer scripted:{argument}: cannot be read: {error.strerror}") from None
        try:
            if Path(argument).suffix == ".json" or text.lstrip().startswith("["):
                return cls(_parse(text))
            region = region_of(text)
        except RecursionError:
            raise UsageError(f"--proposer scripted:{argument}: nested too deeply") from None
        except (RegionError, ValueError) as error:
            raise UsageError(f"--proposer scripted:{argument}: {error!s:.300}") from None
        edit: Step = lambda situation: replace_region(situation, region)  # noqa: E731 - a step like the others
        return cls([edit, ToolCall("test"), ToolCall("submit", {"n": 1})])


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
