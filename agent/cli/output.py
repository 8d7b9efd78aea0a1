"""What every command prints with: one JSON object a line for programs, a console for people.

A plain `print` is safe too: `main` makes stdout and stderr spell out control characters (see `agent.safe_text`).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.safe_text import SafeStream, json_line, safe_console

if TYPE_CHECKING:
    from rich.console import Console


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object on one line of stdout, and flush."""
    print(json_line(value), flush=True)


def write_data(text: str) -> None:
    """A file's text on stdout: unchanged for a program that reads it, spelt out on a terminal."""
    stream = sys.stdout
    if isinstance(stream, SafeStream) and not stream.isatty():
        stream = stream.wrapped
    stream.write(text)
    stream.flush()


def print_next(command: str) -> None:
    """Name the next useful command on stderr."""
    print(f"next: {command}", file=sys.stderr)


def run_words(run: Path) -> str:
    """How the next command names a run: by its name where that finds it, else by its path."""
    default = Path(os.environ.get("INITSEARCH_RUNS") or "runs")
    return run.name if run.parent == default.absolute().resolve() else str(run)


def make_console() -> Console:
    """The console for stdout: as wide as the terminal; in a pipe without colour and so wide that no table is cut.


    Text that it is given cannot steer the terminal: see `safe_console`.
    """
    plain = not sys.stdout.isatty()
    return safe_console(highlight=False, markup=False, emoji=False, soft_wrap=plain, width=500 if plain else None)
