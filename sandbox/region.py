"""Split the scaffold into prefix, region and suffix, so that only the region can change.

Two marker comments enclose the region; no line number is stored anywhere. The text of the scaffold is the source of the
module `sandbox.custom_init`.
"""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from sandbox.lines import EditableFile, Range, split_lines, unify_newlines

FUNCTION = "initialize_weights"
"""The function that the region must define."""

SCAFFOLD_NAME = "sandbox/custom_init.py"
"""The scaffold's name in tools and prompts. Its first component is the only package that edits may name."""

NAMES_IN_SCOPE = ("math", "np", "torch", "nn", "init", "F", "BasicBlock", "InvertedResidual")
"""Names that a region may use without importing them."""

_BEGIN = re.compile(r"^# =+ EDITABLE REGION: begin =+\n", re.MULTILINE)
# Formatters add blank lines between the function and the marker. They belong to the suffix.
_END = re.compile(r"^\n{0,2}# =+ EDITABLE REGION: end =+$", re.MULTILINE)

_EXPORT_HEADER = re.compile(
    r'\A"""A weight initialisation found by initsearch (?:(?!""").)*"""\n\nfrom __future__ import annotations\n\n'
    r"(?:(?:(?:import|from) [^\n]*\n|\n(?=import |from ))+|\n)"
    r"(?:\n\n(?:def|class) \w+[^\n]*:\n"
    r'    """(?:The `config` that initialize_weights wants|Stands for this project)[^\n]*\n(?:    [^\n]+\n)*)*'
    r"\n{0,2}",
    re.DOTALL,
)
"""What `agent.runs.stand_alone` writes before the region of a module: docstring, imports, helper, stand-ins."""

EXPORT_END = "# ==== initsearch: what follows lets the function run on networks that it was not written for ===="
"""The line after the region of an exported module."""


class RegionError(ValueError):
    """A text is neither a region nor our scaffold with a region. `kind` is the one that `agent check` prints."""

    kind = "outside_region"


class MarkersNotFoundError(RegionError):
    """A marker of the editable region is missing, or the markers are in the wrong order."""


class OutsideRegionError(RegionError):
    """A whole scaffold differs from ours outside the region."""


def sha256(text: str) -> str:
    """Return the SHA-256 of the UTF-8 bytes, hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Scaffold:
    """A file in three parts: `prefix` ends with the begin marker, `suffix` starts before the end marker.

    `suffix` includes up to two blank lines before its marker. `region` is "" or ends in a newline.
    """

    prefix: str
    region: str
    suffix: str

    @property
    def text(self) -> str:
        """The whole file."""
        return self.prefix + self.region + self.suffix

    @property
    def prefix_sha256(self) -> str:
        """SHA-256 of the fixed part before the region."""
        return sha256(self.prefix)

    @property
    def suffix_sha256(self) -> str:
        """SHA-256 of the fixed part after the region."""
        return sha256(self.suffix)

    @property
    def lines(self) -> Range:
        """The range of lines that the region has in the file."""
        first = self.prefix.count("\n") + 1
        return Range(first, first + self.region.count("\n") - 1)

    def with_region(self, region: str) -> Scaffold:
        """Return the same file with another region, which is normalised."""
        return Scaffold(self.prefix, normalise_region(region), self.suffix)

    def editable(self, name: str = SCAFFOLD_NAME) -> EditableFile:
        """Return the file in the form that `sandbox.editing` takes."""
        return EditableFile.from_text(name, self.text, [self.lines])

    def region_in(self, text: str) -> str:
        """Return the region of `text`. Raises OutsideRegionError, with the line, if `text` differs elsewhere."""
        if (
            len(text) >= len(self.prefix) + len(self.suffix)
            and text.startswith(self.prefix)
            and text.endswith(self.suffix)
        ):
            region = text[len(self.prefix) : len(text) - len(self.suffix)]
            if region == "" or region.endswith("\n"):
                return region
        raise OutsideRegionError(f"the text differs from the scaffold outside the editable region: {self._where(text)}")

    def region_in_edited(self, text: str) -> str:
        """The same for a file that an editor saved: its last newline may be missing, and so may the blank lines before
        the end marker, because they stand between the markers, where everything may change."""
        text = text if text.endswith("\n") else text + "\n"
        try:
            return self.region_in(text)
        except OutsideRegionError:
            marker = self.suffix.lstrip("\n")
            between = text[len(self.prefix) : len(text) - len(marker)]
            if text != self.prefix + between + marker or not (between == "" or between.endswith("\n")):
                raise
        region = between.rstrip("\n")
        return region and region + "\n"

    def _where(self, text: str) -> str:
        theirs = split_lines(text)
        for number, line in enumerate(split_lines(self.prefix), 1):
            found = theirs[number - 1] if number <= len(theirs) else None
            if found != line:
                return _mismatch(number, line, found)
        fixed = split_lines(self.suffix)
        for back, line in enumerate(reversed(fixed), 1):
            found = theirs[-back] if back <= len(theirs) else None
            if found != line:
                return _mismatch(len(theirs) - back + 1, line, found)
        return "the last line has no newline, or a marker is not on a line of its own"


def _mismatch(number: int, expected: str, found: str | None) -> str:
    seen = "is missing" if found is None else f"reads {found!r:.90}"
    return f"line {number} must read {expected!r:.90} but {seen}"


def normalise_region(text: str) -> str:
    """Use Unix newlines and, unless the text is empty, a final newline, so that equal code has equal bytes."""
    text = unify_newlines(text)
    return text if text == "" or text.endswith("\n") else text + "\n"


def split(text: str) -> Scaffold:
    """Split a scaffold at its first begin marker and its last end marker.

    Raises MarkersNotFoundError if one is missing or they are in the wrong order.
    """
    begin = _BEGIN.search(text)
    end = next(reversed(list(_END.finditer(text))), None)
    if begin is None or end is None:
        missing = " and ".join(name for name, found in (("begin", begin), ("end", end)) if found is None)
        raise MarkersNotFoundError(f"no '# ==== EDITABLE REGION: {missing} ====' marker on a line of its own")
    if end.start() < begin.end():
        raise MarkersNotFoundError("the end marker of the editable region comes before its begin marker")
    return Scaffold(text[: begin.end()], text[begin.end() : end.start()], text[end.start() :])


@functools.cache
def scaffold() -> Scaffold:
    """Return our scaffold with the untouched region, `kaiming_normal`."""
    return split(Path(__file__).with_name("custom_init.py").read_text(encoding="utf-8"))


def region_of(text: str) -> str:
    """Return the region that a file contains: the whole text, or that of a whole scaffold or of an exported module.

    A text with a marker counts as a whole scaffold. All bytes outside its region must then equal ours, after Windows
    line ends have become "\\n". A byte order mark at its start is no part of the text. `sandbox.rules` checks the
    region itself.
    Raises MarkersNotFoundError or OutsideRegionError, both a RegionError of kind "outside_region".
    """
    text = unify_newlines(text.removeprefix("\ufeff"))
    if _BEGIN.search(text) is None and _END.search(text) is None:
        header = _EXPORT_HEADER.match(text)
        if header is None:
            return normalise_region(text)
        region, after, rest = text[header.end() :].rpartition(f"\n\n{EXPORT_END}\n")
        return normalise_region(region if after else rest)
    split(text)
    return scaffold().region_in_edited(text)
