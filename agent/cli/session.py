"""`agent session`: a run whose proposer is whoever edits a file."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli.app import (
    DataRootOption,
    JsonFlag,
    ProfileOption,
    SeedOption,
    SeedsOption,
    TaskFileOption,
    UnsandboxedOption,
    app,
    settings_given,
)
from agent.cli.output import print_json, print_next, showing
from agent.cli.session_options import BudgetOption, ConfirmOption, NewRunsOption, ScreenOption, StartOption
from agent.cli.session_output import allowed, finish, print_next_after, print_status

if TYPE_CHECKING:
    from agent.sessions import Session

session_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""
Edit one file with any editor; test and submit by commands.

\b
Examples:
  agent session start work --budget 3      makes the folder, measures the baseline
  cd work                                  edit custom_init.py; AGENTS.md says how
  agent session check                      the free checks
  agent session test                       spends a test
  agent session submit 1                   the hidden task runs; the end
""",
)
app.add_typer(session_app, name="session")

SessionOption = Annotated[
    Path | None, typer.Option("--session", metavar="DIR", help="The session's folder (default: this folder).")
]


@session_app.command()
def start(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to make; it may exist.")],
    profile: ProfileOption = None,
    budget: BudgetOption = None,
    seeds: SeedsOption = None,
    screen: ScreenOption = None,
    confirm: ConfirmOption = None,
    seed: SeedOption = None,
    start: StartOption = None,
    runs: NewRunsOption = None,
    data_root: DataRootOption = None,
    download: Annotated[bool | None, typer.Option("--download", help="Fetch missing data sets.")] = None,
    allow_unsandboxed: UnsandboxedOption = False,
    submit: Annotated[
        bool | None, typer.Option("--submit/--no-submit", help="no: hold the hidden task back until agent submit.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Start a session in DIR and measure the baseline.

    \b
    Examples:
      agent session start work
      agent session start work --profile smoke --budget 2 --json

    Progress is on stderr. If the command is killed, the next one goes on with the baseline.
    """
    from agent.config import read_config
    from agent.sessions import OPEN, Session, require_no_session
    from benchmark.tasks import is_task_file

    require_no_session()
    own = {"allow_unsandboxed": allow_unsandboxed or None, "proposer": OPEN}
    config = read_config(settings_given(ctx) | own).config

    def launched(session: Session) -> None:
        if as_json:
            print_json(session.launch)
        else:
            print(f"session {folder}\nrun {session.run.path}", file=sys.stderr)

    with showing(again=f"agent session wait --session {folder}") as progress:
        session = Session.start(folder, config, progress=progress, launched=launched)
    if not as_json:
        print_status(session)
    again = f" --profile {shlex.quote(str(Path(config.profile).absolute()))}" if is_task_file(config.profile) else ""
    print_next(f"edit {folder}/custom_init.py; cd {folder}; agent session test{again}")


@session_app.command()
def check(
    session: SessionOption = None, allow_unsandboxed: UnsandboxedOption = False, as_json: JsonFlag = False
) -> None:
    """Check the file as it is: rules, isolation, determinism. Costs nothing.

    \b
    Examples:
      agent session check
      agent session check --session work --json
    """
    from agent.evaluation.check import CheckReport
    from agent.sessions import OutsideChanged, Session
    from agent.sessions.checking import check_region_of

    found = Session.open(session)
    assert found.folder is not None
    try:
        region = found.folder.region()
        report = check_region_of(found.run, found.profile, region, allow_unsandboxed=allow_unsandboxed)
    except OutsideChanged as error:
        report = CheckReport(False, "outside_region", str(error))
    if as_json:
        print_json(report.as_json())
    elif report.accepted:
        print(f"accepted on {', '.join(report.archs)} (isolation: {report.isolation_level})")
    else:
        print(f"rejected ({report.kind}): {report.message}")
    if report.accepted:
        print_next_after(found, "agent session check")
    else:
        print_next("correct it and run agent session check again")
    raise typer.Exit(0 if report.accepted else 3)


@session_app.command("test")
def spend_test(
    background: Annotated[bool, typer.Option("--background", help="Return at once; agent session wait waits.")] = False,
    session: SessionOption = None,
    profile: TaskFileOption = None,
    data_root: DataRootOption = None,
    allow_unsandboxed: UnsandboxedOption = False,
    as_json: JsonFlag = False,
) -> None:
    """Test the region in the file. Spends one test, unless it is refused or was tested before.

    \b
    Examples:
      agent session test
      agent session test --background; agent session wait --timeout 45
    """
    from agent.sessions import Session, begin_test

    found = Session.open(session, allowed=allowed(allow_unsandboxed, data_root, profile))
    if background:
        finish(begin_test(found), as_json=as_json)
    with showing(again="agent session test") as progress:
        reply = found.test(progress=progress)
    finish(reply, as_json=as_json)


@session_app.command()
def wait(
    timeout: Annotated[float | None, typer.Option(min=0, help="Seconds after which to return in any case.")] = None,
    session: SessionOption = None,
    profile: TaskFileOption = None,
    data_root: DataRootOption = None,
    allow_unsandboxed: UnsandboxedOption = False,
    as_json: JsonFlag = False,
) -> None:
    """Wait for a running test and print its reply.

    \b
    Examples:
      agent session wait
      agent session wait --timeout 45 --json

    After --timeout it says that the test is still running.
    """
    from agent.sessions import Session, wait_for_reply

    found = Session.open(session)
    reply = wait_for_reply(found, timeout, allowed=lambda: allowed(allow_unsandboxed, data_root, profile))
    if reply is not None:
        finish(reply, as_json=as_json)
    if as_json:
        print_json({"event": "idle", "exit_code": 0})
    else:
        print("nothing is running, and nothing was tested yet")
    print_next("agent session test")


@session_app.command()
def screen(
    files: Annotated[list[Path] | None, typer.Argument(metavar="FILE…", help="Candidates (default: the file).")] = None,
    session: SessionOption = None,
    profile: TaskFileOption = None,
    data_root: DataRootOption = None,
    allow_unsandboxed: UnsandboxedOption = False,
    as_json: JsonFlag = False,
) -> None:
    """Look briefly at candidates. Spends no test.

    \b
    Examples:
      agent session screen idea1.py idea2.py

    Only in a session that was started with --screen.
    """
    from agent.sessions import Session
    from agent.spaces.start import read_region

    found = Session.open(session, allowed=allowed(allow_unsandboxed, data_root, profile))
    assert found.folder is not None
    regions = [read_region(path) for path in files] if files else [found.folder.region()]
    with showing(again="agent session screen") as progress:
        reply = found.screen(regions, progress=progress)
    finish(reply, as_json=as_json)


@session_app.command()
def undo(
    n: Annotated[int, typer.Argument(metavar="N", help="Changes to take back.")] = 1,
    session: SessionOption = None,
    profile: TaskFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Go back in the history and write the file. What was there is kept as custom_init.py.orig.

    \b
    Examples:
      agent session undo
      agent session undo 2
    """
    from agent.sessions import Session

    found = Session.open(session, allowed=allowed(False, None, profile))
    with showing(again="agent session undo") as progress:
        reply = found.undo(n, progress=progress)
    finish(reply, as_json=as_json)


@session_app.command()
def restore(session: SessionOption = None, as_json: JsonFlag = False) -> None:
    """Write the file as it was last recorded. What was there is kept as custom_init.py.orig.

    \b
    Examples:
      agent session restore
    """
    from agent.sessions import Session
    from agent.sessions.folder import ORIGINAL

    found = Session.open(session)
    assert found.folder is not None
    changed = found.restore()
    if as_json:
        print_json({"event": "restored", "file": str(found.folder.file), "changed": changed, "exit_code": 0})
    elif changed:
        print(f"{found.folder.file} is as last recorded; what was there is {ORIGINAL}")
    else:
        print(f"{found.folder.file} was as last recorded")
    print_next_after(found, "agent session check")


@session_app.command()
def status(session: SessionOption = None, as_json: JsonFlag = False) -> None:
    """Print budget, tests, baseline, and what may be done next.

    \b
    Examples:
      agent session status
      agent session status --session work --json

    The tests stand with their accuracies, the baseline with its noise.
    """
    from agent.sessions import Session, session_status

    found = Session.open(session)
    if as_json:
        print_json(session_status(found).as_json())
        return
    print_status(found)


@session_app.command()
def submit(
    n: Annotated[int, typer.Argument(metavar="N", help="Number of the test to submit.")],
    session: SessionOption = None,
    profile: TaskFileOption = None,
    data_root: DataRootOption = None,
    allow_unsandboxed: UnsandboxedOption = False,
    as_json: JsonFlag = False,
) -> None:
    """Submit test N. The hidden task runs, and the session ends.

    \b
    Examples:
      agent session submit 2
    """
    from agent.sessions import Session

    found = Session.open(session, allowed=allowed(allow_unsandboxed, data_root, profile))
    with showing(again=f"agent session submit {n}") as progress:
        reply = found.submit(n, progress=progress)
    finish(reply, as_json=as_json)
