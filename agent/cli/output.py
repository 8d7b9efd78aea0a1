"""What every command prints with: one JSON object per line for programs, a console for people."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object on one line of stdout, and flush."""
    print(json.dumps(value, ensure_ascii=False, default=str), flush=True)


def print_next(command: str) -> None:
    """Name the next useful command on stderr."""
    print(f"next: {command}", file=sys.stderr)


def make_console() -> Console:
    """The console for stdout: as wide as the terminal; in a pipe without colour and so wide that no table is cut."""
    from rich.console import Console

    plain = not sys.stdout.isatty()
    return Console(highlight=False, markup=False, emoji=False, soft_wrap=plain, width=500 if plain else None)
