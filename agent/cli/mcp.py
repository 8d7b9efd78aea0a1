"""`agent mcp`: offers the tools of a session to any MCP client."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli.app import (
    DataRootOption,
    ProfileOption,
    SeedOption,
    SeedsOption,
    SetOption,
    UnsandboxedOption,
    app,
    settings_given,
)
from agent.cli.courtesy import VARIABLE
from agent.cli.session_options import BudgetOption, ConfirmOption, NewRunsOption, ScreenOption, StartOption
from agent.errors import UsageError

if TYPE_CHECKING:
    from agent.sessions.mcp_session import SharedSession

_NOT_REPEATED = frozenset({"print_config", "http"})


@app.command()
def mcp(
    ctx: typer.Context,
    profile: ProfileOption = None,
    budget: BudgetOption = None,
    seeds: SeedsOption = None,
    screen: ScreenOption = None,
    confirm: ConfirmOption = None,
    seed: SeedOption = None,
    start: StartOption = None,
    runs: NewRunsOption = None,
    data_root: DataRootOption = None,
    allow_unsandboxed: UnsandboxedOption = False,
    settings: SetOption = None,
    session: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A folder of agent session start, or the run of an earlier agent mcp."),
    ] = None,
    http: Annotated[
        int | None,
        typer.Option(metavar="PORT", min=0, max=65535, help="HTTP on 127.0.0.1 with a token, not stdio; 0: any port."),
    ] = None,
    print_config: Annotated[
        str | None, typer.Option(metavar="CLIENT", help="Print what to paste: claude, codex, cursor or vscode.")
    ] = None,
) -> None:
    """Offer the tools of a session to any MCP client.

    \b
    Examples:
      agent mcp --print-config claude --profile pocket --budget 5
      agent mcp --session work
      agent mcp --http 8765

    Speaks on stdin and stdout, or with --http over HTTP. The run is made when the first tool is
    called. docs/mcp.md says more.
    """
    if print_config is not None:
        _print_config(print_config, _repeated(ctx.params), http)
        return
    _require_sdk()
    flags = {name: value for name, value in settings_given(ctx).items() if value is not False}
    shared = _shared(flags, settings or [], session, data_root, allow_unsandboxed=allow_unsandboxed)

    from agent.sessions.mcp_server import make_server

    server = make_server(shared)
    if http is None:
        for number in (signal.SIGTERM, signal.SIGINT):  # a call that is cut off is finished by the next process
            signal.signal(number, signal.SIG_DFL)
        server.run("stdio")
        return

    from agent.sessions.mcp_http import TOKEN_VARIABLE, chosen_token, serve_http

    token, new = chosen_token()

    def listening(url: str) -> None:
        print(f"listening on {url}", file=sys.stderr)
        print(f"token {token}" if new else f"token: the one in {TOKEN_VARIABLE}", file=sys.stderr, flush=True)

    serve_http(server, http, token, listening)


def _shared(
    flags: dict[str, Any], settings: list[str], session: Path | None, data_root: Path | None, *, allow_unsandboxed: bool
) -> SharedSession:
    """The session that is served. Raises UsageError, Rejected."""
    from agent.config import flag_name, parse_settings, read_config
    from agent.engine.resuming import Allowed
    from agent.profiles import given_profile
    from agent.runs.directory import RunDirectory
    from agent.sessions import CLOSED, Session
    from agent.sessions.mcp_session import SharedSession
    from benchmark.tasks import is_task_file

    within = os.environ.get(VARIABLE)
    if within and session is None:  # a process of a session may not begin another run
        session = Path(within)
    if session is None:
        config = read_config({**flags, "proposer": CLOSED}, settings=parse_settings(settings)).config
        return SharedSession(config)
    again = {"data_root", "allow_unsandboxed"} | ({"profile"} if is_task_file(str(flags.get("profile"))) else set())
    given = [flag_name(name, value) for name, value in flags.items() if name not in again]
    given += [f"--set {name}" for name in settings]
    if given:
        raise UsageError(f"--session uses the session's own settings, so it contradicts {', '.join(given)}")
    profile = flags.get("profile")
    allowed = Allowed(
        data_root=data_root,
        allow_unsandboxed=allow_unsandboxed,
        profile=profile,
        given=given_profile(profile, data_root=data_root),
    )
    if within or not (session / "run.json").is_file():
        return SharedSession(session=Session.open(session, allowed=allowed))
    found = Session(RunDirectory(session.resolve()), None, allowed)
    if found.proposer != CLOSED:
        raise UsageError(f"{session}: not a run of agent mcp; give the folder of agent session start")
    return SharedSession(session=found)


def _require_sdk() -> None:
    try:
        from mcp.server import MCPServer  # noqa: F401
    except ImportError as missing:
        raise UsageError(f"agent mcp needs the SDK ({missing}): pip install 'initsearch[mcp]'") from None


def _print_config(client: str, arguments: list[str], http: int | None) -> None:
    """Print the configuration on stdout and where it goes on stderr. Raises UsageError."""
    from agent.sessions.mcp_clients import CLIENTS, client_config
    from benchmark.suggestions import suggestion

    if client not in CLIENTS:
        raise UsageError(f"--print-config {client}: unknown{suggestion(client, list(CLIENTS))}")
    if http == 0:
        raise UsageError("--print-config with --http needs the port, because the client must know it")
    command = shutil.which(sys.argv[0]) or str(Path(sys.argv[0]).resolve())
    if not http:
        sys.stdout.write(client_config(client, str(Path(command).absolute()), ["mcp", *arguments]))
    else:
        url, variable = f"http://127.0.0.1:{http}/mcp", "INITSEARCH_MCP_TOKEN"
        sys.stdout.write(client_config(client, "", [], url=url, variable=variable))
        print(f"start the server with the same {variable} in its environment: agent mcp --http {http}", file=sys.stderr)
    print(f"for {CLIENTS[client]}", file=sys.stderr)


def _repeated(params: dict[str, Any]) -> list[str]:
    """The options of this command line again, with absolute paths: a client starts the server from any folder."""
    from benchmark.tasks import is_task_file

    words: list[str] = []
    given = {"runs": Path("runs"), **{name: value for name, value in params.items() if value is not None}}
    for name, value in given.items():
        if name in _NOT_REPEATED or value is False or (name == "runs" and params.get("session") is not None):
            continue
        flag = "--set" if name == "settings" else f"--{name.replace('_', '-')}"
        if value is True:
            words.append(flag)
            continue
        for one in value if isinstance(value, list | tuple) else [value]:
            path = isinstance(one, Path) or (name == "start" and Path(str(one)).is_file())
            path = path or (name == "profile" and is_task_file(str(one)))
            words += [flag, str(Path(one).absolute()) if path else str(one)]
    return words
