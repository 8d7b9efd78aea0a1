"""One exception type per kind of caller reaction; the command line turns each into its exit code."""

from __future__ import annotations


class AgentError(Exception):
    """Something a person must know: the message says what, where, and what to do next."""

    exit_code = 1


class UsageError(AgentError):
    """The request itself cannot be carried out: a flag, a file or a name is wrong. Nothing was started or spent."""

    exit_code = 2


class Rejected(AgentError):
    """A candidate, a diff or a replay was judged and did not pass."""

    exit_code = 3


class RunBusy(AgentError):
    """Another process holds the run directory."""


class RunDamaged(AgentError):
    """A run directory does not hold what its log says."""


class Interrupted(AgentError):
    """SIGINT or SIGTERM arrived; `signal_number` says which."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by signal {signal_number}")
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number
