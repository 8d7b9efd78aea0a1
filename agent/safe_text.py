"""Untrusted text for people: nothing invisible may steer a terminal or make code look like something else."""

from __future__ import annotations

import unicodedata

_JOINERS = "\u200c\u200d"
"""Zero-width (non-)joiners, which Persian, Indic scripts and emoji need."""


def spelt(value: str) -> str:
    """The text with control characters, overrides of the writing direction and half surrogate pairs spelt out.

    Every script is left as it is; so are newlines and tabs.
    """
    return "".join(char if _harmless(char) else _escape(char) for char in value)


def _harmless(char: str) -> bool:
    return char in "\n\t" or char.isprintable() or char in _JOINERS or unicodedata.category(char) == "Zs"


def _escape(char: str) -> str:
    return f"\\x{ord(char):02x}" if ord(char) < 256 else f"\\u{ord(char):04x}"
