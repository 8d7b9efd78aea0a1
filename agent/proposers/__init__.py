"""Who proposes: one protocol, `agent.protocol.Proposer`, and a table of names."""

from __future__ import annotations

from pathlib import Path

from agent.config import SearchConfig, suggestion
from agent.errors import UsageError
from agent.events import EventLog
from agent.protocol import Proposer
from benchmark.tasks import Profile

NAMES = ("optuna", "random", "scripted:FILE")


def make_proposer(config: SearchConfig, profile: Profile, log: EventLog, study: Path) -> Proposer:
    """The proposer that `config.proposer` names. Raises UsageError for an unknown name or an unusable file."""
    name, _, argument = config.proposer.partition(":")
    if name in ("optuna", "random"):
        from agent.proposers.optuna_search import OptunaProposer

        architectures = [task.arch for task in profile.visible]
        return OptunaProposer(name, seed=config.seed, architectures=architectures, log=log, journal=study)
    if name == "scripted":
        from agent.proposers.scripted import ScriptedProposer

        return ScriptedProposer.from_file(argument)
    raise UsageError(f"--proposer {config.proposer}: unknown{suggestion(name, list(NAMES))}")
