"""Reads files out of a conversation: from the prompt's listing, and from the views that follow edits.

Line numbers are 1-based and ranges inclusive, as the tools show them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agent.transcripts.model import Segment
from sandbox.lines import EditableFile, Range

# Numbers have at most six digits: nothing recorded may make us build a file of more lines than that.
_HEADING = re.compile(r"^(?:#+[ \t]+)?(?P<name>\S(?:.*\S)?)[ \t]+\[EDITABLE\b(?P<where>[^\]\n]*)\][ \t]*$")
_ANY_HEADING = re.compile(r"^(?:#+[ \t]+)?\S.*\[(?:EDITABLE|READ-ONLY)\b")
_NUMBERED = re.compile(r"^[ \t]*([0-9]{1,6}):(?: (.*)|())$", re.DOTALL)
_RANGE = re.compile(r"(?<![0-9])([0-9]{1,6})\s*[–—-]\s*([0-9]{1,6})(?![0-9])")
_VIEW = re.compile(
    r"^\[Current file: (?P<name>.+) \| editable: (?P<where>[^|]*) \| total: (?P<total>[0-9]{1,6}) lines\]$"
)
_SHOWN = re.compile(r"^ *([0-9]{1,6})([| ]) (.*)$", re.DOTALL)
_STATES = re.compile(r"Editable range: |You may only edit lines ")

_LONG_HEADING = 1_000

_UNKNOWN = "\ufdd0"
"""A code point that Unicode reserves for such use: what begins with it stands for a line that nobody has seen."""
STAND_IN = re.compile(f"{_UNKNOWN}[^{_UNKNOWN}]*{_UNKNOWN}")


@dataclass
class Unseen:
    """Hands out stand-ins for lines that the record does not show, and remembers what they turn out to be.

    A line that the prompt's listing left out (`listed`) may be filled from any view; one that a cut call wrote is
    only learnt, and whatever shows it for the first time has not been verified.
    """

    learnt: dict[str, str] = field(default_factory=dict)
    _count: int = 0

    def line(self, *, listed: bool) -> str:
        """A new stand-in."""
        self._count += 1
        return f"{_UNKNOWN}{'listed' if listed else 'written'} {self._count}{_UNKNOWN}"

    def settle(self, lines: Sequence[str]) -> list[str]:
        """The lines with everything put in that has been learnt."""
        return [self.learnt.get(line, line) for line in lines]

    def settle_text(self, text: str) -> str:
        """The same for a text with stand-ins in it."""
        return STAND_IN.sub(lambda found: self.learnt.get(found[0], found[0]), text)


def is_unseen(line: str) -> bool:
    """Whether this is a stand-in."""
    return line.startswith(_UNKNOWN)


def was_listed(line: str) -> bool:
    """Whether this stand-in is for a line that the prompt's listing should have shown."""
    return line.startswith(f"{_UNKNOWN}listed")


@dataclass(frozen=True)
class Listing:
    """An editable file as the prompt shows it."""

    name: str
    ranges: tuple[Range, ...]
    lines: Mapping[int, str]
    complete: bool
    """False when the prompt was cut before the listing ended, so that the file may be longer."""


@dataclass(frozen=True)
class View:
    """A file as a reply shows it: after an edit, or unchanged after a refused one."""

    name: str
    shown: Range | None
    """The first editable range; None when the file has no editable line."""
    total: int
    lines: Mapping[int, str]
    ranges: tuple[Range, ...] | None
    """All editable ranges, where the reply states them."""


def parse_listings(prompt: str, *, cut: bool = False) -> list[Listing]:
    """The editable files that a prompt lists, with their numbered lines.

    A listing runs from its heading to the fence that closes it or, on pages without fences, to the first line that
    does not carry on with the numbers.
    """
    lines = prompt.split("\n")
    listings = []
    for index, line in enumerate(lines):
        heading = _HEADING.match(line) if len(line) < _LONG_HEADING and "[EDITABLE" in line else None
        if heading is None:
            continue
        body, ended = _numbered(lines, index + 1)
        complete = ended or not cut
        if not complete and body:
            body.popitem()  # the line at which the prompt was cut
        ranges = parse_ranges(heading["where"])
        if not ranges and body and complete:
            ranges = (Range(1, max(body)),)
        if ranges:
            listings.append(Listing(heading["name"], ranges, body, complete))
    return listings


def _numbered(lines: Sequence[str], start: int) -> tuple[dict[int, str], bool]:
    """The numbered lines from `start` on, and whether the listing ended before the prompt did."""
    body: dict[int, str] = {}
    last = 0
    fenced = start < len(lines) and lines[start].startswith("```")
    for line in lines[start + fenced :]:
        numbered = _NUMBERED.match(line)
        if numbered and int(numbered[1]) > last:
            last = int(numbered[1])
            body[last] = numbered[2] or ""
        elif not fenced or line.startswith("```") or _ANY_HEADING.match(line):
            return body, True
        # within fences anything else is a remark between two parts of a listing
    return body, False


def parse_ranges(text: str) -> tuple[Range, ...]:
    """Every "A–B" in a text, in order; an empty one is written "A–A-1"."""
    found = []
    for first, last in _RANGE.findall(text):
        if int(first) >= 1 and int(last) >= int(first) - 1:
            found.append(Range(int(first), int(last)))
    return tuple(found)


def parse_view(reply: str, *, cut: bool = False) -> View | None:
    """The view in a reply to an edit; None when it has none."""
    lines = reply.split("\n")
    for index, line in enumerate(lines):
        head = _VIEW.match(line)
        if head is None:
            continue
        body: dict[int, str] = {}
        number = 0
        for text in lines[index + 1 :]:
            shown = _SHOWN.match(text)
            if shown is None or (body and int(shown[1]) != number + 1):
                break
            number = int(shown[1])
            body[number] = shown[3]
        if cut and body and index + len(body) == len(lines) - 1:
            body.popitem()  # the line at which the reply was cut
        first = parse_ranges(head["where"])
        stated = _STATES.search(lines[0]) if lines[0].endswith(".") else None
        return View(
            name=head["name"],
            shown=first[0] if first else None,
            total=int(head["total"]),
            lines=body,
            ranges=parse_ranges(lines[0][stated.end() : -1]) if stated else None,
        )
    return None


def initial_files(segment: Segment, unseen: Unseen) -> list[EditableFile]:
    """The workspace before a segment's first call, as far as the conversation shows it.

    Fixed lines never change, so any later view may fill those that a cut listing left out; the other gaps become
    stand-ins. A file whose length nothing tells is left out: its calls cannot be verified before a view shows it.
    """
    if segment.workspace is not None:
        return [EditableFile(file.name, list(file.lines), list(file.ranges)) for file in segment.workspace]
    files = []
    replies = (parse_view(call.recorded, cut=call.recorded_cut) for call in segment.calls if call.recorded)
    seen = [view for view in replies if view is not None]
    for listing in parse_listings(segment.prompt, cut=segment.prompt_cut):
        of_file = [view for view in seen if view.name == listing.name]
        total = max(listing.lines, default=0) if listing.complete else _initial_total(listing, of_file)
        if total is None or total < listing.ranges[-1].end:
            continue
        lines = [listing.lines.get(number) for number in range(1, total + 1)]
        for view in of_file:
            _fill_fixed(lines, listing.ranges, view)
        known = [unseen.line(listed=True) if line is None else line for line in lines]
        try:
            files.append(EditableFile(listing.name, known, list(listing.ranges)))
        except ValueError:
            continue  # ranges that contradict each other describe no file
    return files


def _initial_total(listing: Listing, of_file: Sequence[View]) -> int | None:
    """The file's first length: the fixed lines after the last range never change in number."""
    for view in of_file:
        ranges = view.ranges or ((view.shown,) if view.shown and len(listing.ranges) == 1 else ())
        if len(ranges) == len(listing.ranges):
            return listing.ranges[-1].end + view.total - ranges[-1].end
    return None


def _fill_fixed(lines: list[str | None], ranges: Sequence[Range], view: View) -> None:
    """Fill gaps before the first range, and between it and the next one, from the fixed lines of a view."""
    if view.shown is None or view.shown.start != ranges[0].start:
        return  # a range is gone; numbers no longer tell which line is meant
    shift = view.shown.end - ranges[0].end
    after = ranges[1].start if len(ranges) > 1 else len(lines) + 1
    for number, text in view.lines.items():
        if number < view.shown.start:
            first = number
        elif number > view.shown.end and number - shift < after:
            first = number - shift
        else:
            continue
        if 1 <= first <= len(lines) and lines[first - 1] is None:
            lines[first - 1] = text
