"""The toolbox of a search, with what its configuration adds to the tools: screening and confirmation."""

from __future__ import annotations

from agent.config import SearchConfig
from agent.engine.screening import Screen
from agent.engine.toolbox import Toolbox
from agent.evaluation.workbench import Laboratory
from agent.runs.log import EventLog
from benchmark.store import LayeredStore
from benchmark.tasks import Profile
from sandbox.workspace import Workspace


def equip(
    config: SearchConfig,
    profile: Profile,
    laboratory: Laboratory,
    *,
    workspace: Workspace,
    log: EventLog,
    results: LayeredStore,
) -> Toolbox:
    """A toolbox with the whole budget and without a baseline yet."""
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
