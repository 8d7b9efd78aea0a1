"""The conversation of a run for the page. Long texts are shortened so that all steps fit, and their length is shown."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from agent.runs.log_lines import Fields
from agent.runs.record import ToolStep
from agent.runs.untrusted import mapping, text

MAX_STEPS = 600
"""The most steps that are shown. For a longer run, half of these are the first steps and half the last."""


@dataclass(frozen=True)
class Excerpt:
    """A text or its beginning. `length` is the length of the whole text in characters."""

    shown: str
    length: int

    @property
    def cut(self) -> bool:
        """Whether the text was shortened."""
        return len(self.shown) < self.length


@dataclass(frozen=True)
class StepPart:
    """One labelled text of a step, such as the thought, the new code or the reply."""

    label: str
    excerpt: Excerpt
    code: bool = False


@dataclass(frozen=True)
class StepView:
    """One step on the page."""

    number: int
    tool: str
    brief: str
    ok: bool | None
    error: str | None
    seconds: float | None
    parts: tuple[StepPart, ...]


@dataclass(frozen=True)
class TranscriptView:
    """The steps that are shown. `left_out` steps are missing between `steps[:cut]` and `steps[cut:]`."""

    steps: tuple[StepView, ...]
    left_out: int
    cut: int


def transcript(steps: Sequence[ToolStep], *, budget: int) -> TranscriptView:
    """All steps, or the first and the last ones. Their texts together take at most about `budget` bytes of HTML."""
    half = MAX_STEPS // 2
    shown = list(steps) if len(steps) <= MAX_STEPS else [*steps[:half], *steps[-half:]]
    parts = [_parts(step) for step in shown]
    limit = _fair_limit([_weight(body) for step in parts for _, body, _ in step], budget)
    views = tuple(_view(step, texts, limit) for step, texts in zip(shown, parts, strict=True))
    return TranscriptView(views, len(steps) - len(shown), half if len(shown) < len(steps) else len(shown))


def excerpt(body: str, limit: int) -> Excerpt:
    """The beginning of `body` that takes at most `limit` bytes of HTML, cut at a line end if one is near."""
    if _weight(body) <= limit:
        return Excerpt(body, len(body))
    most = bisect_right(range(1, min(len(body), limit) + 1), limit, key=lambda length: _weight(body[:length]))
    newline = body.rfind("\n", int(most * 0.8), most)
    return Excerpt(body[: newline if newline > 0 else most], len(body))


def _weight(body: str) -> int:
    """The size of the text in bytes after escaping for HTML."""
    special = sum(body.count(char) for char in "&<>\"'")
    return len(body.encode(errors="replace")) + 5 * special


def _fair_limit(weights: Sequence[int], budget: int) -> int:
    """The largest limit per text for which all texts together stay within the budget."""
    limits = range(1, max([*weights, 1]) + 1)
    return bisect_right(limits, budget, key=lambda limit: sum(min(weight, limit) for weight in weights))


def _view(step: ToolStep, parts: Sequence[tuple[str, str, bool]], limit: int) -> StepView:
    return StepView(
        number=step.number,
        tool=step.tool[:40],
        brief=_brief(step),
        ok=step.ok,
        error=step.error and step.error[:200],
        seconds=step.seconds,
        parts=tuple(StepPart(label, excerpt(body, limit), code) for label, body, code in parts if body),
    )


def _brief(step: ToolStep) -> str:
    """The short arguments in one line."""
    small = {name: value for name, value in step.arguments.items() if name not in ("content", "filename")}
    return ", ".join(f"{name} {value}" for name, value in small.items())[:160]


def _parts(step: ToolStep) -> list[tuple[str, str, bool]]:
    """(label, text, whether it is code)."""
    parts: list[tuple[str, str, bool]] = []
    for content in step.thoughts:
        parts += _thought(content)
    if (code := step.arguments.get("content")) is not None:
        parts.append(("code", text(code), True))
    if step.reply is None:
        parts.append(("reply", "none was recorded: the search stopped here", False))
    else:
        parts.append(("reply", step.reply, True))
    return parts


def _thought(content: Fields) -> list[tuple[str, str, bool]]:
    message = mapping(content.get("message"))
    if not message:
        said = text(content.get("strategy"))
        rest = {name: value for name, value in content.items() if name != "strategy"}
        return [("proposal", said, False), ("proposal, numbers", json.dumps(rest, ensure_ascii=False), True)]
    thinking = message.get("reasoning_content") or message.get("reasoning")
    return [("thinking", text(thinking), False), ("said", text(message.get("content")), False)]
