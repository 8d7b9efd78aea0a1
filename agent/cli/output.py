"""Output of the commands: one JSON object per line for programs, a console for people.

A plain `print` is safe too, because `main` makes stdout and stderr escape control characters (see `agent.safe_text`).
"""

from __future__ import annotations

import io
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from agent.errors import AgentError, Interrupted, in_one_sentence
from agent.safe_text import SafeStream, json_line, lacks_characters, safe_console, spelt

if TYPE_CHECKING:
    from rich.console import Console

    from agent.progress import Progress


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object on one line of stdout, and flush."""
    print(json_line(value), flush=True)


def write_data(text: str) -> None:
    """Write a file's text to stdout: unchanged in a pipe, with control characters escaped on a terminal."""
    stream = sys.stdout
    if isinstance(stream, SafeStream) and not stream.isatty():
        stream = stream.wrapped
        if isinstance(stream, io.TextIOWrapper) and lacks_characters(stream):
            stream.reconfigure(encoding="utf-8", errors="strict")  # as in the file, whatever the locale
    stream.write(text)
    stream.flush()


@contextmanager
def showing(*, again: str, stopped: Callable[[], str] = lambda: "nothing is lost, go on") -> Iterator[Progress]:
    """Show progress on stderr. `again` is the command that goes on after a signal or a failure of our machinery.

    After a signal, `stopped` says what it does.
    """
    from agent.cli.live_table import make_progress
    from agent.engine.summary import OUR_FAILURES

    progress = make_progress()
    try:
        yield progress
    except (Interrupted, KeyboardInterrupt) as stop:
        progress.close()
        print(f"stopped; {stopped()} with: {again}", file=sys.stderr)
        raise stop if isinstance(stop, Interrupted) else Interrupted(2) from None
    except OUR_FAILURES as error:
        told = in_one_sentence(error) if isinstance(error, OSError) else str(error)
        raise AgentError(f"{told}\nwhat was done is kept; go on with: {again}") from None
    finally:
        progress.close()


def say(text: str) -> None:
    """One line on stderr at each step: some take many seconds."""
    print(text, file=sys.stderr, flush=True)


def print_next(command: str) -> None:
    """Name the next useful command on stderr."""
    print(f"next: {command}", file=sys.stderr)


def asking() -> Callable[[str], bool] | None:
    """Puts a yes-or-no question to the person at the terminal; None where nobody sits at one."""
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    return lambda question: typer.confirm(spelt(question), default=False, err=True)


def run_words(run: Path) -> str:
    """How the next command names a run: by its name where that finds it, else by its path; in quotes for a shell.

    Whoever made a run chose the name of its folder.
    """
    default = Path(os.environ.get("INITSEARCH_RUNS") or "runs")
    named = run.parent == default.absolute().resolve() and not run.name.startswith("-")
    return shlex.quote(run.name if named else str(run))


def make_console() -> Console:
    """The console for stdout: as wide as the terminal; in a pipe without colour and so wide that no table is cut."""
    plain = not sys.stdout.isatty()
    return safe_console(highlight=False, markup=False, emoji=False, soft_wrap=plain, width=500 if plain else None)
