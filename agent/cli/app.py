"""The application that all commands are part of, and the options that several share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
