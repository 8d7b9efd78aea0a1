"""Who proposes: one protocol, `agent.protocol.Proposer`, and a table of names."""

from __future__ import annotations

from pathlib import Path

from agent.config import SearchConfig, suggestion
from agent.errors import UsageError
from agent.events import EventLog
from agent.protocol import Proposer
from benchmark.tasks import Profile

NAMES = ("optuna", "random", "scripted:FILE")


def check_proposer(config: SearchConfig) -> None:
    """Raise the UsageError that `make_proposer` would raise, before a run directory is made."""
    name, _, argument = config.proposer.partition(":")
    if name == "scripted":
        from agent.proposers.scripted import ScriptedProposer

        ScriptedProposer.from_file(argument)
    elif config.proposer not in ("optuna", "random"):
        raise UsageError(f"--proposer {config.proposer}: unknown{suggestion(name, list(NAMES))}")


def make_proposer(config: SearchConfig, profile: Profile, log: EventLog, study: Path) -> Proposer:
    """The proposer that `config.proposer` names. Raises UsageError for an unknown name or an unusable file."""
    check_proposer(config)
    name, _, argument = config.proposer.partition(":")
    if name in ("optuna", "random"):
        from agent.proposers.optuna_search import OptunaProposer

        architectures = [task.arch for task in profile.visible]
        return OptunaProposer(name, seed=config.seed, architectures=architectures, log=log, journal=study)
    from agent.proposers.scripted import ScriptedProposer

    return ScriptedProposer.from_file(argument)
