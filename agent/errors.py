"""Exceptions. Each type stands for one reaction of the caller; the command line turns it into an exit code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class AgentError(Exception):
    """An error for a person. The message says what happened, where, and what to do next."""

    exit_code = 1


class UsageError(AgentError):
    """A flag, a file or a name in the request is wrong. Nothing was started."""

    exit_code = 2


class Rejected(AgentError):
    """A candidate, a diff or a replay was checked and did not pass."""

    exit_code = 3


class RunBusy(AgentError):
    """Another process has locked the run directory."""


class RunDamaged(AgentError):
    """A run directory does not contain what its log says."""


class Interrupted(AgentError):
    """SIGINT or SIGTERM arrived; `signal_number` says which."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by signal {signal_number}")
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number


def unread(error: OSError | UnicodeDecodeError) -> str:
    """Why a file could not be read as text, to follow its name."""
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 text: byte {error.start} is none"
    return f"cannot be read: {error.strerror}"


def in_one_sentence(error: Exception, names: Mapping[str, str] = {}) -> str:
    """The message of an exception on one line. For pydantic's ValidationError: the first field that is wrong. For an
    OSError: file and reason, without its number.

    `names` maps a field to the name that a person knows, such as `budget` to `--budget`. Does not import pydantic.
    """
    if isinstance(error, OSError) and error.strerror:
        return " ".join(f"{error.filename}: {error.strerror}".removeprefix("None: ").split())
    if not hasattr(error, "errors") or not hasattr(error, "title"):
        return " ".join(str(error).split())
    from benchmark.validation_words import in_plain_words  # not above: `agent.cli` first looks if `benchmark` is ours

    faults: list[Any] = error.errors(include_url=False)
    field = faults[0]["loc"][:1]
    same = [fault for fault in faults if fault["loc"][:1] == field]
    place = ".".join(str(part) for part in (faults[0]["loc"] if len(same) == 1 else field))
    reasons = " or ".join(dict.fromkeys(in_plain_words(fault["msg"]) for fault in same)).replace(" or must be ", " or ")
    given = faults[0]["input"]
    got = "" if given is None or isinstance(given, bool | dict) else f", but got {given!r:.80}"
    return f"{names.get(str(place), place) or error.title}: {reasons}{got}"
