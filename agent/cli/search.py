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
from agent.runs.status import RunStatus

if TYPE_CHECKING:
    from agent.engine.outcome import SearchOutcome
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
    if not resume:
        return execute(Search.create(config), as_json=as_json)
    run = RunDirectory.find(resume, config.runs)
    if RunStatus.of(run.read_summary()).finished:
        return repeat(run, as_json=as_json)
    return execute(Search.resume(run), as_json=as_json)


def null_proposer(proposer: str | None) -> str:
    """The proposer that --null means. Raises UsageError when another one was asked for as well."""
    if proposer not in (None, "null"):
        raise UsageError(f"--null searches among copies of the baseline, so --proposer {proposer} contradicts it")
    return "null"


def execute(search: Search, *, as_json: bool) -> int:
    """Run a search with its progress on stderr, print what was found, return the exit code."""
    from agent.engine.summary import OUR_FAILURES
    from agent.report import report_at_end

    _print_launch(search.launch, as_json=as_json)
    progress = make_progress()
    try:
        with search.opened(progress) as opened, report_at_end(search.run, opened.isolation, progress.message):
            outcome = opened.execute()
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
    return _print_outcome(outcome, as_json=as_json)


def repeat(run: RunDirectory, *, as_json: bool) -> int:
    """Print again what a finished search printed, and make its patch, its module and its page if they are missing.

    A search that was killed while its page was written has ended, and had not said so.
    """
    from agent.engine.outcome import finished_outcome
    from agent.engine.summary import OUR_FAILURES
    from agent.report import try_to_write_report

    try:
        with run.held():
            launch, outcome = finished_outcome(run)
            _print_launch(launch, as_json=as_json)
            if not (run.path / "report.html").exists():
                try_to_write_report(run, lambda text: print(text, file=sys.stderr))
    except OUR_FAILURES as error:
        raise AgentError(f"{run.path}: this run is complete, but {error}; `agent show` prints it") from None
    return _print_outcome(outcome, as_json=as_json)


def _print_launch(launch: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(launch)
    else:
        print(f"run {launch['run']}", file=sys.stderr)


def _print_outcome(outcome: SearchOutcome, *, as_json: bool) -> int:
    if as_json:
        print_json(outcome.done)
    else:
        print("\n".join(outcome.words))
    following = "review" if RunStatus.of(outcome.done).waiting else "show"
    print(f"next: agent {following} {outcome.run.name}", file=sys.stderr)
    return outcome.exit_code
