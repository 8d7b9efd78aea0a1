"""Who proposes: one protocol, `agent.protocol.Proposer`, and a table of names."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from agent.config import SearchConfig, suggestion
from agent.errors import UsageError
from agent.protocol import Proposer, Situation
from agent.runs.log import EventLog
from agent.spaces.start import starting_region
from benchmark.tasks import Profile
from sandbox.region import SCAFFOLD_NAME, scaffold

if TYPE_CHECKING:
    from agent.llm.client import Model
    from agent.proposers.llm import Brief, LLMProposer

NAMES = ("optuna", "random", "null", "llm", "hybrid", "scripted:demo", "scripted:FILE", "transcript:FILE")


@dataclass(frozen=True)
class Surroundings:
    """What a proposer may use of the search around it."""

    profile: Profile
    log: EventLog
    study: Path
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    """Where the key of a model's server is."""
    say: Callable[[str], None] = lambda text: None
    """One line for a person."""
    seconds_left: Callable[[], float] = lambda: math.inf
    """Until the search's limit on wall time."""
    contacted: bool = False
    """Whether `check_proposer` was already answered by the model's server."""


@runtime_checkable
class DependsOnOthers(Protocol):
    """A proposer that can find out beforehand whether it will be able to propose anything."""

    def prepare(self, situation: Situation) -> None:
        """Find out, in the situation before the baseline is measured."""
        ...


def check_proposer(config: SearchConfig) -> bool:
    """Find out what can be found out for nothing, before a run directory is made: files, model, server, key.

    Raises UsageError. False when only a real question can tell whether the model's server will answer.
    """
    name, _, argument = config.proposer.partition(":")
    _check_words(config, name, argument)
    if config.proposer in ("llm", "hybrid"):
        from agent.llm.contact import contact

        return contact(config, os.environ)
    return True


def make_proposer(config: SearchConfig, around: Surroundings) -> Proposer:
    """The proposer that `config.proposer` names. Raises UsageError for an unknown name or an unusable file."""
    name, _, argument = config.proposer.partition(":")
    _check_words(config, name, argument)
    if name in ("optuna", "random"):
        from agent.proposers.optuna_search import OptunaProposer
        from agent.spaces.base import BuiltIn, space_for

        architectures = [task.arch for task in around.profile.visible]
        space = space_for(config.start, starting_region(config.start), architectures)
        as_it_is = config.start is not None and isinstance(space, BuiltIn)
        if as_it_is:
            around.say(f"--start {config.start} has no number to scale: it is tested as it is, then known ideas are")
        return OptunaProposer(
            name, seed=config.seed, space=space, log=around.log, journal=around.study, test_start=as_it_is
        )
    if name == "null":
        from agent.proposers.null import NullProposer

        return NullProposer()
    if name == "llm":
        return _language_model(config, around)
    if name == "hybrid":
        from agent.proposers.hybrid import HybridProposer

        model = _language_model(config, around, scaled=True)
        return HybridProposer(model, seed=config.seed, log=around.log, journal=around.study)
    if argument == "demo":
        from agent.proposers.demo import DemoModel
        from agent.proposers.llm import LLMProposer

        return LLMProposer(_brief(config, around, model="demo"), DemoModel(), around.log, name="demo", say=around.say)
    from agent.proposers.scripted import ScriptedProposer

    if name == "transcript":
        from agent.proposers.transcript import calls_of

        return ScriptedProposer(calls_of(argument), name="transcript")
    return ScriptedProposer.from_file(argument)


def prepare(proposer: Proposer, config: SearchConfig) -> None:
    """Let a proposer that depends on others find out, before anything is trained, whether they will answer.

    Raises ProposerEnd when they will not, UsageError when it is our fault.
    """
    if not isinstance(proposer, DependsOnOthers):
        return
    file = scaffold().with_region(starting_region(config.start))
    extent = file.editable().ranges[0]
    proposer.prepare(
        Situation(
            filename=SCAFFOLD_NAME,
            region=file.region,
            editable=(extent.start, extent.end),
            tests_left=config.budget,
            tests=(),
            baseline={},
            best=None,
        )
    )


def _check_words(config: SearchConfig, name: str, argument: str) -> None:
    if config.proposer in ("llm", "hybrid"):
        from agent.llm.settings import limits, model_settings

        limits(config)
        model_settings(config)
    elif name == "scripted":
        from agent.proposers.scripted import ScriptedProposer

        if argument != "demo":
            ScriptedProposer.from_file(argument)
    elif name == "transcript":
        from agent.proposers.transcript import calls_of

        calls_of(argument)
    elif config.null:
        if config.start is not None:
            raise UsageError(f"--null searches among copies of the baseline, so --start {config.start} contradicts it")
    elif config.proposer in ("optuna", "random"):
        from agent.spaces.base import space_for

        space_for(config.start, starting_region(config.start), ())
    else:
        raise UsageError(f"--proposer {config.proposer}: unknown{suggestion(name, list(NAMES))}")


def _language_model(config: SearchConfig, around: Surroundings, *, scaled: bool = False) -> LLMProposer:
    from agent.llm.client import ChatClient
    from agent.llm.settings import model_settings
    from agent.proposers.llm import LLMProposer

    settings = model_settings(config, around.environ)
    model: Model = ChatClient(settings, around.environ, say=around.say, seconds_left=around.seconds_left)
    brief = _brief(config, around, model=settings.model, scaled=scaled)
    return LLMProposer(brief, model, around.log, say=around.say, ask_early=not around.contacted)


def _brief(config: SearchConfig, around: Surroundings, *, model: str, scaled: bool = False) -> Brief:
    from agent.llm.settings import limits
    from agent.proposers.llm import Brief

    return Brief(
        profile=around.profile,
        budget=config.budget,
        seeds=config.evaluation_seeds,
        model=model,
        limits=limits(config),
        answer_tokens=config.answer_tokens,
        context_tokens=config.context_tokens,
        scaled=scaled,
        screening=config.screen > 0,
        confirm=config.confirm,
    )
