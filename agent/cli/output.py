"""What every command prints with: one JSON object a line for programs, a console for people."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def print_json(value: dict[str, Any]) -> None:
    """One JSON object on one line of stdout, at once."""
    line = json.dumps(value, ensure_ascii=False, default=str)
    # Half of a surrogate pair, which no terminal or pipe can take, becomes JSON's own escape.
    print(line.encode(errors="backslashreplace").decode(), flush=True)


def make_console() -> Console:
    """stdout for people: as wide as the terminal; in a pipe without colour and so wide that no table is cut."""
    from rich.console import Console

    plain = not sys.stdout.isatty()
    return Console(highlight=False, markup=False, emoji=False, soft_wrap=plain, width=500 if plain else None)
