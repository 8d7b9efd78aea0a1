"""`agent search`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.cli import print_json
from agent.config import load_config
from agent.errors import AgentError, Interrupted
from agent.progress import make_progress
from agent.run import RunDirectory

if TYPE_CHECKING:
    from agent.search import Search


def run_search(flags: Mapping[str, Any], *, toml: Path | None, resume: str | None, as_json: bool) -> int:
    """Search, print what was found, return the exit code."""
    from agent.search import Search

    config = load_config(flags, toml=toml)
    search = Search.resume(RunDirectory.find(resume, config.runs)) if resume else Search.create(config)
    return execute(search, as_json=as_json)


def execute(search: Search, *, as_json: bool) -> int:
    """Run a search with its progress on stderr, print what was found, return the exit code."""
    from agent.search import OUR_FAILURES

    if as_json:
        print_json(search.launch)
    else:
        print(f"run {search.run.path}", file=sys.stderr)
    progress = make_progress()
    try:
        outcome = search.execute(progress)
    except (Interrupted, KeyboardInterrupt) as stop:
        progress.close()
        print(f"stopped; go on with: agent search --resume {search.run.path}", file=sys.stderr)
        raise stop if isinstance(stop, Interrupted) else Interrupted(2) from None
    except OUR_FAILURES as error:
        raise AgentError(
            f"{error}\nwhat was done is kept; go on with: agent search --resume {search.run.path}"
        ) from None
    finally:
        progress.close()
    if as_json:
        print_json(outcome.done)
    else:
        print("\n".join(outcome.words))
    following = "review" if outcome.status == "waiting_for_review" else "show"
    print(f"next: agent {following} {outcome.run.name}", file=sys.stderr)
    return outcome.exit_code
