"""What a misspelt name was meant to be, in words."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def suggestion(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest known name, or the list of them."""
    listed = sorted(known)
    near = difflib.get_close_matches(name, listed, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(listed)}"
