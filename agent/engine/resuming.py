"""What a resumed search may do: the run directory says what was searched, its reader what may be run, read and sent.

Whoever wrote a run directory need not be the one who resumes it. So isolation, files, data folders, downloads and
addresses that a run names count only if the one who resumes it names them again.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Container
from dataclasses import dataclass, field
from pathlib import Path

from agent.config import Loaded, SearchConfig
from agent.engine.launching import FilesGiven, Inputs, first_launch
from agent.engine.setup import check_prerequisites
from agent.errors import UsageError
from agent.evaluation.engines import chosen_engine
from agent.llm.consent import Ask, confirm_address, is_loopback
from agent.llm.settings import address
from agent.profiles import allowed_profile, given_profile
from agent.proposers import proposer_kind
from agent.runs.directory import RunDirectory
from benchmark.data.pocket import EMBEDDED_NAMES
from benchmark.tasks import FROM_PYTHON, Profile, is_task_file


@dataclass(frozen=True)
class Granted:
    """The configuration that a resumed search is carried out with, and what a person is told about it."""

    config: SearchConfig
    files: FilesGiven = field(default_factory=FilesGiven)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class EngineGiven:
    """--executor with its address and options, as given when a search is resumed."""

    executor: str = "local"
    ray_address: str | None = None
    slurm: str | None = None

    @classmethod
    def of(cls, config: SearchConfig) -> EngineGiven:
        """What a configuration says."""
        return cls(config.executor, config.ray_address, config.slurm)

    @property
    def flags(self) -> str:
        """The words of a command line that give it."""
        given = {"--executor": self.executor, "--ray-address": self.ray_address, "--slurm": self.slurm}
        return " ".join(f"{flag} {shlex.quote(value)}" for flag, value in given.items() if value is not None)


@dataclass(frozen=True)
class Allowed:
    """What the one who resumes a run names this time."""

    allow_unsandboxed: bool = False
    download: bool = False
    data_root: Path | None = None
    files: FilesGiven = field(default_factory=FilesGiven)
    base_url: str | None = None
    """By flag: the search goes on there, whatever the run names."""
    known_base_url: str | None = None
    """By variable, or in a file of the user's own: need not be confirmed."""
    key_host: str | None = None
    ask: Ask | None = None
    engine: EngineGiven | None = None
    """What is to carry the evaluations out; None where nothing was said."""
    profile: str | None = None
    """The task file that was given this time."""
    given: Profile | None = None
    """The profile of that file, if the caller has read it already."""

    @classmethod
    def of(cls, config: SearchConfig, given: Profile | None = None) -> Allowed:
        """All that a configuration of the user's own says, with the profile of its task file."""
        return cls(
            allow_unsandboxed=config.allow_unsandboxed,
            download=config.download,
            data_root=config.data_root,
            files=FilesGiven(config.proposer, config.start),
            known_base_url=config.base_url,
            engine=EngineGiven.of(config),
            profile=config.profile if is_task_file(config.profile) else None,
            given=given,
        )

    @classmethod
    def loaded(
        cls, loaded: Loaded, typed: Container[str], *, key_host: str | None = None, ask: Ask | None = None
    ) -> Allowed:
        """What a command line and the user's variables and files say. `typed` are the settings given as flags."""
        config = loaded.config
        return cls(
            allow_unsandboxed=config.allow_unsandboxed,
            download="download" in typed and config.download,
            data_root=config.data_root,
            files=FilesGiven(
                config.proposer if "proposer" in typed else None, config.start if "start" in typed else None
            ),
            base_url=config.base_url if "base_url" in typed else None,
            known_base_url=None if "base_url" in loaded.found_here else config.base_url,
            key_host=key_host,
            ask=ask,
            engine=EngineGiven.of(config) if "executor" in typed else None,
            profile=config.profile if "profile" in typed else None,
        )

    def profile_of(self, run: RunDirectory, recorded: SearchConfig, of_run: Profile | None) -> Profile:
        """The profile that the search goes on with. A task file that only the run names is asked for.

        `of_run` is None if the run was stopped before it recorded the tasks of its task file. Raises UsageError where
        the file is not given, or is not the run's.
        """
        own = of_run is None or of_run.is_own
        name, given = self.profile, self.given if own else None
        if given is None and name is None and own and is_task_file(recorded.profile):
            question = f"{run.path} runs the code of the task file {recorded.profile} here. Go on?"
            if self.ask is not None and self.ask(question):
                name = recorded.profile
            else:
                raise UsageError(
                    f"{run.path}: its tasks are those of the task file {recorded.profile}, whose code would run here; "
                    f"if it is yours, give --profile {shlex.quote(recorded.profile)} again"
                )
        if given is None and name is None and own and recorded.profile == FROM_PYTHON:
            raise UsageError(
                f"{run.path}: its network came from Python, so it cannot be resumed from here; begin a new search, and "
                "stored results are used"
            )
        given = given or given_profile(name, data_root=self.data_root, download=self.download)
        if of_run is None and given is not None:
            return given
        assert of_run is not None
        return allowed_profile(run.path, of_run, given)

    def applied(self, run: RunDirectory, recorded: SearchConfig, profile: Profile, level: object) -> Granted:
        """What a run's search may do, by its recorded configuration and isolation level.

        Raises UsageError that says what to type where the run wants more than this allows; nothing was started yet.
        """
        _require_same_isolation(run, recorded, self.allow_unsandboxed)
        self._require_same_proposer(run, recorded)
        Inputs.recorded(first_launch(run.events), recorded, self.files)
        base_url, notes = recorded.base_url, []
        if proposer_kind(recorded).asks_a_server:
            base_url = self._server(run, recorded)
            if recorded.base_url not in (None, base_url):
                notes.append(f"the model's server is now {base_url}; the run named {recorded.base_url}")
        changes = {
            # `auto` can find another level on another day, and a result belongs to one. An unsandboxed run says so.
            "isolation": level if level in ("bubblewrap", "landlock") else recorded.isolation,
            "data_root": self.data_root,
            "download": self.download,
            "base_url": base_url,
            **vars(self._engine(run, recorded)),
        }
        config, chosen = chosen_engine(recorded.model_copy(update=changes))
        notes += chosen
        unused = recorded.data_root is not None and recorded.data_root != self.data_root
        if unused and any(task.data is None and task.dataset not in EMBEDDED_NAMES for task in profile.tasks):
            notes.append(
                f"data are looked for in {self.data_root or 'the usual places'}, not in the run's data_root "
                f"{recorded.data_root}; --data-root names a folder"
            )
        check_prerequisites(config, profile)
        return Granted(config, self.files, tuple(notes))

    def _require_same_proposer(self, run: RunDirectory, recorded: SearchConfig) -> None:
        given = {"--proposer": (self.files.proposer, recorded.proposer), "--start": (self.files.start, recorded.start)}
        for flag, (now, was) in given.items():
            if now not in (None, was):
                raise UsageError(f"{run.path}: {flag} {now} contradicts the run's own, {was}")
        if self.base_url is not None and not proposer_kind(recorded).asks_a_server:
            raise UsageError(
                f"--base-url: only a language model listens to that; this run's proposer is {recorded.proposer}"
            )

    def _engine(self, run: RunDirectory, recorded: SearchConfig) -> EngineGiven:
        """Where evaluations run. An engine that only the run names is confirmed: it starts programs elsewhere."""
        wanted = EngineGiven.of(recorded)
        if self.engine is not None or wanted.executor == "local":
            return self.engine or EngineGiven()
        question = f"{run.summary} names other machines for the trainings: {wanted.flags}. Use them?"
        if self.ask is not None and self.ask(question):
            return wanted
        raise UsageError(
            f"{run.path}: this search trained on other machines, and a run does not decide that: add {wanted.flags} "
            "to go on there, or --executor local"
        )

    def _server(self, run: RunDirectory, recorded: SearchConfig) -> str | None:
        """Where the conversation goes. A server that only the run names is confirmed."""
        if self.base_url is not None or recorded.base_url is None:
            return self.base_url
        wanted = address(recorded, os.environ)
        known = address(recorded.model_copy(update={"base_url": self.known_base_url}), os.environ)
        if wanted != known:
            confirm_address(wanted, f"{run.summary}: base_url", key_host=self.key_host, ask=self.ask)
        return recorded.base_url


def flags_again(config: SearchConfig, pinned: SearchConfig) -> str:
    """The flags that a later --resume of a search needs, each with a space before it."""
    words: list[str] = ["--allow-unsandboxed"] if config.allow_unsandboxed else []
    if pinned.download:
        words.append("--download")
    if pinned.data_root is not None:
        words += ["--data-root", str(pinned.data_root)]
    if pinned.executor != "local":
        words += shlex.split(EngineGiven.of(pinned).flags)
    if is_task_file(config.profile):
        words += ["--profile", config.profile]
    url = pinned.base_url
    if url is not None and proposer_kind(config).asks_a_server and not is_loopback(url):
        words += ["--base-url", url]
    return "".join(f" {shlex.quote(word)}" for word in words)


def _require_same_isolation(run: RunDirectory, recorded: SearchConfig, allowed: bool) -> None:
    if recorded.allow_unsandboxed and not allowed:
        raise UsageError(
            f"{run.path}: this search runs its candidates without isolation, with all your rights. If you would run "
            "their code yourself, add --allow-unsandboxed"
        )
    if allowed and not recorded.allow_unsandboxed:
        raise UsageError(
            f"{run.path}: this search runs its candidates in isolation, and results with and without cannot be "
            "compared: leave out --allow-unsandboxed"
        )
