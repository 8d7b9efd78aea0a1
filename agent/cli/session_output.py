"""What all commands of `agent session` share: what they may do, and how they end."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from agent.cli.output import asking, print_json, print_next

if TYPE_CHECKING:
    from agent.engine.resuming import Allowed
    from agent.sessions import Session, SessionReply, StillRunning


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
        print_next(
            f"agent {'review' if done['status'] == 'waiting_for_review' else 'show'} {shlex.quote(str(done['run']))}"
        )
    raise typer.Exit(reply.exit_code)


def print_next_after(session: Session, command: str) -> None:
    """Name what may be done after a command that has changed nothing of the run: no test where none is left."""
    from agent.sessions import session_status

    if words := [words for words in session_status(session).next if not words.startswith(command)]:
        print_next(" | ".join(words))


def print_status(session: Session) -> None:
    """Print where the session stands, and what can be done next."""
    from agent.sessions import session_status
    from agent.sessions.status import status_lines

    found = session_status(session)
    print("\n".join(status_lines(found)))
    if found.next:
        print_next(" | ".join(found.next))
    elif found.tests:
        print_next("agent session start DIR, in another folder: every test failed, and none is left")
