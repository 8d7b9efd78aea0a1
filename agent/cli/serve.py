"""`agent serve`: shows the runs in a browser."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli.app import RunsOption, app
from agent.errors import UsageError

if TYPE_CHECKING:
    from agent.web.access import Access


@app.command()
def serve(
    runs: RunsOption = Path("runs"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any free one.")] = 0,
    host: Annotated[
        str, typer.Option(help="Address to listen on; another than this machine's own lets others in.")
    ] = "127.0.0.1",
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open a browser.")] = False,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Show only: no review, and no search is started or stopped.")
    ] = False,
) -> None:
    """Show the runs in a browser. They can be followed, reviewed and started there.

    \b
    Examples:
      agent serve
      agent serve --runs ~/runs --port 8765 --no-browser
      agent serve --read-only --host 0.0.0.0

    Prints one line, the address with its token. Who has the token may do what the pages offer.
    """
    try:
        from agent.web.server import serve as run_server
    except ImportError as error:
        raise UsageError(f"{error.name} is not installed; agent serve needs: pip install 'initsearch[serve]'") from None
    if runs.exists() and not runs.is_dir():
        raise UsageError(f"--runs {runs}: not a folder")
    run_server(runs, host=host, port=port, browser=not no_browser, read_only=read_only, say=_say)


def _say(address: str, access: Access) -> None:
    if not access.loopback:
        print(
            f"note: other machines can reach {access.host}. Nobody gets in without the token, but whoever listens on "
            "the network can read it: the connection is not encrypted",
            file=sys.stderr,
        )
    print(address, flush=True)
    print("Ctrl-C ends it, and the searches that were started there", file=sys.stderr, flush=True)
