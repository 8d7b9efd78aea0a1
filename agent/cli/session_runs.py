"""Runs that sessions carry out, for `agent search` and `agent submit`: command:CMD, and going on with a session."""

from __future__ import annotations

import shlex
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING

from agent.cli.outcome_text import print_following, print_launch, print_outcome
from agent.cli.output import print_json, print_next, showing
from agent.errors import UsageError

if TYPE_CHECKING:
    from agent.config import Loaded, SearchConfig
    from agent.engine.outcome import SearchOutcome
    from agent.engine.resuming import Allowed
    from agent.runs.directory import RunDirectory
    from agent.sessions import Session

_COMMAND = "command:"
_KINDS = ("session", "mcp")


def is_command(config: SearchConfig) -> bool:
    """Whether the proposer is a program."""
    return config.proposer.startswith(_COMMAND)


def in_session(run: RunDirectory) -> bool:
    """Whether the run's calls are made by a session."""
    proposer = str(run.read_summary().get("config", {}).get("proposer"))
    return proposer in _KINDS or proposer.startswith(_COMMAND)


def require_typed(found: Loaded, given: Container[str]) -> None:
    """Raise UsageError unless the command stands on the command line: it runs with all rights of the user."""
    if "proposer" not in given:
        raise UsageError(
            f"{found.origin['proposer']} names a program, and that counts only from the command line: give "
            f"--proposer {shlex.quote(found.config.proposer)}"
        )


def search_by_command(config: SearchConfig, pass_env: Sequence[str], *, as_json: bool) -> int:
    """Run a search whose proposer is a program. Returns the exit code."""
    from agent.sessions.command import search_by_command

    again = f"agent search --resume latest --proposer {shlex.quote(config.proposer)}"
    with showing(again=again) as progress:
        outcome = search_by_command(
            config, pass_env=pass_env, progress=progress, launched=lambda session: _launched(session, as_json)
        )
    return _ended(outcome, config.proposer, as_json=as_json)


def resume_session(run: RunDirectory, allowed: Allowed, pass_env: Sequence[str], *, as_json: bool) -> int:
    """Go on with a session's run: begin its command again, or finish what a killed command of a session began.

    A session that has not ended stays open, because only whoever edits its file submits. Returns the exit code.
    """
    from agent.sessions import Session, session_status
    from agent.sessions.command import resume_by_command
    from agent.sessions.status import status_lines

    proposer = str(run.read_summary()["config"]["proposer"])
    with showing(again=f"agent search --resume {shlex.quote(str(run.path))}") as progress:
        if proposer.startswith(_COMMAND):
            outcome = resume_by_command(
                run, allowed, pass_env=pass_env, progress=progress, launched=lambda session: _launched(session, as_json)
            )
            return _ended(outcome, proposer, as_json=as_json)
        session = Session(run, None, allowed)
        _launched(session, as_json)
        reply = session.finish_begun(progress=progress)
    found = session_status(session)
    if found.state == "ended" or (reply is not None and reply.done is not None):
        from agent.engine.outcome import finished_outcome

        return _ended(finished_outcome(run)[1], proposer, as_json=as_json)
    if as_json:
        print_json({**found.as_json(), "event": "done", "submitted_test": None})
    else:
        print("\n".join(status_lines(found)))
    print_next("agent session status in its folder; a session ends by agent session submit N")
    return 0


def release_session(run: RunDirectory, allowed: Allowed, *, as_json: bool) -> int:
    """Run the hidden task of a session that waits for a review. Returns the exit code."""
    from agent.sessions import Session
    from agent.sessions.command import release

    _launched(Session(run), as_json)
    with showing(again=f"agent submit {shlex.quote(str(run.path))}") as progress:
        outcome = release(run, allowed, progress)
    return _ended(outcome, str(run.read_summary()["config"]["proposer"]), as_json=as_json)


def _launched(session: Session, as_json: bool) -> None:
    print_launch(session.launch, as_json=as_json)


def _ended(outcome: SearchOutcome, proposer: str, *, as_json: bool) -> int:
    print_outcome(outcome, as_json=as_json)
    print_following(outcome, proposer)
    return outcome.exit_code
