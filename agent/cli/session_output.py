"""What all commands of `agent session` share: what they may do, what they show meanwhile, and how they end."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from agent.cli.output import asking, print_json, print_next
from agent.errors import AgentError, Interrupted

if TYPE_CHECKING:
    from agent.engine.resuming import Allowed
    from agent.progress import Progress
    from agent.sessions import Session, SessionReply, StillRunning


@contextmanager
def showing(*, again: str) -> Iterator[Progress]:
    """Show progress on stderr. `again` is the command that goes on after a signal or a failure of our machinery."""
    from agent.cli.live_table import make_progress
    from agent.engine.summary import OUR_FAILURES

    progress = make_progress()
    try:
        yield progress
    except (Interrupted, KeyboardInterrupt) as stop:
        progress.close()
        print(f"stopped; nothing is lost, go on with: {again}", file=sys.stderr)
        raise stop if isinstance(stop, Interrupted) else Interrupted(2) from None
    except OUR_FAILURES as error:
        raise AgentError(f"{error}\nwhat was done is kept; go on with: {again}") from None
    finally:
        progress.close()


def allowed(allow_unsandboxed: bool, data_root: Path | None, profile: str | None) -> Allowed:
    """What flags and the user's own variables and files allow a session that goes on."""
    from agent.config import read_config
    from agent.engine.resuming import Allowed

    found = read_config({"allow_unsandboxed": allow_unsandboxed or None, "data_root": data_root, "profile": profile})
    return Allowed.loaded(found, () if profile is None else ("profile",), ask=asking())


def finish(reply: SessionReply | StillRunning, *, as_json: bool) -> None:
    """Print the reply and exit with its code."""
    if as_json:
        print_json(reply.as_json())
        if (done := getattr(reply, "done", None)) is not None:
            print_json(done)
    else:
        print("\n\n".join([reply.text, "\n".join(getattr(reply, "words", ()))]).strip())
    if done := getattr(reply, "done", None):
        print_next(f"agent {'review' if done['status'] == 'waiting_for_review' else 'show'} {done['run']}")
    raise typer.Exit(reply.exit_code)


def print_status(session: Session) -> None:
    """Print where the session stands, and what can be done next."""
    from agent.sessions import session_status
    from agent.sessions.status import status_lines

    found = session_status(session)
    print("\n".join(status_lines(found)))
    print_next(" | ".join(found.next))
