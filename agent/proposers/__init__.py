"""The proposers: the table of their names, and how each one is checked and built."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from agent.config import SearchConfig
from agent.errors import UsageError
from agent.profiles import baseline_region
from agent.protocol import Proposer, Situation
from agent.runs.log import EventLog
from agent.spaces.start import starting_region
from benchmark.noise import TaskNoise
from benchmark.suggestions import suggestion
from benchmark.tasks import Profile
from sandbox.region import SCAFFOLD_NAME, scaffold

if TYPE_CHECKING:
    from agent.proposers.llm import Brief, LLMProposer


@dataclass(frozen=True)
class ProposerContext:
    """The parts of a search that a proposer may use."""

    profile: Profile
    log: EventLog
    study: Path
    """Path of Optuna's journal."""
    start_region: str | None = None
    """The region that the search starts from; None for the scaffold's region."""
    script: str | None = None
    """The value of `ProposerKind.script` when the search began."""
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    """Environment variables, with the key of a model's server."""
    say: Callable[[str], None] = lambda text: None
    """Shows one line to a person."""
    seconds_left: Callable[[], float] = lambda: math.inf
    """Seconds until the search's time limit."""
    contacted: bool = False
    """Whether the model's server has already answered `ProposerKind.check`."""


@dataclass(frozen=True)
class Checked:
    """The result of a check."""

    contacted: bool = True
    """False when only a real request can tell whether the model's server will answer."""
    script: str | None = None
    """See `ProposerKind.script`."""


class ProposerKind:
    """Checks and builds the proposer of one name. `argument` is FILE of --proposer NAME:FILE, else empty."""

    asks_a_server = False
    """Whether a search sends its conversation and the key to a server."""
    in_session: str | None = None
    """How such a run is started, where a session carries out its calls (`agent.sessions`); None for all others."""

    def __init__(self, argument: str = "") -> None:
        self.argument = argument

    def script(self, config: SearchConfig) -> str | None:
        """The content of the user's file, as a text that the log keeps; None without a file. Raises UsageError."""
        return None

    def check(self, config: SearchConfig) -> Checked:
        """Check files, model, server and key, at no cost, before a run directory is made. Raises UsageError."""
        return Checked(script=self.script(config))

    def build(self, config: SearchConfig, context: ProposerContext) -> Proposer:
        """Make the proposer. It does not read the user's files; `context` has their contents. Raises UsageError."""
        raise NotImplementedError


class _Optuna(ProposerKind):
    """`optuna` and `random`: search the numbers of the built-in strategy or of the start region."""

    def check(self, config: SearchConfig) -> Checked:
        from agent.spaces.base import space_for

        space_for(config.start, starting_region(config.start))
        return Checked()

    def build(self, config: SearchConfig, context: ProposerContext) -> Proposer:
        from agent.proposers.optuna_search import OptunaProposer
        from agent.spaces.base import BuiltIn, space_for

        profile = context.profile
        space = space_for(config.start, context.start_region or baseline_region(profile), profile.visible)
        if profile.is_own and isinstance(space, BuiltIn) and (idle := space.without_effect()):
            context.say(f"not searched, because they change nothing in the visible networks: {', '.join(idle)}")
        test_start = config.start is not None and isinstance(space, BuiltIn)
        if test_start:
            context.say(f"--start {config.start} has no number to scale: it is tested as it is, then known ideas are")
        return OptunaProposer(
            config.proposer,
            seed=config.seed,
            space=space,
            log=context.log,
            journal=context.study,
            test_start=test_start,
        )


class _Null(ProposerKind):
    """`null`: tests copies of the baseline, to see which false claims a search would make."""

    def check(self, config: SearchConfig) -> Checked:
        if config.start is not None:
            raise UsageError(f"--null searches among copies of the baseline, so --start {config.start} contradicts it")
        return Checked()

    def build(self, config: SearchConfig, context: ProposerContext) -> Proposer:
        from agent.proposers.null import NullProposer

        return NullProposer(baseline_region(context.profile))


class _LanguageModel(ProposerKind):
    """`llm`: a language model on a server."""

    asks_a_server = True

    def check(self, config: SearchConfig) -> Checked:
        from agent.llm.contact import contact
        from agent.llm.settings import limits

        limits(config)
        return Checked(contacted=contact(config, os.environ))

    def build(self, config: SearchConfig, context: ProposerContext) -> Proposer:
        return self._model(config, context)

    def _model(self, config: SearchConfig, context: ProposerContext, *, scaled: bool = False) -> LLMProposer:
        from agent.llm.client import ChatClient
        from agent.llm.settings import model_settings
        from agent.proposers.llm import LLMProposer

        settings = model_settings(config, context.environ)
        client = ChatClient(settings, context.environ, say=context.say, seconds_left=context.seconds_left)
        brief = _brief(config, context, model=settings.model, scaled=scaled)
        return LLMProposer(brief, client, context.log, say=context.say, ask_early=not context.contacted)


class _Hybrid(_LanguageModel):
    """`hybrid`: a language model writes the structure, Optuna scales its numbers."""

    def build(self, config: SearchConfig, context: ProposerContext) -> Proposer:
        from agent.proposers.hybrid import HybridProposer

        model = self._model(config, context, scaled=True)
        return HybridProposer(model, seed=config.seed, log=context.log, journal=context.study)


class _Demo(ProposerKind):
    """`scripted:demo`: prepared answers of a language model."""

    def build(self, config: SearchConfig, context: ProposerContext) -> Proposer:
        from agent.proposers.demo import DemoModel
        from agent.proposers.llm import LLMProposer

        brief = _brief(config, context, model="demo")
        return LLMProposer(brief, DemoModel(), context.log, name="demo", say=context.say)


class _Session(ProposerKind):
    """`session` and `mcp`: whoever edits the file of a session, or calls the tools of `agent mcp`."""

    in_session = "a session is started by `agent session start DIR`, or by `agent mcp`"

    def build(self, config: SearchConfig, context: ProposerContext) -> Proposer:
        raise UsageError(f"--proposer {config.proposer}: {self.in_session}")


class _Command(_Session):
    """`command:CMD`: a program, such as a coding agent, that runs in the folder of a session."""

    in_session = "only `agent search` runs a command"

    def script(self, config: SearchConfig) -> str | None:
        """The command. It stands in the log, so that the session's own commands go on without naming it."""
        return self.argument

    def check(self, config: SearchConfig) -> Checked:
        from agent.proposers.shell import require_program

        require_program(self.argument)
        return Checked(script=self.argument)


class _Script(ProposerKind):
    """`scripted:FILE`: tool calls, or a region to test and submit."""

    name = "scripted"

    def script(self, config: SearchConfig) -> str | None:
        from agent.proposers.scripted import read_script

        return read_script(self.argument)

    def build(self, config: SearchConfig, context: ProposerContext) -> Proposer:
        from agent.proposers.scripted import ScriptedProposer

        if context.script is None:
            raise UsageError(f"--proposer {config.proposer}: what was in the file is not known any more")
        return ScriptedProposer.from_script(context.script, self.name)


class _Transcript(_Script):
    """`transcript:FILE`: the calls of a recorded conversation."""

    name = "transcript"

    def script(self, config: SearchConfig) -> str | None:
        from agent.proposers.scripted import as_script
        from agent.proposers.transcript import calls_of

        return as_script(calls_of(self.argument))


PROPOSERS: Mapping[str, type[ProposerKind]] = {
    "optuna": _Optuna,
    "random": _Optuna,
    "null": _Null,
    "llm": _LanguageModel,
    "hybrid": _Hybrid,
    "session": _Session,
    "mcp": _Session,
    "command:CMD": _Command,
    "scripted:demo": _Demo,
    "scripted:FILE": _Script,
    "transcript:FILE": _Transcript,
}
"""The values of --proposer. FILE stands for any path, CMD for any shell command."""


def proposer_kind(config: SearchConfig) -> ProposerKind:
    """The entry of the table that `config.proposer` names. Raises UsageError for an unknown name."""
    if kind := PROPOSERS.get(config.proposer):
        return kind()
    name, _, argument = config.proposer.partition(":")
    for pattern, kind in PROPOSERS.items():
        known, _, placeholder = pattern.partition(":")
        if known == name and placeholder.isupper():
            return kind(argument)
    raise UsageError(f"--proposer {config.proposer}: unknown{suggestion(name, list(PROPOSERS))}")


def make_proposer(config: SearchConfig, context: ProposerContext) -> Proposer:
    """The proposer that `config.proposer` names. Raises UsageError for an unknown name or an unusable file."""
    return proposer_kind(config).build(config, context)


@runtime_checkable
class DependsOnOthers(Protocol):
    """A proposer that can check, before anything is trained, whether it will be able to propose anything."""

    def prepare(self, situation: Situation) -> None:
        """Check this in the situation before the baseline is measured."""
        ...


def prepare(proposer: Proposer, region: str, budget: int, noise: Mapping[str, TaskNoise] | None = None) -> None:
    """Let a proposer that depends on a server check, before anything is trained, that the server answers.

    `region` is the start region, `noise` what the run recorded.
    Raises ProposerEnd when the server fails, UsageError when a setting is wrong.
    """
    if not isinstance(proposer, DependsOnOthers):
        return
    file = scaffold().with_region(region)
    extent = file.editable().ranges[0]
    proposer.prepare(
        Situation(
            filename=SCAFFOLD_NAME,
            region=file.region,
            editable=(extent.start, extent.end),
            tests_left=budget,
            tests=(),
            baseline={},
            best=None,
            noise=noise,
        )
    )


def _brief(config: SearchConfig, context: ProposerContext, *, model: str, scaled: bool = False) -> Brief:
    from agent.llm.settings import limits
    from agent.proposers.llm import Brief

    return Brief(
        profile=context.profile,
        budget=config.budget,
        seeds=config.evaluation_seeds,
        model=model,
        limits=limits(config),
        answer_tokens=config.answer_tokens,
        context_tokens=config.context_tokens,
        scaled=scaled,
        screening=config.screen > 0,
        confirm=config.confirm,
        parallel=1 if scaled else config.parallel,
    )
