"""A file as numbered lines. Only some ranges of lines may be edited."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """Lines `start` to `end`, 1-based and inclusive. `end == start - 1` is the empty range before line `start`."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if self.start < 1 or self.end < self.start - 1:
            raise ValueError(f"no such range of lines: {self.start}..{self.end}")

    def __str__(self) -> str:
        return f"{self.start}–{self.end}"

    @property
    def empty(self) -> bool:
        """Whether the range has no lines."""
        return self.end < self.start


def split_lines(content: str) -> list[str]:
    """Split at "\\n" only. One final newline adds no line; the empty text has no lines."""
    if content == "":
        return []
    lines = content.split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def unify_newlines(content: str) -> str:
    """Turn Windows and old Macintosh line ends into "\\n", so that Python counts the same lines as we do."""
    return content.replace("\r\n", "\n").replace("\r", "\n")


@dataclass
class EditableFile:
    """A text file of which only the lines in `ranges` (ascending, disjoint) may change."""

    name: str
    lines: list[str]
    ranges: list[Range]

    def __post_init__(self) -> None:
        last = 0
        for editable in self.ranges:
            if editable.start <= last or editable.end > len(self.lines) or editable.start > len(self.lines) + 1:
                raise ValueError(f"{self.name}: range {editable} is out of order or beyond line {len(self.lines)}")
            last = editable.end

    @classmethod
    def from_text(cls, name: str, text: str, ranges: Iterable[Range]) -> EditableFile:
        """Build from a whole text. Whether it ended in a newline is not recorded."""
        return cls(name, split_lines(text), list(ranges))

    @property
    def text(self) -> str:
        """All lines, each followed by a newline."""
        return "".join(f"{line}\n" for line in self.lines)

    def range_text(self, index: int = 0) -> str:
        """Return the lines of editable range `index`, each followed by a newline."""
        editable = self.ranges[index]
        return "".join(f"{line}\n" for line in self.lines[editable.start - 1 : editable.end])

    def replace(self, first: int, last: int, new: Sequence[str]) -> None:
        """Replace lines `first`..`last`, which lie in one range, by `new` (`last == first - 1`: insert)."""
        hit = next(i for i, r in enumerate(self.ranges) if r.start <= first and last <= r.end)
        self.lines[first - 1 : last] = new
        shift = len(new) - (last - first + 1)
        self.ranges = [
            r if i < hit else Range(r.start + (shift if i > hit else 0), r.end + shift)
            for i, r in enumerate(self.ranges)
        ]
