"""`agent search`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.cli.output import print_json
from agent.config import load_config
from agent.errors import AgentError, Interrupted, UsageError
from agent.progress import make_progress
from agent.runs.directory import RunDirectory

if TYPE_CHECKING:
    from agent.engine.search import Search


_FOR_MODELS = (
    *("model", "base_url", "max_tokens", "max_cost", "price"),
    *("answer_tokens", "context_tokens", "request_seconds", "temperature"),
)


def run_search(flags: Mapping[str, Any], *, toml: Path | None, resume: str | None, as_json: bool) -> int:
    """Search, print what was found, return the exit code."""
    from agent.engine.search import Search

    given = [f"--{name.replace('_', '-')}" for name, value in flags.items() if value is not None and name != "runs"]
    if resume and given:
        raise UsageError(f"--resume goes on with the run's own settings, so it contradicts {', '.join(given)}")
    config = load_config(flags, toml=toml)
    unheard = [f"--{name.replace('_', '-')}" for name in _FOR_MODELS if flags.get(name) is not None]
    if unheard and config.proposer in ("optuna", "random", "null"):
        raise UsageError(f"{', '.join(unheard)}: only a language model listens to that; add --proposer llm or hybrid")
    search = Search.resume(RunDirectory.find(resume, config.runs)) if resume else Search.create(config)
    return execute(search, as_json=as_json)


def null_proposer(proposer: str | None) -> str:
    """The proposer that --null means. Raises UsageError when another one was asked for as well."""
    if proposer not in (None, "null"):
        raise UsageError(f"--null searches among copies of the baseline, so --proposer {proposer} contradicts it")
    return "null"


def execute(search: Search, *, as_json: bool) -> int:
    """Run a search with its progress on stderr, print what was found, return the exit code."""
    from agent.engine.search import OUR_FAILURES

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
