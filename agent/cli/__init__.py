"""The commands people type. Everything heavy is imported inside a command, so that --help answers at once."""

from __future__ import annotations

import signal
import sys
from typing import NoReturn

from agent.cli import acting, reading  # noqa: F401 - importing them adds their commands, in the order of --help
from agent.cli.app import app
from agent.errors import AgentError, Interrupted
from agent.safe_text import guard_output

__all__ = ["main"]


def main() -> None:
    """Run the command line; turn typed errors into messages and exit codes. A bug keeps its traceback."""
    guard_output()
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    try:
        app()
    except AgentError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def _interrupt(number: int, frame: object) -> NoReturn:
    raise Interrupted(number)
