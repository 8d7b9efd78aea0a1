"""Fenced blocks of a text, with the places where they stand."""

from __future__ import annotations

import re
from dataclasses import dataclass

_OPENING = re.compile(r"^[ \t]*(?P<fence>```+|~~~+)[ \t]*(?P<language>[\w+-]*)[^\n]*\n", re.MULTILINE)


@dataclass(frozen=True)
class FencedBlock:
    """One block that is over at `end`; `text[body_start:body_end]` is what stands inside."""

    end: int
    body_start: int
    body_end: int
    language: str
    closed: bool

    @property
    def is_python(self) -> bool:
        """Whether it says that it is Python, or says nothing."""
        return self.language in ("python", "py", "python3", "")


def next_fence(text: str, position: int = 0) -> re.Match[str] | None:
    """The first line at or after `position` that opens a block, when blocks before it are not looked at."""
    return _OPENING.search(text, position)


def block_at(text: str, fence: re.Match[str]) -> FencedBlock:
    """The block that this line opens. One whose end is missing goes on to the end of the text."""
    closing = re.compile(rf"^[ \t]*{fence['fence']}[ \t\r]*$", re.MULTILINE).search(text, fence.end())
    body_end, end = (closing.start(), closing.end()) if closing else (len(text), len(text))
    return FencedBlock(end, fence.end(), body_end, fence["language"].lower(), closing is not None)
