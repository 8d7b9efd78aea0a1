"""`agent replay`: applies recorded calls again and compares the replies."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli.app import DataRootOption, JsonFlag, RunsOption, app
from agent.errors import AgentError, UsageError

if TYPE_CHECKING:
    from agent.transcripts import Replay


@app.command()
def replay(
    source: Annotated[str, typer.Argument(help="A recorded conversation (JSON), a run directory, or latest.")],
    runs: RunsOption = Path("runs"),
    execute: Annotated[
        bool, typer.Option("--execute", help="Train again: a run's tests, or a conversation's strategies.")
    ] = False,
    profile: Annotated[
        str | None, typer.Option(help="Profile on which --execute trains a conversation's strategies (default auto).")
    ] = None,
    data_root: DataRootOption = None,
    plain: Annotated[bool, typer.Option("--plain", help="Print all calls, on a terminal too.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Apply the recorded calls again and compare the replies.

    \b
    Examples:
      agent replay latest
      agent replay conversation.json --json
      agent replay latest --execute
      agent replay conversation.json --execute --profile pocket

    On a terminal, and with the extra `viewer` installed, step through it: n next, p previous, g jump, r reasoning,
    d diff, q quit.
    """
    code = run_replay(source, runs, as_json=as_json, execute=execute, profile=profile, data_root=data_root, plain=plain)
    raise typer.Exit(code)


def run_replay(
    source: str,
    runs: Path,
    *,
    as_json: bool,
    execute: bool = False,
    profile: str | None = None,
    data_root: Path | None = None,
    plain: bool = True,
) -> int:
    """Replay. Exit code: 0, or 3 when anything differs. With `execute`, train the tests again. Raises UsageError.

    Without `plain`, step through the replay if this is a terminal and Textual is installed.
    """
    from agent.cli import transcript_text

    path = transcript_text.find_conversation(source, runs)
    if execute:
        return _execute(path, profile, data_root, as_json=as_json)
    if profile is not None:
        raise UsageError("--profile says what --execute trains on; without it nothing is trained")
    if not (plain or as_json) and _on_terminal():
        if importlib.util.find_spec("textual") is not None:
            return _step_through(path)
        print("to step through it: pip install 'initsearch[viewer]'", file=sys.stderr)
    return transcript_text.run_replay(path, as_json=as_json, out=sys.stdout)


def _on_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def _step_through(path: Path) -> int:
    from collections import Counter

    from agent import transcripts
    from agent.cli import transcript_text
    from agent.cli.viewer import ReplayViewer, pages

    replay = transcripts.replay(path)
    verdicts = list(replay)
    if verdicts:
        ReplayViewer(str(path), pages(replay.transcript, verdicts)).run()
    reasons = Counter(verdict.reason or "" for verdict in verdicts if verdict.verdict == "unverifiable")
    transcript_text.print_summary(replay, reasons, path, sys.stdout)
    return transcript_text.EXIT_FOUND if replay.counts["differs"] else transcript_text.EXIT_OK


def _execute(path: Path, profile: str | None, data_root: Path | None, *, as_json: bool) -> int:
    from agent.cli.live_table import make_progress
    from agent.cli.transcript_text import print_replay
    from benchmark.data import DataError
    from benchmark.executors import InfrastructureError
    from sandbox.isolate import IsolationCrashed

    try:
        with (
            closing(make_progress()) as progress,
            _opened(path, profile, data_root, progress) as (replay, executed),
        ):
            return print_replay(replay, path, as_json=as_json, out=sys.stdout, executed=executed)
    except (InfrastructureError, IsolationCrashed, DataError) as error:
        raise AgentError(f"our own machinery failed, which says nothing about the record: {error}") from None


@contextmanager
def _opened(path: Path, profile: str | None, data_root: Path | None, progress: Any) -> Iterator[tuple[Replay, Any]]:
    """The replay that trains, and the results of a conversation's strategies (None for our own runs)."""
    from agent.config import load_config
    from agent.profiles import given_profile, resolve_profile
    from agent.studies import retrain
    from agent.transcripts import load_transcript
    from benchmark.tasks import is_task_file

    transcript = load_transcript(path)
    if transcript.source == "run":
        own = profile is not None and is_task_file(profile)
        if profile not in (None, transcript.task) and not own:
            raise UsageError(f"--profile {profile}: this run's tests were made on {transcript.task}, and are run there")
        given = given_profile(profile, data_root=data_root) if own else None
        with retrain.replay_of_run(path, progress, data_root, given) as replay:
            yield replay, None
        return
    config = load_config({"profile": profile, "data_root": data_root})
    resolved, reason = resolve_profile(config.profile, data_root=config.data_root)
    with retrain.replay_of_conversation(transcript, config, resolved, progress) as (replay, strategies):
        progress.message(f"strategies are trained on {resolved.name} ({reason})")
        yield replay, strategies
