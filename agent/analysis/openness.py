"""What the record of a session proves: whether whoever wrote the code could train outside it."""

from __future__ import annotations

from typing import Literal

Openness = Literal["open", "closed"]

_OPEN = (
    "An open session: whoever wrote the code had a shell, so tests and hidden trainings outside this record cannot be "
    "excluded."
)
_CLOSED = (
    "A closed session: the code came by tool calls alone, over MCP or from Inspect AI, and these tools train nothing "
    "outside this record. Whether the client had a shell beside them is not recorded; if it had one, tests and hidden "
    "trainings outside this record cannot be excluded."
)


def openness(proposer: object) -> Openness | None:
    """`open` for a session with a shell, `closed` for one over MCP alone, None for a run that is no session."""
    match proposer.partition(":")[0] if isinstance(proposer, str) else None:
        case "session" | "command":
            return "open"
        case "mcp":
            return "closed"
    return None


def notice(proposer: object) -> str | None:
    """The sentence for page, verdict and review; None for a run that is no session."""
    kind = openness(proposer)
    return None if kind is None else _OPEN if kind == "open" else _CLOSED


def caveat(proposer: str, of_profile: str) -> str:
    """What a reader of a run's numbers must know first: an A/A search, a session, and the caveat of the profile."""
    from agent.analysis.null_claims import NOTICE  # imports scipy, and `agent session status` must answer at once

    parts = (NOTICE if proposer == "null" else None, notice(proposer), of_profile)
    return " ".join(part for part in parts if part)
