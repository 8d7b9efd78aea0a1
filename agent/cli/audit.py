"""`agent audit`: checks that nothing hidden showed before the submission."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from agent.cli.app import JsonFlag, RunsOption, app


@app.command()
def audit(
    source: Annotated[str, typer.Argument(help="A recorded conversation (JSON), a run directory, or latest.")],
    runs: RunsOption = Path("runs"),
    as_json: JsonFlag = False,
) -> None:
    """Check that nothing hidden showed before the submission.

    \b
    Examples:
      agent audit latest
      agent audit conversation.json --json
    """
    from agent.cli.transcript_text import find_conversation, run_audit

    raise typer.Exit(run_audit(find_conversation(source, runs), as_json=as_json, out=sys.stdout))
