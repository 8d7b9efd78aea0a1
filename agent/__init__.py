"""Who decides: the loop, the tools, the proposers, the record, the commands people type.

From Python, without a terminal:

    from agent import load_run, search

    outcome = search(budget=3, profile="smoke")
    print(outcome.done["visible"])
    print(load_run(outcome.run)["status"])
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.engine.search import SearchOutcome
    from agent.progress import Progress

__all__ = ["load_run", "search"]


def search(*, progress: Progress | None = None, **settings: Any) -> SearchOutcome:
    """Run a search to its end and return what it came to. Prints nothing.

    `settings` are the fields of `agent.config.SearchConfig`; variables and `initsearch.toml` count as on the command
    line. Raises UsageError before anything is spent, other AgentErrors as their docstrings say.
    """
    from agent.config import load_config
    from agent.engine.search import Search
    from agent.progress import Progress
    from agent.report import report_at_end

    search, progress = Search.create(load_config(settings)), progress or Progress()
    with (
        search.opened(progress) as opened,
        report_at_end(search.run, opened.isolation, progress.message, executor=opened.executor),
    ):
        return opened.execute()


def load_run(run: str | Path, runs: str | Path = "runs") -> dict[str, Any]:
    """The summary of a run: path, name, unambiguous part of a name, or `latest`. Raises UsageError, RunDamaged."""
    from agent.runs.directory import RunDirectory

    directory = RunDirectory.find(run, Path(runs))
    return {"path": str(directory.path), **directory.read_summary()}
