"""What `agent` refuses to a process that works in a session: a courtesy that keeps an honest agent honest.

INITSEARCH_SESSION names the session of such a process. Whoever has a shell can unset it, so this is no boundary.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from agent.errors import Rejected

VARIABLE = "INITSEARCH_SESSION"
_FREE = frozenset({"session", "mcp", "check", "plan", "doctor", "task", "baselines"})
"""These show nothing that a session may not know; `session` and `mcp` look themselves which session is meant."""
_OF_A_RUN = frozenset({"show", "report", "verify", "replay", "audit", "export"})
"""Allowed for the session's own run, which has nothing hidden before its submission."""


def require_allowed(command: str | None, words: Sequence[str]) -> None:
    """Raise Rejected when a process of a session asks for what could show results from outside its record.

    `words` are those of the command line after the command.
    """
    session = os.environ.get(VARIABLE)
    if not session or command is None or "--help" in words or "-h" in words:
        return
    if command in _FREE and not (command == "baselines" and "--hidden" in words):
        return
    if command in _OF_A_RUN and _names_only(words, session):
        return
    what = "agent baselines --hidden" if command == "baselines" else f"agent {command}"
    raise Rejected(
        f"{what}: refused in the session {session}, because it could show what a test does not ({VARIABLE} is set). In "
        "a session there are agent session check, test, wait, screen, undo, status and submit"
    )


def _names_only(words: Sequence[str], session: str) -> bool:
    """Whether the arguments name the session's own run, by its path, and nothing else."""
    from agent.errors import AgentError
    from agent.sessions.folder import SessionFolder

    try:
        own = SessionFolder(Path(session)).run.path.resolve()
    except (AgentError, OSError):
        return False
    named = [word for word in words if not word.startswith("-")]
    return bool(named) and all(Path(word).resolve() == own for word in named)
