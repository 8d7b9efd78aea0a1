"""The search: its loop, tools, proposers and records, and the commands that people type.

From Python, without a terminal:

    from agent import load_run, search

    outcome = search(budget=3, profile="smoke")
    print(outcome.done["visible"])
    print(load_run(outcome.run)["status"])
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.engine.search import SearchOutcome
    from agent.progress import Progress
    from agent.report.notebook import LoadedRun

__all__ = ["load_run", "search"]


def search(*, progress: Progress | None = None, **settings: Any) -> SearchOutcome:
    """Run a search to its end and return its result. Prints nothing; in a notebook its progress stands below the cell.

    `settings` are the fields of `agent.config.SearchConfig`. Environment variables and `initsearch.toml` are read as on
    the command line. With `network` they also describe a task of the caller's own (docs/tasks.md):

        search(network=build, data=(train_x, train_y, test_x, test_y), epochs=10, budget=3)

    `network` is a function that gets num_classes, or a text as in a task file; `data` are four arrays, or such a text.
    Raises UsageError before anything is trained, and later the other types of `agent.errors`.
    """
    from agent.config import read_config
    from agent.engine.own_task import is_own, take_task
    from agent.engine.search import Search
    from agent.llm.consent import confirm_loaded
    from agent.progress import Progress
    from agent.report import report_at_end
    from agent.report.notebook import notebook_progress
    from benchmark.tasks import FROM_PYTHON

    resolved = None
    if is_own(settings):
        resolved = (take_task(settings), "as given in Python")
    found = read_config(settings)
    config = found.config if resolved is None else found.config.model_copy(update={"profile": FROM_PYTHON})
    if found.config.proposer in ("llm", "hybrid"):
        confirm_loaded(found, os.environ, key_host=None, ask=None)
    search = Search.create(config, resolved=resolved)
    shown = progress or notebook_progress() or Progress()
    say, data_root = shown.message, found.config.data_root
    try:
        with (
            search.opened(shown) as opened,
            report_at_end(
                search.run, opened.isolation, say, executor=opened.executor, data_root=data_root, given=search.profile
            ),
        ):
            return opened.execute()
    finally:
        if progress is None:
            shown.close()


def load_run(run: str | Path, runs: str | Path = "runs") -> LoadedRun:
    """Read the summary of a run. `run` is a path, a name, an unambiguous part of a name, or `latest`.

    A notebook shows what this returns as verdict, table and curves; `load_run(…).show()` does so anywhere.
    Raises UsageError, RunDamaged.
    """
    from agent.report.notebook import LoadedRun
    from agent.runs.directory import RunDirectory

    directory = RunDirectory.find(run, Path(runs))
    return LoadedRun({"path": str(directory.path), **directory.read_summary()})
