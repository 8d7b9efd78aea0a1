"""Splits a submission into parts: the hunks of its diff against the start, and its numbers."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from agent.spaces.literals import ScalableNumber, ScaleCommentError, find_numbers, readable, rescale
from sandbox.parsing import parse


@dataclass(frozen=True)
class Part:
    """One change of the submission. `region` is the submission without it; `label` is unique among the parts."""

    kind: Literal["hunk", "number"]
    label: str
    region: str


def find_parts(start: str, submission: str) -> list[Part]:
    """The parts of a change: hunks, the largest first, then numbers.

    Parts are left out that change no code (comments, docstrings), are the whole change, or equal another part. A number
    goes back to its value in the start. If the start has no number of that name, it goes back to the value at which it
    has no effect, judged by its name and range.
    """
    seen = {_code(start), _code(submission)}
    parts = []
    for part in (*_hunks(start, submission), *_numbers(start, submission)):
        code = _code(part.region)
        if code not in seen:
            seen.add(code)
            parts.append(part)
    return parts


def _hunks(start: str, submission: str) -> list[Part]:
    """Runs of changed lines; blank lines alone do not separate them."""
    old, new = start.splitlines(keepends=True), submission.splitlines(keepends=True)
    spans: list[tuple[int, int, int, int]] = []
    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        if spans and not "".join(new[spans[-1][3] : j1]).strip():
            i1, _, j1, _ = spans.pop()
        spans.append((i1, i2, j1, j2))
    spans.sort(key=lambda span: min(span[0] - span[1], span[2] - span[3]))
    return [
        Part("hunk", _place(i2 - i1, j1, j2), "".join([*new[:j1], *old[i1:i2], *new[j2:]])) for i1, i2, j1, j2 in spans
    ]


def _place(old: int, first: int, end: int) -> str:
    """The lines of a hunk in the submission, counted from 1."""
    if first == end:
        return f"{old} line{'s' if old > 1 else ''} removed after line {first}"
    return f"line {end}" if end - first == 1 else f"lines {first + 1}–{end}"


def _numbers(start: str, submission: str) -> Iterator[Part]:
    known = {number.name: number.value for number in _found(start)}
    for number in _found(submission):
        value = known.get(number.name, _idle(number))
        if value is not None and value != number.value:
            label = f"{number.name} {readable(number.value)} → {readable(value)}"
            yield Part("number", label, rescale(submission, {number.name: value}))


def _found(region: str) -> list[ScalableNumber]:
    try:
        return find_numbers(region)
    except (SyntaxError, ScaleCommentError):
        return []


def _idle(number: ScalableNumber) -> float | None:
    """The value at which a number has no effect: 0 for an exponent, 1 for a factor, else 0; None if out of range."""
    if "exponent" in number.name:
        return 0.0
    if number.log or number.low <= 1 <= number.high:
        return 1.0
    return 0.0 if number.low <= 0 <= number.high else None


def _code(region: str) -> str:
    """The region's syntax tree without comments and docstrings; its text if it does not parse."""
    try:
        tree = parse(region)
    except SyntaxError:
        return region
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    try:
        return ast.dump(tree)
    except (RecursionError, ValueError):  # nested too deeply, or a number with too many digits to print
        return region
