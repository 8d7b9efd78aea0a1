"""The toolbox of a search, with what its configuration adds to the tools: screening and confirmation."""

from __future__ import annotations

from agent.config import SearchConfig
from agent.engine.screening import Screen
from agent.engine.toolbox import Toolbox
from agent.evaluation.workbench import Laboratory
from agent.runs.log import EventLog
from benchmark.store import ResultStore
from benchmark.tasks import Profile
from sandbox.workspace import Workspace


def equip(
    config: SearchConfig,
    profile: Profile,
    laboratory: Laboratory,
    *,
    workspace: Workspace,
    log: EventLog,
    keep: ResultStore,
    shared: ResultStore | None,
) -> Toolbox:
    """A toolbox with the whole budget and without a baseline yet; results go to `keep`, and from and to `shared`."""
    evaluator = laboratory.evaluator
    screen = None
    if config.screen:
        screen = Screen(
            evaluator=evaluator,
            record=log.append,
            profile=profile,
            share=config.screen,
            seed=config.seed,
            seeds=config.seeds,
            keep=keep,
            shared=shared,
        )
    return Toolbox(
        workspace=workspace,
        evaluator=evaluator,
        log=log,
        profile=profile,
        seeds=config.evaluation_seeds,
        budget=config.budget,
        baseline={},
        keep=keep,
        shared=shared,
        screen=screen,
        confirmation_seeds=config.confirmation_seeds,
    )
