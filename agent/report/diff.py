"""A side-by-side diff with syntax colours, as rows of safe HTML."""

from __future__ import annotations

import difflib
import functools
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup, escape

from agent.safe_text import spelt

MAX_LINES = 1500
_CONTEXT = 3
_LONG = 600
_KEPT = 64
"""Texts whose colours are remembered: a page shows a strategy by itself and beside the one that it came from."""


@dataclass(frozen=True)
class Side:
    """One line of one side."""

    number: int
    html: Markup


@dataclass(frozen=True)
class DiffRow:
    """Two lines side by side. A `gap` row stands for `skipped` equal lines."""

    kind: Literal["equal", "changed", "removed", "added", "gap"]
    left: Side | None = None
    right: Side | None = None
    skipped: int = 0


@dataclass(frozen=True)
class Diff:
    """All rows, and the numbers of added and removed lines. `cut` rows were left out at the end."""

    rows: tuple[DiffRow, ...]
    added: int
    removed: int
    cut: int = 0

    @property
    def one_column(self) -> bool:
        """Whether side by side half of the table would be empty: most lines of the change stand on one side."""
        changes = [row for row in self.rows if row.kind not in ("equal", "gap")]
        alone = sum(row.kind != "changed" for row in changes)
        same = sum(row.kind == "equal" for row in self.rows)
        return alone > 8 and alone > len(self.rows) / 3 and same < alone


def side_by_side(old: str, new: str) -> Diff:
    """The diff of two region texts."""
    old, new = spelt(old), spelt(new)
    before, after = _lines(old), _lines(new)
    left, right = _coloured(old, len(before)), _coloured(new, len(after))
    rows: list[DiffRow] = []
    added = removed = shown = 0
    for group in _matcher(before, after).get_grouped_opcodes(_CONTEXT):
        if (skipped := group[0][1] - shown) > 0:
            rows.append(DiffRow("gap", skipped=skipped))
        shown = group[-1][2]
        for tag, i1, i2, j1, j2 in group:
            if tag != "equal":
                added, removed = added + j2 - j1, removed + i2 - i1
            for offset in range(max(i2 - i1, j2 - j1)):
                one = Side(i1 + offset + 1, left[i1 + offset]) if i1 + offset < i2 else None
                other = Side(j1 + offset + 1, right[j1 + offset]) if j1 + offset < j2 else None
                rows.append(DiffRow(_kind(tag, one, other), one, other))
    if rows and len(before) > shown:
        rows.append(DiffRow("gap", skipped=len(before) - shown))
    return Diff(tuple(rows[:MAX_LINES]), added, removed, max(0, len(rows) - MAX_LINES))


def changed_lines(old: str, new: str) -> tuple[int, int]:
    """How many lines came and how many went, as `side_by_side` counts them."""
    changes = [one for one in _matcher(_lines(spelt(old)), _lines(spelt(new))).get_opcodes() if one[0] != "equal"]
    return sum(j2 - j1 for *_, j1, j2 in changes), sum(i2 - i1 for _, i1, i2, _, _ in changes)


def _matcher(before: list[str], after: list[str]) -> difflib.SequenceMatcher[str]:
    # Thousands of equal lines take a minute unless the commonest ones are left out of the search.
    return difflib.SequenceMatcher(None, before, after, autojunk=len(after) > _LONG)


def _kind(tag: str, left: Side | None, right: Side | None) -> Literal["equal", "changed", "removed", "added"]:
    if tag == "equal":
        return "equal"
    if left is None:
        return "added"
    return "removed" if right is None else "changed"


def coloured(code: str) -> Markup:
    """Python code as HTML with classes; plain escaped text when the highlighter changes the number of lines."""
    code = spelt(code)
    return Markup("\n").join(_coloured(code, len(_lines(code))))


def _lines(code: str) -> list[str]:
    """Lines as git and the highlighter count them: a form feed does not end a line."""
    return code.removesuffix("\n").split("\n") if code else []


@functools.lru_cache(_KEPT)
def _coloured(code: str, lines: int) -> tuple[Markup, ...]:
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    html = highlight(code, PythonLexer(stripnl=False, ensurenl=False), HtmlFormatter(nowrap=True))
    # Pygments escapes what it is given and closes each span at the end of its line.
    coloured_lines = tuple(Markup(line) for line in _lines(html))
    return coloured_lines if len(coloured_lines) == lines else tuple(escape(line) for line in _lines(code))
