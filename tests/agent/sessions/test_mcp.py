"""`agent mcp` through the SDK's own client over real processes: time-outs, lost clients, two clients, garbage."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock

import pytest

from agent.cli.mcp import _print_config, _repeated, _shared
from agent.errors import UsageError
from agent.runs.directory import RunDirectory
from agent.runs.log import read_events
from agent.transcripts import audit
from benchmark.tasks import PROFILES

pytest.importorskip("mcp.server.mcpserver", reason="the extra mcp (mcp >= 2.3) is not installed")

import anyio
import httpx2
from mcp import Client, MCPError
from mcp.client.stdio import StdioServerParameters, get_default_environment
from mcp.client.streamable_http import streamable_http_client

from agent.sessions import background
from agent.sessions.mcp_http import _Guarded, chosen_token
from agent.sessions.mcp_server import make_server
from agent.sessions.mcp_session import SharedSession
from tests.agent.harm import Server, Worker
from tests.benchmark.task_files import TASK, write_task

ROOT = Path(__file__).resolve().parents[3]
TOOLS = {"view", "edit", "rewrite", "undo", "check", "screen", "test", "wait", "status", "submit"}
REGION = """def initialize_weights(model, config):
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0.0, {scale})
"""
TOKEN = "a token of the test"
PATIENCE = 1.5
"""Seconds after which an impatient client gives up; a test takes longer."""


whole_searches = pytest.mark.skipif(
    os.environ.get("INITSEARCH_ENVIRONMENTS") != "all",
    reason="a search by foreign clients takes a minute; INITSEARCH_ENVIRONMENTS=all",
)


def words(*options: str) -> list[str]:
    """The command line of a server."""
    return [sys.executable, "-m", "agent", "mcp", *options]


def stdio(*options: str) -> StdioServerParameters:
    """A server of its own for one client."""
    command, *arguments = words(*options)
    return StdioServerParameters(command=command, args=arguments, cwd=ROOT, env=environment())


def environment(**more: str) -> dict[str, str]:
    """What clients pass on to servers, and the settings of the tests."""
    kept = {name: os.environ[name] for name in os.environ if name.startswith(("OMP_", "INITSEARCH_", "XDG_"))}
    return {**get_default_environment(), **kept, "PYTHONPATH": str(ROOT), **more}


def text_of(part: Any) -> str:
    """The text of a part that has one."""
    return str(part.text)


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("edit", {"op": "delete", "content": ""}, "op must be one of replace, insert, create, not 'delete'."),
    ("edit", {"op": "replace", "start_line": -1}, "content (a text) is missing; start_line must be a whole number of"),
    ("test", {"wait_s": 4000}, "wait_s must be a number from 0 to 3600, not 4000."),
    ("submit", {"n": "first"}, "n must be a whole number of at least 1, not 'first'."),
    ("screen", {"candidates": [7]}, "candidates must be a list of texts, not 7 (candidates[0])."),
    ("train", {}, "ERROR: Unknown tool 'train'. Nothing was done. The tools are view, edit, rewrite,"),
]
"""Calls that do not fit a schema, and what the model reads. It read pydantic's words, and an address of its manual."""


async def call(client: Client, tool: str, **arguments: Any) -> tuple[str, dict[str, Any]]:
    """The reply of a tool: its text and its structured content."""
    found = await client.call_tool(tool, arguments)
    assert found.is_error == (found.structured_content["state"] == "refused"), found
    return text_of(found.content[0]), found.structured_content


def the_run(runs: Path) -> Path:
    """The one run in a folder."""
    (found,) = [path for path in runs.iterdir() if path.is_dir() and not path.is_symlink()]
    return found


def kinds(run: Path) -> list[str]:
    """The kinds of the events in a run's log."""
    return [record.event.kind for record in read_events(run / "events.jsonl")]


@pytest.fixture(scope="module", autouse=True)
def shared_results(finished: object, cache: Path) -> Iterator[None]:
    """Servers take the baseline from the results of the search that the tests share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INITSEARCH_CACHE_DIR", str(cache))
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the run that the tests of this file make together, in order."""
    return tmp_path_factory.mktemp("runs")


def test_list_edit_and_test(tmp_path: Path) -> None:
    """Clients start every server that they know, so nothing is made before a tool is called. Then edits and a test.

    The test is of the untouched region, whose result is known.
    """
    runs = tmp_path / "runs"

    async def look(client: Client) -> None:
        tools = (await client.list_tools()).tools
        assert {tool.name for tool in tools} == TOOLS
        assert all(tool.description and tool.output_schema for tool in tools)
        schema = {tool.name: tool.input_schema["properties"] for tool in tools}
        assert schema["edit"]["op"]["enum"] == ["replace", "insert", "create"]
        assert schema["test"]["wait_s"]["default"] == schema["wait"]["timeout_s"]["default"] == 45
        resources = {str(found.uri) for found in (await client.list_resources()).resources}
        assert resources == {"initsearch://task", "initsearch://custom_init.py"}
        task = text_of((await client.read_resource("initsearch://task")).contents[0])
        assert "You may spend 2 test(s)" in task
        assert PROFILES["smoke"].hidden[0].name not in task
        file = text_of((await client.read_resource("initsearch://custom_init.py")).contents[0])
        assert "EDITABLE REGION: begin" in file
        (prompt,) = (await client.list_prompts()).prompts
        assert task in text_of((await client.get_prompt(prompt.name)).messages[0].content)

    async def act(client: Client) -> None:
        text, _ = await call(client, "view")
        assert text.startswith("[Current file: ")
        await call(client, "wait", timeout_s=600)  # for the baseline, which can take longer than an edit waits for it
        text, found = await call(client, "edit", op="replace", content="x", start_line=1, end_line=129)
        assert text.startswith("ERROR: Lines 1..129 exceed the editable range.")
        assert found["state"] == "refused"
        for tool, arguments, says in WRONG:
            text, found = await call(client, tool, **arguments)
            assert says in text, text
            assert found["state"] == "refused"
            assert "Nothing was" in text
            assert "pydantic" not in text
        text, _ = await call(client, "rewrite", content=REGION.format(scale=0.5))
        assert text.startswith("OK: Rewrote")
        text, _ = await call(client, "undo")
        assert text.startswith("Undo complete:")
        text, found = await call(client, "test", wait_s=600)
        assert text.startswith("[Test #1] (1 test remaining; call submit(n=N)")
        assert (found["state"], found["test"]) == ("done", 1)
        _, status = await client_status(client)
        assert (status["tests_used"], status["tests_left"], status["kind"]) == (1, 1, "closed")
        assert "submit n=1" in status["next"]

    async def both() -> None:
        async with Client(stdio("--profile", "smoke", "--budget", "2", "--runs", str(runs))) as client:
            await look(client)
            assert not runs.exists()
            await act(client)

    anyio.run(both)


@whole_searches
def test_a_client_that_gives_up_and_vanishes_loses_no_test(runs: Path) -> None:
    """In the middle of a test the client's patience ends, then the client. Another one fetches the reply, paid once."""

    async def give_up() -> None:
        async with Client(stdio("--profile", "smoke", "--budget", "2", "--runs", str(runs))) as client:
            await call(client, "rewrite", content=REGION.format(scale=0.05))
            text, _ = await call(client, "check")
            assert text.startswith("OK: accepted on resnet20")
            with pytest.raises(MCPError):
                await client.call_tool("test", {}, read_timeout_seconds=PATIENCE)

    async def fetch() -> None:
        async with Client(stdio("--session", str(the_run(runs)))) as client:
            text, found = await call(client, "wait", timeout_s=600)
            assert text.startswith("[Test #1] (1 test remaining; call submit(n=N)")
            assert (found["state"], found["test"]) == ("done", 1)
            text, _ = await call(client, "test")
            assert text.startswith("This region is the one of test #1; its result is repeated")

    anyio.run(give_up)
    anyio.run(fetch)
    assert kinds(the_run(runs)).count("test_started") == 1


async def client_status(client: Client) -> tuple[str, dict[str, Any]]:
    """The reply of `status`."""
    found = await client.call_tool("status", {})
    return text_of(found.content[0]), found.structured_content


@pytest.fixture
def address(runs: Path) -> Iterator[str]:
    """A server on loopback HTTP for the run."""
    served = subprocess.Popen(
        words("--session", str(the_run(runs)), "--http", "0"),
        stderr=subprocess.PIPE,
        text=True,
        env=environment(INITSEARCH_MCP_TOKEN=TOKEN),
        cwd=ROOT,
    )
    assert served.stderr is not None
    line = served.stderr.readline()
    assert line.startswith("listening on http://127.0.0.1:"), line + served.stderr.read()
    yield line.split()[-1]
    served.send_signal(signal.SIGTERM)
    rest = served.communicate(timeout=30)[1]
    assert served.returncode in (143, -signal.SIGTERM), rest
    assert TOKEN not in rest


def client_of(address: str, http: httpx2.AsyncClient) -> Client:
    """A client with the token."""
    return Client(streamable_http_client(address, http_client=http))


def test_a_failure_of_the_machine_is_said_in_words() -> None:
    """On a full disk the whole reply was "Error executing tool view", without structured content."""

    def view() -> None:
        raise OSError(28, "No space left on device", "runs/a/run.json")

    server = make_server(cast(SharedSession, SimpleNamespace(version="0", view=view)))
    found: Any = anyio.run(server.call_tool, "view", {})
    assert found.is_error
    assert found.structured_content["error"] == "agent_error"
    assert found.structured_content["reply"].startswith("ERROR: runs/a/run.json: No space left on device; what was")


@pytest.mark.parametrize(
    ("given", "let_in"),
    [("Bearer TOKEN", True), ("bearer  TOKEN", True), ("Basic TOKEN", False), ("TOKEN", False), ("Bearer", False)],
)
def test_the_name_of_the_scheme_is_written_in_any_case(given: str, let_in: bool) -> None:
    """HTTP says so, and some clients write `bearer`: they were told that their token is wrong."""
    inner, sent = AsyncMock(), AsyncMock()
    headers = [(b"authorization", given.replace("TOKEN", TOKEN).encode())]
    anyio.run(_Guarded(inner, TOKEN), {"type": "http", "headers": headers}, AsyncMock(), sent)
    assert inner.called is let_in
    assert sent.called is not let_in


@whole_searches
def test_two_clients_share_a_session_and_a_cancelled_call_stops_nothing(runs: Path, address: str) -> None:
    """One client begins a test and cancels its call; the other one waits for it. Its edits are refused meanwhile."""
    assert httpx2.post(address, json={}).status_code == 401
    assert httpx2.post(address, json={}, headers={"Authorization": "Bearer another"}).status_code == 401
    with_token = {"Authorization": f"Bearer {TOKEN}"}
    foreign = {**with_token, "Host": "rebound.example", "Content-Type": "application/json"}
    assert httpx2.post(address, json={}, headers=foreign).status_code == 421

    async def both() -> None:
        async with (
            httpx2.AsyncClient(headers=with_token, timeout=120) as http,
            httpx2.AsyncClient(headers=with_token, timeout=120) as other_http,
            client_of(address, http) as one,
            client_of(address, other_http) as other,
        ):
            await call(one, "rewrite", content=REGION.format(scale=0.1))
            text, _ = await call(other, "view")
            assert "0.1)" in text
            scope = anyio.CancelScope(deadline=anyio.current_time() + 300)

            async def note(progress: float, total: float | None, message: str | None) -> None:
                if message is not None and message.startswith("test"):
                    scope.cancel()

            with scope:
                await one.call_tool("test", {}, progress_callback=note)
            assert scope.cancelled_caught
            assert anyio.current_time() < scope.deadline  # it is a notification of the test's progress that was seen
            text, found = await call(other, "edit", op="insert", after_line=28, content="")
            assert (found["state"], found["error"]) == ("refused", "busy"), text
            text, found = await call(other, "test", wait_s=600)
            assert text.startswith("[Test #2] (0 tests remaining)")
            text, found = await call(one, "wait")
            assert text.startswith("[Test #2]")

    anyio.run(both)
    assert kinds(the_run(runs)).count("test_started") == 2


@whole_searches
def test_submit_runs_the_hidden_task_and_ends_the_session(runs: Path) -> None:
    """The reply has the verdict; nothing hidden showed before it, and nothing can be changed after it."""
    run = the_run(runs)

    async def end() -> None:
        async with Client(stdio("--session", str(run))) as client:
            text, found = await call(client, "submit", n=3)
            assert text == "ERROR: There is no test #3; tests so far: 1, 2."
            text, found = await call(client, "submit", n=1, wait_s=0)
            if found["state"] == "running":
                text, found = await call(client, "wait", timeout_s=600)
            assert text.startswith("[submit] Submitting result from test #1 as final.")
            assert found["submitted"] == 1
            assert f"hidden {PROFILES['smoke'].hidden[0].name}" in text
            text, found = await call(client, "rewrite", content="")
            assert found["error"] == "session_ended"
            _, status = await client_status(client)
            assert (status["state"], status["submitted"]) == ("ended", 1)

    anyio.run(end)
    summary = RunDirectory(run).read_summary()
    assert (summary["status"], summary["submitted_test"], summary["config"]["proposer"]) == ("submitted", 1, "mcp")
    assert audit(run).leaks == ()


def test_garbage_on_stdin_is_survived() -> None:
    """Lines that are no JSON, no request or half of one: the server still answers, and ends with its input."""
    hello = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
    }
    garbage = ["", "garbage", "[1, 2", "{}", '{"jsonrpc": "2.0", "id": 7}', "\x00\x7f", "null", '"x"', "é" * 70_000]
    sent = "\n".join([*garbage, json.dumps(hello), '{"jsonrpc": "2.0", "id"'])
    served = subprocess.run(
        words("--profile", "smoke"), input=sent.encode(), capture_output=True, env=environment(), cwd=ROOT, timeout=120
    )
    assert served.returncode == 0, served.stderr
    replies = [json.loads(line) for line in served.stdout.splitlines()]
    (answer,) = [reply for reply in replies if reply.get("id") == 1]
    assert answer["result"]["serverInfo"]["name"] == "initsearch"
    assert b"Traceback" not in served.stderr


def test_what_cannot_be_served_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without a session, settings that contradict one, an unknown client, a missing port, a short token."""
    with pytest.raises(UsageError, match="no session was started"):
        _shared({}, [], tmp_path, None, allow_unsandboxed=False)
    with pytest.raises(UsageError, match="contradicts --budget"):
        _shared({"budget": 3}, [], tmp_path, None, allow_unsandboxed=False)
    with pytest.raises(UsageError, match="known: claude, codex, cursor, vscode"):
        _print_config("xyz", [], None)
    with pytest.raises(UsageError, match="needs the port"):
        _print_config("codex", [], 0)
    monkeypatch.setenv("INITSEARCH_MCP_TOKEN", "short")
    with pytest.raises(UsageError, match="at least 16"):
        chosen_token()
    monkeypatch.setenv("INITSEARCH_SESSION", str(tmp_path))
    with pytest.raises(UsageError, match="contradicts --budget"):  # a process of a session may not begin another run
        _shared({"budget": 3}, [], None, None, allow_unsandboxed=False)


@pytest.mark.parametrize("client", ["claude", "codex", "cursor", "vscode"])
def test_the_configuration_can_be_pasted(client: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It parses, and has an absolute command and the options; over HTTP the address and no token."""
    table = {"codex": "mcp_servers", "vscode": "servers"}.get(client, "mcpServers")
    for http, wanted in ((None, ["mcp", "--budget", "4"]), (8765, "http://127.0.0.1:8765/mcp")):
        _print_config(client, ["--budget", "4"], http)
        text = capsys.readouterr()
        read = tomllib.loads(text.out) if client == "codex" else json.loads(text.out)
        entry = read[table]["initsearch"]
        assert entry["args" if http is None else "url"] == wanted
        assert http is not None or Path(entry["command"]).is_absolute()
        assert "for " in text.err


def test_options_are_repeated_as_they_were_given() -> None:
    """A flag without a value stays one; what was not given is left out, but for the folder of runs."""
    given = {"allow_unsandboxed": True, "screen": 0.5, "profile": None, "http": 8000, "print_config": "claude"}
    assert _repeated(given) == ["--runs", str(Path("runs").absolute()), "--allow-unsandboxed", "--screen", "0.5"]


@pytest.mark.usefixtures("processes_shared")
def test_a_server_for_a_task_file(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is read for the task's text, measured in a process of its own, and named again by the next server."""

    def forked(command: list[str], *, stdout: int, cwd: Path, env: dict[str, str], **ignored: Any) -> Worker:
        assert command[-1] == "agent.sessions.worker"
        return Worker(server, tmp_path, stdout=stdout, cwd=cwd, env=env)

    monkeypatch.setattr(background, "subprocess", SimpleNamespace(Popen=forked, PIPE=subprocess.PIPE))
    monkeypatch.setenv("INITSEARCH_CACHE_DIR", str(tmp_path / "cache"))
    hidden = '\n[[hidden]]\nname = "secret"\nnetwork = "resnet20"\ndata = "tiny"\nepochs = 1\n'
    file = write_task(tmp_path / "task", TASK + hidden)
    monkeypatch.chdir(tmp_path)
    options = {"profile": "task/toys.toml", "budget": 1, "runs": tmp_path / "runs"}
    assert ["--profile", str(file)] == _repeated(options)[2:4]
    shared = _shared(options, [], None, None, allow_unsandboxed=False)
    for text in (shared.task(), shared.file()):
        assert "secret" not in text
        assert "as the network's own constructors made it" in text
        assert str(file) not in text
    assert not (tmp_path / "runs").exists()
    while shared.running() is not None or shared.started.run.is_held:
        time.sleep(0.2)
    assert list(shared.status()[1]["baseline"]) == ["net-toys"]
    assert shared.check().ok

    run = shared.started.run.path
    with pytest.raises(UsageError, match=r"give --profile .*/toys.toml again"):
        _shared({}, [], run, None, allow_unsandboxed=False).call("undo", n=1)
    again = _shared({"profile": str(file)}, [], run, None, allow_unsandboxed=False)
    region = "def initialize_weights(model, config):\n    nn.init.zeros_(model[6].weight)\n"
    assert again.call("rewrite", content=region).ok
    assert "Measured in this run" in again.task()
