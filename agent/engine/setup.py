"""Prepares a search: settings that depend on others, git and data, the workspace and the toolbox."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from agent.config import SearchConfig
from agent.engine.screening import Screen
from agent.engine.toolbox import Toolbox
from agent.errors import AgentError, UsageError
from agent.evaluation.batches import Evaluations
from agent.evaluation.engines import check_engine, chosen_engine
from agent.runs.directory import RunDirectory
from agent.runs.log import EventLog
from agent.runs.recorded_noise import Noise
from agent.spaces.base import space_for
from benchmark.data import DataError, available, load_dataset
from benchmark.recipes.as_built import REGION as AS_BUILT
from benchmark.store import LayeredStore
from benchmark.tasks import Profile
from sandbox.workspace import Workspace


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
    evaluator: Evaluations,
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
