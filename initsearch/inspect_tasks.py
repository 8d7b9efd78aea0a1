"""What Inspect AI registers (the entry point of group `inspect_ai`).

Inspect names a task after the package that holds it, and looks an entry point up by that name.
"""

from __future__ import annotations

from inspect_ai import Task, task

from agent.sessions.inspect_task import build


@task
def init_search(
    profile: str = "pocket",
    budget: int = 3,
    seeds: int = 1,
    screen: float = 0.0,
    confirm: int = 0,
    runs: str | None = None,
) -> Task:
    """Search for a better weight initialisation, within a budget of tests.

    Args:
        profile: paper, pocket, mini, smoke, auto, or a task file, whose code runs.
        budget: Tests that the model may spend.
        seeds: Training runs per task and candidate.
        screen: Share of a test's cost for looks before each test; 0: none.
        confirm: Fresh seeds for the best tests and the baseline on submit; 0: none.
        runs: Folder of the run directories (default: INITSEARCH_RUNS, or runs).
    """
    return build(profile=profile, budget=budget, seeds=seeds, screen=screen, confirm=confirm, runs=runs)
