"""`--proposer command:CMD`: programs that work as asked, and all that a program can do wrong."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import signal
import socketserver
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.errors import UsageError
from agent.runs.directory import RunDirectory
from agent.runs.log import read_events
from agent.sessions import Session, SessionFolder, command
from agent.sessions.command import LOG, environment_for, run_command
from agent.sessions.folder import FILE
from agent.studies.verify import verify
from sandbox.region import scaffold
from tests.agent.conftest import Agent
from tests.agent.harm import Server, outcome

REGION = "def initialize_weights(model, config):\n    for p in model.parameters():\n        {body}\n"
GOOD = REGION.format(body="nn.init.ones_(p) if p.dim() < 2 else nn.init.orthogonal_(p)")
OTHER = REGION.format(body="nn.init.ones_(p) if p.dim() < 2 else nn.init.orthogonal_(p, gain=0.5)")
SLOW = os.environ.get("INITSEARCH_COMMAND_TESTS")


# -- the process itself -----------------------------------------------------------------------------------------------


@pytest.fixture
def idle(tmp_path: Path) -> Session:
    """A session's folder beside a run that waits for nothing: enough for a command that asks us nothing."""
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    run.write_summary({"status": "session"})
    folder = SessionFolder(tmp_path / "work")
    folder.path.mkdir()
    (folder.path / "TASK.md").write_text("# Task: design\n")
    return Session(run, folder)


def test_a_command_gets_the_task_and_its_session(idle: Session) -> None:
    """On stdin and in TASK.md; INITSEARCH_SESSION names the folder, which is the working directory."""
    assert idle.folder is not None
    ended = run_command('cat; cmp TASK.md /dev/null; pwd; echo "$INITSEARCH_SESSION"', idle, environment_for([]))
    folder = str(idle.folder.path)
    assert ended.output.startswith("# Task: design\n")
    assert ended.output.endswith(f"{folder}\n{folder}\n")
    assert (ended.exit_code, ended.end.status) == (0, "tests_exhausted")


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [("exit 7", 7, "with exit code 7"), ("no_such_program_at_all", 127, "127"), ("kill -9 $$", -9, "by signal 9")],
)
def test_a_command_that_ends_at_once(idle: Session, text: str, code: int, words: str) -> None:
    """How it ended is said."""
    ended = run_command(text, idle, environment_for([]))
    assert ended.exit_code == code
    assert words in ended.how


def test_a_command_that_writes_100_mb(idle: Session) -> None:
    """Its beginning and its end are kept, and it is said how much is not."""
    text = "echo begin; head -c 100000000 /dev/zero | tr '\\0' x; echo; echo end"
    ended = run_command(text, idle, environment_for([]))
    assert ended.output_bytes == 100_000_011
    assert len(ended.output) < 600_000
    assert ended.output.startswith("begin\nxxx")
    assert ended.output.endswith("xxx\nend\n")
    assert "bytes left out]" in ended.output


def test_a_command_that_ignores_sigterm(idle: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the time limit it gets SIGTERM and then SIGKILL, with all processes of its group."""
    monkeypatch.setattr(command, "_GRACE_SECONDS", 0.3)
    text = "trap '' TERM; (trap '' TERM; sleep 100; echo late) & echo $!; while :; do sleep 0.05; done"
    ended = run_command(text, idle, environment_for([]), deadline=time.monotonic() + 0.5)
    assert (ended.exit_code, ended.end.status) == (None, "time")
    assert ended.seconds < 10
    with pytest.raises(ProcessLookupError):
        _signal_until_gone(int(ended.output))


def _signal_until_gone(process: int) -> None:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        os.kill(process, 0)
        time.sleep(0.05)


def test_a_command_that_leaves_a_process_behind(idle: Session) -> None:
    """It holds the output open; it is ended, and nobody waits for it."""
    ended = run_command("sleep 100 & echo $!", idle, environment_for([]))
    assert ended.seconds < 10
    with pytest.raises(ProcessLookupError):
        _signal_until_gone(int(ended.output))


def test_a_command_that_goes_on_after_the_end(idle: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the submission it may say goodbye, and is then ended."""
    monkeypatch.setattr(command, "_GRACE_AFTER_END_SECONDS", 0.3)
    idle.run.write_summary({"status": "submitted"})
    ended = run_command("sleep 100", idle, environment_for([]))
    assert ended.exit_code == -signal.SIGTERM


def test_keys_are_passed_only_by_name_and_never_logged(idle: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --pass-env the variable is absent; with it, its value is spelt out of the output."""
    monkeypatch.setenv("MY_AGENT_API_KEY", "hunter2hunter2")
    text = 'echo "<$MY_AGENT_API_KEY>" sk-ABCDEFGHIJKLMNOP'
    assert run_command(text, idle, environment_for([])).output == "<> [key]\n"
    assert run_command(text, idle, environment_for(["MY_AGENT_API_KEY"])).output == "<[key]> [key]\n"
    with pytest.raises(UsageError, match="--pass-env NOT_SET"):
        environment_for(["NOT_SET"])


# -- whole searches ---------------------------------------------------------------------------------------------------


class _Asks(socketserver.StreamRequestHandler):
    """Runs the command that the stub `agent` was called with, by a server of tests/agent/harm_server.py."""

    def handle(self) -> None:
        order = json.loads(self.rfile.readline())
        folder = Path(order["cwd"])
        replies = Path(f"{self.server.server_address!s}.replies")
        replies.mkdir(exist_ok=True)
        for name in ("stdout", "stderr"):
            (replies / name).unlink(missing_ok=True)
        server, cache = self.server.of_harm, self.server.cache  # type: ignore[attr-defined]
        code, _ = server.run(replies, *order["words"], cache=str(cache), environ=order["environ"], go_to=str(folder))
        found = {name: (replies / name).read_text() for name in ("stdout", "stderr")}
        self.wfile.write(json.dumps({**found, "exit": code}).encode())


STUB = """#!{python} -SE
import json, os, socket, sys
asked = socket.socket(socket.AF_UNIX)
asked.connect({address!r})
environ = {{name: os.environ.get(name, "") for name in ("INITSEARCH_SESSION",)}}
try:
    here = os.getcwd()
except FileNotFoundError:
    here = "/"
asked.sendall(json.dumps({{"words": sys.argv[1:], "cwd": here, "environ": environ}}).encode() + b"\\n")
found = json.loads(asked.makefile().read())
sys.stdout.write(found["stdout"])
sys.stderr.write(found["stderr"])
sys.exit(found["exit"])
"""


@pytest.fixture(scope="module")
def second_server(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The first one runs the search, this one what its command calls."""
    with server.beside(tmp_path_factory.mktemp("second")) as second:
        yield second


@pytest.fixture(scope="module")
def command_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("command-cache")


class Host:
    """Runs searches whose command calls $AGENT, a stub that answers as `agent` does."""

    def __init__(self, server: Server, home: Path, cache: Path, stub: Path) -> None:
        self.server, self.home, self.cache, self.stub = server, home, cache, stub

    def search(self, script: str, *words: str, **harm: Any) -> int:
        """Run a search with this shell script as its command. `printed`, `said`, `run` and `log` are its traces."""
        path = self.home / "script.sh"
        path.write_text(f"#!/bin/sh\nAGENT={shlex.quote(str(self.stub))}\n{script}")
        path.chmod(0o755)
        words = ("--profile", "smoke", "--budget", "1", "--json", *words)
        return self.agent("search", "--proposer", f"command:{path}", *words, **harm)

    def agent(self, *words: str, **harm: Any) -> int:
        for name in ("stdout", "stderr"):
            (self.home / name).unlink(missing_ok=True)
        code, _ = self.server.run(self.home, *words, cache=str(self.cache), **harm)
        self.printed, self.said = ((self.home / name).read_text() for name in ("stdout", "stderr"))
        return code

    @property
    def run(self) -> Path:
        return sorted((self.home / "runs").glob("2*"))[-1]

    @property
    def log(self) -> str:
        return (self.run / LOG).read_text()

    @property
    def done(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.printed.splitlines()[-1])
        return found


@pytest.fixture
def host(server: Server, second_server: Server, tmp_path: Path, command_cache: Path) -> Iterator[Host]:
    address = str(tmp_path / "ask")
    with socketserver.UnixStreamServer(address, _Asks) as answering:
        answering.of_harm, answering.cache = second_server, command_cache  # type: ignore[attr-defined]
        threading.Thread(target=answering.serve_forever, daemon=True).start()
        stub = tmp_path / "agent-stub"
        stub.write_text(STUB.format(python=sys.executable, address=address))
        stub.chmod(0o755)
        for name, region in (("good", GOOD), ("other", OTHER)):
            (tmp_path / f"{name}.py").write_text(scaffold().with_region(region).text)
        yield Host(server, tmp_path, command_cache, stub)
        answering.shutdown()


EVERYTHING_WRONG = """
say() {{ name=$1; shift; "$AGENT" "$@" > {home}/out 2>&1; echo "$name $?"; tail -n 3 {home}/out; }}
sed -i 's/^import math$/import os/' {file}
say outside session test
say restored session restore
cp {home}/good.py {file}
say other session status --session {home}/elsewhere
say another session start {home}/another
say search search --budget 1
say review review latest
say hidden baselines --hidden
say unknown session submit 1
say tested session test
cp {home}/other.py {file}
say spent session test
cp {home}/elsewhere.py {file} 2> /dev/null
say own show {home}/nothing
rm -rf "$INITSEARCH_SESSION"
say deleted session status
exit 3
"""


def test_a_command_that_does_everything_wrong(host: Host) -> None:
    """It edits outside the region, wants another session, spends the budget and goes on, deletes its folder, fails.

    Each is refused with its own exit code, the test that it paid counts, and the best is submitted for it.
    """
    assert host.search(EVERYTHING_WRONG.format(file=FILE, home=host.home)) == 0, host.said
    codes = dict(line.split() for line in host.log.splitlines() if len(line.split()) == 2 and line[-1].isdigit())
    assert codes == {
        **{"outside": "3", "restored": "0", "other": "3", "another": "3", "search": "3", "review": "3"},
        **{"hidden": "3", "unknown": "3", "tested": "0", "spent": "4", "own": "3", "deleted": "2"},
    }, host.log
    assert (host.done["status"], host.done["submitted_test"], host.done["session"]) == ("tests_exhausted", 1, "open")
    assert outcome(host.run)["tests"] == [1]
    proposal = next(r.event for r in read_events(host.run / "events.jsonl") if r.event.kind == "proposal")
    assert proposal.content["exit_code"] == 3
    assert [check for check in verify(RunDirectory(host.run)) if check.fault] == []
    assert host.agent("show", str(host.run)) == 0
    assert "An open session" in host.printed


def test_a_command_that_tests_nothing(host: Host) -> None:
    """Exit 4, as of a search with nothing to submit; a missing program is found before anything is trained: exit 2."""
    assert host.search("echo I would rather not; exit 0") == 4
    assert host.done["submitted_test"] is None
    assert f"What it printed is in {host.run / 'command.log'}" in host.said
    runs = len(list((host.home / "runs").iterdir()))
    for proposer, words in (
        ("command:no_such_program --now", "there is no program no_such_program"),
        ("command:./agent.sh", "write"),
        ("command:", "needs a command"),
        ("command:echo 'half", "the shell cannot read it ("),
    ):
        assert host.agent("search", "--proposer", proposer, "--profile", "smoke") == 2
        assert words in host.said
    assert host.agent("search", environ={"INITSEARCH_PROPOSER": "command:true"}) == 2
    assert "counts only from the command line" in host.said
    assert len(list((host.home / "runs").iterdir())) == runs


KILLS_ITS_SEARCH = """
if [ -e {home}/once ]; then
    "$AGENT" session submit 1
    "$AGENT" session submit 1
    echo second $?
    exit
fi
touch {home}/once
cp {home}/good.py {file}
"$AGENT" session test
host=$PPID
[ "$(cat /proc/$host/comm)" = sh ] && host=$(cut -d " " -f 4 /proc/$host/stat)
kill -9 $host
sleep 5
"""


def test_a_killed_search_begins_its_command_again(host: Host) -> None:
    """kill -9 after the test: --resume wants the command named, begins it again, and pays no test twice.

    The second time it submits, and once more, which is refused: the end is the command's own.
    """
    assert host.search(KILLS_ITS_SEARCH.format(home=host.home, file=FILE)) == -signal.SIGKILL
    again = ("search", "--resume", str(host.run), "--json")
    assert host.agent(*again) == 2
    assert "its proposer is a program" in host.said
    assert host.agent(*again, "--proposer", f"command:{host.home}/script.sh") == 0, host.said
    assert host.log.endswith("second 3\n")
    assert (host.done["status"], host.done["submitted_test"], outcome(host.run)["tests"]) == ("submitted", 1, [1])
    assert [check for check in verify(RunDirectory(host.run)) if check.fault] == []


@pytest.mark.skipif(not SLOW, reason="takes a minute: INITSEARCH_COMMAND_TESTS=1 runs it")
def test_a_time_limit_ends_the_command(host: Host) -> None:
    """--max-seconds: status `time`, and the best test so far is submitted."""
    script = f'cp {host.home}/good.py {FILE}; "$AGENT" session test; touch {host.home}/tested; sleep 600'
    assert host.search(script, "--max-seconds", "20") == 0, host.said
    assert (host.done["status"], host.done["submitted_test"]) == ("time", 1)
    assert [check for check in verify(RunDirectory(host.run)) if check.fault] == []


# -- a real coding agent ----------------------------------------------------------------------------------------------


def _mini() -> str | None:
    """The program of mini-swe-agent: beside this Python, or named, because its dependencies may exclude ours."""
    named = os.environ.get("INITSEARCH_MINI_SWE_AGENT")
    if named is None and importlib.util.find_spec("minisweagent") is not None:
        named = str(Path(sys.executable).parent / "mini")
    return named if named and Path(named).is_file() else shutil.which("mini") if SLOW else None


@pytest.mark.skipif(not SLOW, reason="takes a minute: INITSEARCH_COMMAND_TESTS=1 runs it")
@pytest.mark.skipif(_mini() is None, reason="needs mini-swe-agent: its folder's `mini` in INITSEARCH_MINI_SWE_AGENT")
def test_mini_swe_agent_drives_a_search_to_submission(agent: Agent, tmp_path: Path) -> None:
    """Its own program with its own deterministic model: reads the task, edits, tests in the background, submits."""
    waiting = "for i in 1 2 3 4 5 6 7 8; do agent session wait --timeout 10 | grep -v 'still running' && break; done"
    commands = [
        "cat AGENTS.md && head -40 TASK.md",
        f"cp {tmp_path}/good.py custom_init.py && agent session check",
        "agent session test --background",
        *[waiting] * 4,
        "agent session status",
        "nohup agent session submit 1 > submit.out 2>&1 &",
        *["sleep 20; tail -3 submit.out"] * 5,
        "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT",
    ]
    (tmp_path / "good.py").write_text(scaffold().with_region(GOOD).text)
    outputs = [
        {"role": "assistant", "content": c, "extra": {"actions": [{"command": c}], "cost": 0.0}} for c in commands
    ]
    settings = {
        "agent": {"system_template": "You are an agent.", "instance_template": "{{task}}", "cost_limit": 0},
        "model": {"model_class": "deterministic", "outputs": outputs, "cost_per_call": 0.0},
        "environment": {"timeout": 100},
    }
    (tmp_path / "mini.yaml").write_text(json.dumps(settings))
    words = f"-y --exit-immediately -m deterministic -c {tmp_path}/mini.yaml -o {tmp_path}/traj.json"
    program = f'{_mini()} {words} -t "$(cat TASK.md)"'
    search = ("search", "--proposer", f"command:{program}", "--profile", "smoke", "--budget", "1", "--json")
    environ = {
        "MSWEA_CONFIGURED": "true",
        "MSWEA_SILENT_STARTUP": "1",
        "MSWEA_GLOBAL_CONFIG_DIR": str(tmp_path / "mini"),
    }
    found = agent(*search, env=environ, timeout=900)
    assert found.returncode == 0, found.stderr
    done = json.loads(found.stdout.splitlines()[-1])
    run = Path(done["run"])
    assert (done["status"], done["submitted_test"]) == ("submitted", 1), (run / LOG).read_text()
    assert agent("audit", str(tmp_path / "traj.json")).returncode == 0
