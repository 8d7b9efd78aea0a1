"""Prepares a search: reads the user's files, checks data, makes the workspace and the toolbox."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.config import SearchConfig
from agent.engine.screening import Screen
from agent.engine.toolbox import Toolbox
from agent.errors import UsageError
from agent.evaluation.engines import check_engine, chosen_engine
from agent.evaluation.workbench import Workbench
from agent.proposers import proposer_kind
from agent.runs.directory import RunDirectory
from agent.runs.log import EventLog, Launch
from agent.spaces.start import starting_region
from benchmark.data import available
from benchmark.recipes import get_recipe, recipe_names
from benchmark.store import LayeredStore
from benchmark.tasks import Profile
from sandbox.region import scaffold
from sandbox.workspace import Workspace


@dataclass(frozen=True)
class FilesGiven:
    """--proposer and --start as given when a search is resumed. A file that only the run names is not read."""

    proposer: str | None = None
    start: str | None = None


@dataclass(frozen=True)
class Inputs:
    """Contents of the user's files. `Launch` records them, so a resumed search does not read the files again."""

    start_region: str | None
    """The region that `--start` gave."""
    script: str | None
    """See `ProposerKind.script`."""

    @classmethod
    def recorded(cls, launch: Launch | None, config: SearchConfig, given: FilesGiven) -> Inputs:
        """The inputs in the log. What an old or missing launch event lacks is read from files that were given again.

        Raises UsageError that names a file which the run's configuration names and nobody gave this time.
        """
        start = launch.start_region if launch else None
        if start is None and config.start is not None and config.start in recipe_names():
            start = get_recipe(config.start).region
        elif start is None and config.start is not None:
            _require_given("--start", config.start, given.start)
            start = start_region(config)
        kind = proposer_kind(config)
        script = launch.script if launch else None
        if script is None and kind.argument:
            _require_given("--proposer", config.proposer, given.proposer)
            script = kind.script(config)
        return cls(start, script)


def _require_given(flag: str, named: str, given: str | None) -> None:
    if named != given:
        raise UsageError(
            f"the run names a file, {flag} {named}, and its log does not hold what was in it; if that is your file, "
            f"give {flag} {named} again"
        )


def start_region(config: SearchConfig) -> str | None:
    """The region that `--start` gives; None without one. Raises UsageError."""
    return None if config.start is None else starting_region(config.start)


def settled(config: SearchConfig) -> tuple[SearchConfig, tuple[str, ...]]:
    """The configuration with what depends on other settings decided, and sentences about it for a person."""
    config, notes = chosen_engine(config)
    if config.parallel <= config.budget:
        return config, notes
    lowered = config.model_copy(update={"parallel": config.budget})
    return lowered, (
        *notes,
        f"--parallel {config.parallel} is lowered to {config.budget}: no more tests can be in flight",
    )


def check_prerequisites(config: SearchConfig, profile: Profile) -> None:
    """Raise UsageError when git or the engine is missing, or a data set of the profile that may not be downloaded."""
    if shutil.which("git") is None:
        raise UsageError("git is not installed: it keeps the history of each search (Debian: apt install git)")
    check_engine(config)
    for name in sorted({task.dataset for task in (*profile.visible, *profile.hidden)}):
        found = available(name, data_root=config.data_root)
        if not found.ok and not config.download:
            raise UsageError(f"profile {profile.name} needs {name}: {found.reason}")


def record_launch(
    log: EventLog,
    config: SearchConfig,
    profile: Profile,
    workbench: Workbench,
    inputs: Inputs | None,
    given: FilesGiven,
) -> Inputs:
    """Log configuration and environment. A resumed search compares them with its log.

    Returns the inputs, which a resumed search reads from its log or from files that were `given` again. Raises
    UsageError when the environment differs or a file was not given again, RunDamaged when anything else differs.
    """
    recorded = log.recorded("launch")
    launch = recorded if isinstance(recorded, Launch) else None
    if launch is not None:
        _require_same_environment(log.path, launch.environment, workbench.environment)
    inputs = inputs or Inputs.recorded(launch, config, given)
    log.append(
        Launch(
            config=config.model_dump(mode="json"),
            profile=profile.name,
            environment=workbench.environment,
            isolation_level=workbench.isolation.level,
            scaffold=scaffold().text,
            start_region=inputs.start_region,
            script=inputs.script,
        )
    )
    return inputs


def _require_same_environment(log: Path, was: Mapping[str, str], now: Mapping[str, str]) -> None:
    unequal = [
        f"{name} was {was.get(name, 'not recorded')} and is now {now.get(name, 'absent')}"
        for name in dict.fromkeys([*was, *now])
        if was.get(name) != now.get(name)
    ]
    if unequal:
        raise UsageError(
            f"{log.parent}: the search began in another environment ({'; '.join(unequal)}), and results of two "
            "environments cannot be compared; resume it there, or begin a new search"
        )


@contextmanager
def fresh_workspace(run: RunDirectory) -> Iterator[Workspace]:
    """Make a new repository. A resumed run also makes a new one and carries out the recorded calls again."""
    if run.workspace.exists():
        shutil.rmtree(run.workspace)
    with Workspace.create(run.workspace) as workspace:
        workspace.tag("baseline")
        yield workspace


def make_toolbox(
    config: SearchConfig,
    profile: Profile,
    workbench: Workbench,
    *,
    workspace: Workspace,
    log: EventLog,
    results: LayeredStore,
) -> Toolbox:
    """A toolbox with the whole budget and no baseline yet. Evaluations use `results`."""
    evaluator = workbench.evaluator
    screen = None
    if config.screen:
        screen = Screen(
            evaluator=evaluator,
            record=log.append,
            profile=profile,
            share=config.screen,
            seed=config.seed,
            seeds=config.seeds,
            results=results,
        )
    return Toolbox(
        workspace=workspace,
        evaluator=evaluator,
        log=log,
        profile=profile,
        seeds=config.evaluation_seeds,
        budget=config.budget,
        baseline={},
        results=results,
        screen=screen,
        confirmation_seeds=config.confirmation_seeds,
    )
