"""The scaffold as prefix + region + suffix, so that nothing but the region can change.

The region lies between two marker comments; no line number is written down anywhere. The text of the scaffold is the
module `sandbox.custom_init` itself.
"""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from sandbox.lines import EditableFile, Range, split_lines, unify_newlines

FUNCTION = "initialize_weights"
"""What the region must define."""

SCAFFOLD_NAME = "sandbox/custom_init.py"
"""How the scaffold is called in tools and prompts; the first component is the package that edits are allowed in."""

NAMES_IN_SCOPE = ("math", "np", "torch", "nn", "init", "F", "BasicBlock", "InvertedResidual")
"""What a region may use without importing it."""

_BEGIN = re.compile(r"^# =+ EDITABLE REGION: begin =+\n", re.MULTILINE)
# Formatters want blank lines between the function and the marker: they belong to the suffix.
_END = re.compile(r"^\n{0,2}# =+ EDITABLE REGION: end =+$", re.MULTILINE)

_EXPORT_HEADER = re.compile(
    r'\A"""A weight initialisation found by initsearch (?:(?!""").)*"""\n\nfrom __future__ import annotations\n\n'
    r"(?:(?:(?:import|from) [^\n]*\n)+|\n)"
    r"(?:\n\n(?:def|class) \w+[^\n]*:\n"
    r'    """(?:The `config` that initialize_weights wants|Stands for this project)[^\n]*\n(?:    [^\n]+\n)*)*'
    r"\n{0,2}",
    re.DOTALL,
)
"""What `agent.runs.artifacts` writes before the region of an exported module: docstring, imports, helper, stand-ins."""


class RegionError(ValueError):
    """A text is neither a region nor our scaffold with another region. `kind` as in the contract of `agent check`."""

    kind = "outside_region"


class MarkersNotFoundError(RegionError):
    """A marker of the editable region is missing, or the two are in the wrong order."""


class OutsideRegionError(RegionError):
    """A whole scaffold differs from ours outside the region."""


def sha256(text: str) -> str:
    """SHA-256 of the UTF-8 bytes, hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Scaffold:
    """A file in three parts. `prefix` ends with the begin marker's line, `suffix` starts with the end marker's and the
    blank lines before it.

    `region` is "" or ends in a newline.
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
        """Where the region lies in the file, counted from its text."""
        first = self.prefix.count("\n") + 1
        return Range(first, first + self.region.count("\n") - 1)

    def with_region(self, region: str) -> Scaffold:
        """The same file with another region, in normal form."""
        return Scaffold(self.prefix, normalise_region(region), self.suffix)

    def editable(self, name: str = SCAFFOLD_NAME) -> EditableFile:
        """The file as the editing machine wants it."""
        return EditableFile.from_text(name, self.text, [self.lines])

    def region_in(self, text: str) -> str:
        """The region of `text`, whose other bytes must be ours; raises OutsideRegionError that names the first line."""
        if (
            len(text) >= len(self.prefix) + len(self.suffix)
            and text.startswith(self.prefix)
            and text.endswith(self.suffix)
        ):
            region = text[len(self.prefix) : len(text) - len(self.suffix)]
            if region == "" or region.endswith("\n"):
                return region
        raise OutsideRegionError(f"the text differs from the scaffold outside the editable region: {self._where(text)}")

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
    """Unix newlines, and a final newline unless the text is empty: equal code has equal bytes."""
    text = unify_newlines(text)
    return text if text == "" or text.endswith("\n") else text + "\n"


def split(text: str) -> Scaffold:
    """Take a scaffold apart at its markers: the first that begins, the last that ends.

    Raises MarkersNotFoundError when one is missing or they are in the wrong order.
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
    """Our scaffold with the untouched region, `kaiming_normal`."""
    return split(Path(__file__).with_name("custom_init.py").read_text(encoding="utf-8"))


def region_of(text: str) -> str:
    """The region that a file means: a region text as it is, or that of a whole scaffold or of an exported module.

    A text that holds a marker is taken for a whole scaffold, and all of it outside the region must be ours byte for
    byte (after Windows line ends have become "\\n"). Whether the region is any good is for `sandbox.rules`.
    Raises MarkersNotFoundError or OutsideRegionError, both a RegionError of kind "outside_region".
    """
    text = unify_newlines(text)
    if _BEGIN.search(text) is None and _END.search(text) is None:
        return normalise_region(_EXPORT_HEADER.sub("", text, count=1))
    split(text)
    return scaffold().region_in(text if text.endswith("\n") else text + "\n")
