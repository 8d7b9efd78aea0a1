"""Makes untrusted text safe to show: invisible characters cannot control a terminal or disguise code."""

from __future__ import annotations

import codecs
import io
import json
import sys
import unicodedata
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO, cast

if TYPE_CHECKING:
    from rich.console import Console

_JOINERS = "\u200c\u200d"
"""Zero-width joiner and non-joiner. Persian, Indic scripts and emoji need them."""


def spelt(value: str) -> str:
    """Replace control characters, direction overrides and lone surrogates in the text by visible escapes.

    Letters of every script, newlines and tabs are not changed.
    """
    return value.translate(_SPELT)


def json_line(value: object) -> str:
    """`value` as JSON on one line. What `spelt` would replace is written as a JSON escape, so no value changes."""
    return json.dumps(value, ensure_ascii=lacks_characters(sys.stdout), default=str).translate(_JSON_SPELT)


def lacks_characters(stream: object) -> bool:
    """Whether a stream's encoding is one of those that have few characters, as in a locale that is not UTF-8."""
    return not str(getattr(stream, "encoding", None) or "utf-8").lower().startswith("utf")


class SafeStream:
    """A text stream that applies `spelt` to what is written. Everything else goes to the wrapped stream."""

    def __init__(self, wrapped: TextIO) -> None:
        self.wrapped = wrapped

    def write(self, text: str) -> int:
        """See `spelt`. Returns the number of characters of `text`."""
        self.wrapped.write(spelt(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """See `write`."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrapped, name)


_PLAIN = {"−": "-", "–": "-", "…": "...", "×": "x", "→": "->", "·": "-", "“": '"', "”": '"', "’": "'"}


def _plainly(error: UnicodeError) -> tuple[str, int]:
    """What a terminal's encoding lacks, as plain characters or as escapes: a minus must not become a question mark."""
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    return "".join(_PLAIN.get(char) or ascii(char)[1:-1] for char in lacking), error.end


def guard_output() -> None:
    """Apply `spelt` to all that this process prints to stdout and stderr, errors and tracebacks included.

    Where the locale is not UTF-8, characters that it lacks are written plainly.
    """
    codecs.register_error("plainly", _plainly)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper) and lacks_characters(stream):
            stream.reconfigure(errors="plainly")
        if stream is not None and not isinstance(stream, SafeStream):
            setattr(sys, name, cast(TextIO, SafeStream(stream)))


def safe_console(*, stderr: bool = False, **options: Any) -> Console:
    """A Rich console on stdout or stderr. It applies `spelt` to the text that it is given, not to its own colours.

    `options` are those of `rich.console.Console`.
    """
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment
    from rich.text import Text

    class SafeConsole(Console):
        def render_str(self, text: str, **how: Any) -> Text:
            return super().render_str(spelt(text), **how)

        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else Segment(spelt(segment.text), segment.style)

    stream: TextIO | SafeStream = sys.stderr if stderr else sys.stdout
    file = stream.wrapped if isinstance(stream, SafeStream) else stream
    return SafeConsole(file=file, **options)


def _harmless(char: str) -> bool:
    return char in "\n\t" or char.isprintable() or char in _JOINERS or unicodedata.category(char) == "Zs"


class _Spelling(dict[int, str]):
    """Table for `str.translate` that computes the replacement of a code point when it is first needed."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json

    def __missing__(self, code: int) -> str:
        char = chr(code)
        if _harmless(char):
            shown = char
        elif code > 0xFFFF:
            shown = json.dumps(char)[1:-1] if self._as_json else f"\\U{code:08x}"
        else:
            shown = f"\\x{code:02x}" if code < 256 and not self._as_json else f"\\u{code:04x}"
        self[code] = shown
        return shown


_SPELT, _JSON_SPELT = _Spelling(as_json=False), _Spelling(as_json=True)
