"""The application that all commands are part of, and what they share."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    name="agent",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="""
\b
Examples:
  agent search --budget 3          search with the built-in proposer, three tests
  agent check my_init.py           is this function acceptable? no training
  agent show latest                what the newest run found
  agent doctor                     what this machine can do

Searches for a better `initialize_weights` for convolutional networks: edits one function, tests it by real training,
submits the best to a hidden task, and says what is resolved and what is not.
""",
)

JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout, for programs.")]
RunsOption = Annotated[Path, typer.Option("--runs", help="Folder of the runs.", envvar="INITSEARCH_RUNS")]


def print_json(value: dict[str, Any]) -> None:
    """One JSON object on one line of stdout, at once."""
    print(json.dumps(value, ensure_ascii=False, default=str), flush=True)


def make_console() -> Console:
    """stdout for people: as wide as the terminal; in a pipe without colour and so wide that no table is cut."""
    from rich.console import Console

    plain = not sys.stdout.isatty()
    return Console(highlight=False, markup=False, emoji=False, soft_wrap=plain, width=500 if plain else None)
