"""The command line. Heavy packages are imported inside commands, so that --help answers at once."""

from __future__ import annotations

import contextlib
import signal
import sys
from typing import Any, NoReturn

import typer

# isort: off
# Importing a command adds it to the application: this is the order of --help.
from agent.cli import search, session, mcp, submit, ablate, check, plan, baselines, task, doctor  # noqa: F401
from agent.cli import runs, show, watch, serve, report, review, compare, export, export_env  # noqa: F401
from agent.cli import replay, audit, verify  # noqa: F401

# isort: on
from agent.cli.app import app
from agent.cli.import_check import require_own_modules
from agent.cli.output import print_json, print_next
from agent.cli.words import meant, with_home
from agent.errors import AgentError, Interrupted, in_one_sentence
from agent.safe_text import guard_output

__all__ = ["main"]

_BadWords: Any = typer.BadParameter.__bases__[0]
"""Typer's exception for a wrong command line. Its module differs between versions of Typer."""


def main() -> NoReturn:
    """Run the command line. Turn typed errors into messages and exit codes. A bug shows its traceback."""
    guard_output()
    sys.argv[1:] = with_home(sys.argv[1:])
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    try:
        require_own_modules()
        code = app(standalone_mode=False)
    except _BadWords as error:
        from benchmark.validation_words import in_plain_words

        error.message = in_plain_words(error.message)
        error.show()
        following = meant(sys.argv[1:])
        if following is not None:
            print_next(following)
        _fail(error.format_message() + (f"; next: {following}" if following else ""), error.exit_code, said=True)
    except AgentError as error:
        _fail(str(error), error.exit_code)
    except typer.Abort:
        _fail("the input ended before the question was answered", 1)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        _fail(in_one_sentence(error), 1)
    except ValueError as error:
        if not _is_validation_error(error):
            raise
        _fail(in_one_sentence(error), 1)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int, *, said: bool = False) -> NoReturn:
    """Print the error on stderr, and with --json also as an object on stdout."""
    if not said:
        print(f"error: {message}", file=sys.stderr)
    if "--json" in sys.argv[1:]:
        with contextlib.suppress(OSError):  # stdout may be what failed
            print_json({"event": "error", "message": message, "exit_code": code})
    sys.exit(code)


def _is_validation_error(error: ValueError) -> bool:
    """Whether it is pydantic's ValidationError. Does not import pydantic."""
    module = sys.modules.get("pydantic_core")
    return module is not None and isinstance(error, module.ValidationError)


def _interrupt(number: int, frame: object) -> NoReturn:
    raise Interrupted(number)
