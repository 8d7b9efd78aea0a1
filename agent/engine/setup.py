"""Prepares a search: reads the user's files, checks data, makes the workspace and the toolbox."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.analysis.noise import noise_here
from agent.config import SearchConfig
from agent.engine.screening import Screen
from agent.engine.toolbox import Toolbox
from agent.errors import AgentError, UsageError
from agent.evaluation.engines import check_engine, chosen_engine
from agent.evaluation.evaluator import Evaluator
from agent.evaluation.workbench import Workbench
from agent.profiles import as_recorded, scaffold_of
from agent.proposers import proposer_kind
from agent.runs.directory import RunDirectory
from agent.runs.events import Event, Launch
from agent.runs.log import EventLog
from agent.runs.noise import Noise, as_logged, of_log
from agent.spaces.base import space_for
from agent.spaces.start import starting_region
from benchmark.data import DataError, available, load_dataset
from benchmark.recipes import get_recipe, recipe_names
from benchmark.recipes.as_built import REGION as AS_BUILT
from benchmark.store import LayeredStore
from benchmark.tasks import Profile
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
    """Look for git and the profile's data sets. With `download`, fetch the sets that are missing, here and once.

    Raises UsageError when git or the engine is missing, or a data set is missing and may not be downloaded; AgentError
    when a download fails.
    """
    if shutil.which("git") is None:
        raise UsageError("git is not installed: it keeps the history of each search (Debian: apt install git)")
    check_engine(config)
    if config.null and profile.baseline == AS_BUILT:
        raise UsageError(
            f"--null: the baseline of {profile.name} draws no numbers (as_built), so all its copies would be equal; "
            "name a recipe as the task file's baseline"
        )
    if profile.is_own and config.proposer in ("optuna", "random") and config.start is None:
        space_for(None, "", profile.visible)
    own = [task.name for task in profile.visible if task.trainer is not None]
    if config.screen and own:
        raise UsageError(f"--screen looks at short trainings, which the trainer of {own[0]} does not have")
    for name in sorted({task.dataset for task in profile.tasks if task.data is None and task.trainer is None}):
        found = available(name, data_root=config.data_root)
        if found.ok:
            continue
        if not config.download:
            raise UsageError(f"profile {profile.name} needs {name}: {found.reason}")
        try:
            load_dataset(name, data_root=config.data_root, download=True)
        except DataError as error:
            raise AgentError(f"profile {profile.name} needs {name}: {error}") from error


def record_launch(
    log: EventLog,
    config: SearchConfig,
    profile: Profile,
    environment: dict[str, str],
    isolation_level: str,
    inputs: Inputs | None,
    given: FilesGiven,
) -> tuple[Inputs, Noise | None]:
    """Log configuration, environment and seed noise. A resumed search compares them with its log.

    Returns the inputs, which a resumed search reads from its log or from files that were `given` again, and the noise,
    which it reads from its log, since the user's store may have more results by now. Raises UsageError when the
    environment differs or a file was not given again, RunDamaged when anything else differs.
    """
    recorded = log.recorded("launch")
    launch = recorded if isinstance(recorded, Launch) else None
    if launch is not None:
        _require_same_environment(log.path, launch.environment, environment)
    inputs = inputs or Inputs.recorded(launch, config, given)
    noise = (
        of_log(launch.noise, profile)
        if launch is not None
        else noise_here(profile, environment, cache=config.cache, given=dict(profile.noise))
    )
    log.append(
        Launch(
            config=config.model_dump(mode="json"),
            profile=profile.name,
            environment=environment,
            isolation_level=isolation_level,
            scaffold=scaffold_of(profile).text,
            tasks=as_recorded(profile),
            start_region=inputs.start_region,
            script=inputs.script,
            noise=None if noise is None else as_logged(noise, profile),
        )
    )
    return inputs, noise


def require_as_launched(log: Path, launch: Event, workbench: Workbench) -> None:
    """Raise UsageError unless environment and isolation are those in which the run began."""
    if isinstance(launch, Launch):
        was = {**launch.environment, "isolation": launch.isolation_level}
        _require_same_environment(log, was, {**workbench.environment, "isolation": workbench.isolation.level})


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
def fresh_workspace(run: RunDirectory, profile: Profile) -> Iterator[Workspace]:
    """Make a new repository that starts as the profile's baseline.

    A resumed run also makes a new one and carries out the recorded calls again.
    """
    if run.workspace.exists():
        shutil.rmtree(run.workspace)
    with Workspace.create(run.workspace, profile.baseline) as workspace:
        workspace.tag("baseline")
        yield workspace


def make_toolbox(
    config: SearchConfig,
    profile: Profile,
    evaluator: Evaluator,
    *,
    workspace: Workspace,
    log: EventLog,
    results: LayeredStore,
    noise: Noise | None,
) -> Toolbox:
    """A toolbox with the whole budget and no baseline yet. Evaluations use `results`."""
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
        noise=noise,
    )
