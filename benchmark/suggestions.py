"""What a misspelt name was meant to be, in words."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def suggestion(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest known name, or the list of them."""
    listed = sorted(known)
    return "; " + (did_you_mean(name, listed).strip() or f"known: {', '.join(listed)}")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`did you mean 'x'? ` for the nearest known name, or nothing where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {near[0]!r}? " if near else ""
