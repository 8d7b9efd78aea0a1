"""`agent search`: its flags, and how it begins and ends."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli.app import (
    DataRootOption,
    ExecutorOption,
    JsonFlag,
    ParallelOption,
    ProfileOption,
    RayAddressOption,
    SeedOption,
    SeedsOption,
    SendKeyOption,
    SetOption,
    SlurmOption,
    TrackOption,
    WorkersOption,
    app,
    settings_given,
)
from agent.cli.outcome_text import print_following, print_launch, print_outcome
from agent.cli.output import asking, say, showing
from agent.cli.session_runs import in_session, is_command, require_typed, resume_session, search_by_command
from agent.errors import AgentError, UsageError

if TYPE_CHECKING:
    from agent.config import Loaded
    from agent.engine.outcome import SearchOutcome
    from agent.engine.search import Search
    from agent.report.tracker_live import Trackers
    from agent.runs.directory import RunDirectory

_WITH_RESUME = frozenset(
    {"runs", "allow_unsandboxed", "data_root", "download", "proposer", "start", "base_url"}
    | {"executor", "ray_address", "slurm"}
)
"""What a run directory does not decide for the one who resumes it."""
_FOR_MODELS = (
    *("model", "base_url", "max_tokens", "max_cost", "price"),
    *("answer_tokens", "context_tokens", "request_seconds", "temperature"),
)


@app.command()
def search(
    ctx: typer.Context,
    budget: Annotated[int | None, typer.Option(help="Tests that may be spent (default 3).")] = None,
    proposer: Annotated[
        str | None,
        typer.Option(
            help="optuna, random, llm, hybrid, command:CMD, scripted:demo, scripted:FILE or transcript:FILE "
            "(default optuna)."
        ),
    ] = None,
    null: Annotated[
        bool, typer.Option("--null", help="A/A: search among copies of the baseline; what would be claimed?")
    ] = False,
    profile: ProfileOption = None,
    seeds: SeedsOption = None,
    baseline_seeds: Annotated[
        int | None, typer.Option(help="Training runs per visible task of the baseline (default: as --seeds).")
    ] = None,
    screen: Annotated[
        float | None,
        typer.Option(help="Before each test, screen further candidates for this share of a test's cost (default 0)."),
    ] = None,
    confirm: Annotated[
        int | None,
        typer.Option(help="Before submitting, train the best tests and the baseline again on so many fresh seeds."),
    ] = None,
    seed: SeedOption = None,
    workers: WorkersOption = None,
    parallel: ParallelOption = None,
    executor: ExecutorOption = None,
    ray_address: RayAddressOption = None,
    slurm: SlurmOption = None,
    start: Annotated[str | None, typer.Option(help="Recipe or file that the search starts from.")] = None,
    runs: Annotated[Path | None, typer.Option(help="Folder for the run (default runs).")] = None,
    data_root: DataRootOption = None,
    download: Annotated[bool | None, typer.Option("--download", help="Fetch missing data sets.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, bf16 or fp32.")] = None,
    isolation: Annotated[str | None, typer.Option(help="auto, bubblewrap or landlock.")] = None,
    allow_unsandboxed: Annotated[
        bool | None,
        typer.Option("--allow-unsandboxed", help="Run candidates without isolation. Only for code you would run."),
    ] = None,
    cache: Annotated[
        bool | None, typer.Option("--cache/--no-cache", help="Use and fill the store of results (default: yes).")
    ] = None,
    max_steps: Annotated[int | None, typer.Option(help="Tool calls after which the search ends.")] = None,
    max_seconds: Annotated[
        float | None, typer.Option(help="Begin no step after so many seconds; a resumed search counts anew.")
    ] = None,
    submit: Annotated[
        bool | None,
        typer.Option("--submit/--no-submit", help="no: hold the hidden task back until agent submit, after a review."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Language model, for llm and hybrid. Its key: OPENAI_API_KEY.")
    ] = None,
    base_url: Annotated[
        str | None, typer.Option(help="Its server, if not OpenAI's, such as http://localhost:8080/v1.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(help="Tokens that the model may read and write in the whole search.")
    ] = None,
    max_cost: Annotated[float | None, typer.Option(help="Dollars that the model may cost; needs --price.")] = None,
    price: Annotated[str | None, typer.Option(help="IN/OUT, dollars for a million tokens, such as 0.28/0.42.")] = None,
    answer_tokens: Annotated[int | None, typer.Option(help="Tokens of one answer (default 16384).")] = None,
    context_tokens: Annotated[
        int | None, typer.Option(help="The model's context, if its server does not tell it.")
    ] = None,
    request_seconds: Annotated[float | None, typer.Option(help="Seconds to wait for an answer (default 300).")] = None,
    temperature: Annotated[float | None, typer.Option(help="Sampling temperature (default: the server's).")] = None,
    yes_send_key_to: SendKeyOption = None,
    pass_env: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Let the command of command:CMD have this variable; repeatable."),
    ] = None,
    settings: SetOption = None,
    resume: Annotated[str | None, typer.Option(help="Go on with an interrupted run.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with these settings.")] = None,
    page: Annotated[
        bool,
        typer.Option("--page/--no-page", help="Write report.html at the end (default: yes)."),
    ] = True,
    track: TrackOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Search for a better initialisation.

    \b
    Examples:
      agent search --budget 3
      agent search --budget 5 --seeds 3 --profile paper --data-root ~/data
      agent search --proposer scripted:my_init.py --json
      agent search --proposer scripted:demo --profile smoke
      agent search --budget 6 --screen 0.5 --confirm 5
      agent search --null --budget 5
      agent search --proposer llm --model NAME --base-url http://localhost:8080/v1
      agent search --proposer command:"opencode run 'Do what AGENTS.md says.'" --pass-env OPENAI_API_KEY
      agent search --resume latest
    """
    from agent.config import flag_name, parse_settings, read_config
    from benchmark.tasks import is_task_file

    flags = settings_given(ctx)
    if null:
        flags["proposer"] = _null_proposer(proposer)
    by_set = parse_settings(settings or [])
    given = {name: flag_name(name, value) for name, value in flags.items()} | {name: f"--set {name}" for name in by_set}
    again = {*_WITH_RESUME, "profile"} if is_task_file(str(profile)) else _WITH_RESUME
    if resume and (contradicting := [given[name] for name in given if name not in again]):
        raise UsageError(f"--resume uses the run's own settings, so it contradicts {', '.join(contradicting)}")
    found = read_config(flags, toml=config, settings=by_set)
    loaded = found.config
    ignored = [given[name] for name in _FOR_MODELS if name in given]
    ignored += ["--yes-send-key-to"] if yes_send_key_to is not None else []
    if ignored and not resume and loaded.proposer in ("optuna", "random", "null"):
        raise UsageError(f"{', '.join(ignored)}: only a language model listens to that; add --proposer llm or hybrid")
    if pass_env and not resume and not is_command(loaded):
        raise UsageError('--pass-env: only a command is given variables; add --proposer command:"CMD"')

    from agent.engine.resuming import Allowed
    from agent.engine.search import Search
    from agent.runs.directory import RunDirectory
    from agent.runs.status import RunStatus

    if not resume:
        confirm_server(found, [loaded.proposer], yes_send_key_to)
        if is_command(loaded):
            require_typed(found, given)
            raise typer.Exit(search_by_command(loaded, pass_env or [], as_json=as_json))
        if is_task_file(loaded.profile):
            say(f"loading the data and building the networks of {loaded.profile}")
        trackers = trackers_of(track)
        raise typer.Exit(execute(Search.create(loaded, say=say), page=page, as_json=as_json, trackers=trackers))
    run = RunDirectory.find(resume, loaded.runs)
    if RunStatus.of(run.read_summary()).finished:
        raise typer.Exit(repeat(run, page=page, as_json=as_json, data_root=loaded.data_root))
    allowed = Allowed.loaded(found, given, key_host=yes_send_key_to, ask=asking())
    if in_session(run):
        raise typer.Exit(resume_session(run, allowed, pass_env or [], as_json=as_json))
    trackers = trackers_of(track)
    raise typer.Exit(execute(Search.resume(run, allowed=allowed), page=page, as_json=as_json, trackers=trackers))


def confirm_server(found: Loaded, proposers: Sequence[str], key_host: str | None) -> None:
    """Have the user confirm the model's server, if one of the proposers asks one that a file lying here chose.

    Raises UsageError.
    """
    if not {"llm", "hybrid"}.isdisjoint(proposers):
        from agent.llm.consent import confirm_loaded

        confirm_loaded(found, os.environ, key_host=key_host, ask=asking())


def _null_proposer(proposer: str | None) -> str:
    """The proposer that --null means. Raises UsageError when another one was asked for as well."""
    if proposer not in (None, "null"):
        raise UsageError(f"--null searches among copies of the baseline, so --proposer {proposer} contradicts it")
    return "null"


def trackers_of(given: str | None) -> Trackers | None:
    """The trackers that --track names. Raises UsageError for one that is unknown or not installed."""
    if given is None:
        return None
    from agent.report.tracker_live import Trackers

    return Trackers(given)


def execute(search: Search, *, page: bool = True, as_json: bool, trackers: Trackers | None = None) -> int:
    """Run a search with its progress on stderr, print what was found, then write its page. Returns the exit code."""
    from agent.report import report_at_end

    print_launch(search.launch, as_json=as_json)
    outcome: SearchOutcome | None = None

    def stopped() -> str:
        return "the search is complete, its page is not; make it" if outcome else "go on"

    with (
        showing(again=search.resume_command, stopped=stopped) as progress,
        search.opened(progress) as opened,
        report_at_end(
            search.run,
            opened.isolation,
            progress.message,
            executor=opened.executor,
            page=page,
            data_root=search.pinned.data_root,
            given=search.profile,
        ),
    ):
        if trackers is not None:
            trackers.start(search.run, progress.message)
        outcome = opened.execute()
        progress.trained()
        print_outcome(outcome, as_json=as_json)
    assert outcome is not None
    print_following(outcome, search.config.proposer)
    return outcome.exit_code


def repeat(run: RunDirectory, *, page: bool = True, as_json: bool, data_root: Path | None = None) -> int:
    """Print again what a finished search printed, and make the files of its end that are missing, page included.

    A search that was killed while its page was written has ended, and had not said so.
    """
    from agent.engine.outcome import finished_outcome
    from agent.engine.summary import OUR_FAILURES
    from agent.report import try_to_write_report

    try:
        with run.held():
            launch, outcome = finished_outcome(run)
            print_launch(launch, as_json=as_json)
            print_outcome(outcome, as_json=as_json)
            if page and not (run.path / "report.html").is_file():
                try_to_write_report(run, say, data_root=data_root)
    except OUR_FAILURES as error:
        raise AgentError(f"{run.path}: this run is complete, but {error}; `agent show` prints it") from None
    print_following(outcome, launch["proposer"])
    return outcome.exit_code
