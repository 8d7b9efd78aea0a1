"""`agent session` as a person with an editor uses it, and kill -9 over its commands."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from agent.cli.session_output import print_status
from agent.runs.directory import RunDirectory
from agent.runs.log import read_events
from agent.sessions import CLOSED, Session, session_status
from agent.sessions.folder import FILE, ORIGINAL, POINTER, FileNotWritten, SessionFolder
from agent.sessions.status import TestStatus
from agent.studies.verify import verify
from sandbox.region import scaffold
from tests.agent.harm import Server, outcome
from tests.benchmark.task_files import TASK, write_task

KILLS = int(os.environ.get("INITSEARCH_SESSION_KILLS", "5"))
REGION = """def initialize_weights(model, config):
    for p in model.parameters():
        nn.init.ones_(p) if p.dim() < 2 else nn.init.orthogonal_(p, gain={gain})
"""


class Desk:
    """A folder with a session, and `agent` as the server of tests/agent/harm_server.py runs it."""

    def __init__(self, server: Server, home: Path, cache: Path) -> None:
        self.server, self.home, self.cache = server, home, cache
        self.work = home / "work"
        self.operations: list[int] = []

    def agent(self, *words: str, **harm: Any) -> int:
        """Run a command in the session's folder if it is there. `said` and `printed` are what it wrote."""
        folder = self.work if self.work.is_dir() else self.home
        for name in ("stdout", "stderr"):
            (folder / name).unlink(missing_ok=True)
        code, operations = self.server.run(folder, *words, cache=str(self.cache), **harm)
        self.operations.append(operations)
        self.printed, self.said = (
            (folder / name).read_text() if (folder / name).is_file() else "" for name in ("stdout", "stderr")
        )
        return code

    def session(self, *words: str, **harm: Any) -> int:
        return self.agent("session", *words, **harm)

    def start(self, *words: str, **harm: Any) -> int:
        return self.session("start", "work", "--profile", "smoke", "--runs", str(self.home / "runs"), *words, **harm)

    def edit(self, gain: float) -> str:
        region = REGION.format(gain=gain)
        (self.work / FILE).write_text(scaffold().with_region(region).text)
        return region

    def json(self, *words: str) -> dict[str, Any]:
        self.session(*words, "--json")
        found: dict[str, Any] = json.loads(self.printed.splitlines()[0])
        return found

    @property
    def run(self) -> Path:
        return Path(json.loads((self.work / POINTER).read_text())["run"])

    @property
    def text(self) -> str:
        return (self.work / FILE).read_text()


@pytest.fixture(scope="module")
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("session-cache")


@pytest.fixture
def desk(server: Server, tmp_path: Path, session_cache: Path) -> Desk:
    return Desk(server, tmp_path, session_cache)


@pytest.fixture(scope="module")
def template(server: Server, tmp_path_factory: pytest.TempPathFactory, session_cache: Path) -> Desk:
    """A session with two tests that holds the hidden task back, which takes longest, started once."""
    desk = Desk(server, tmp_path_factory.mktemp("template"), session_cache)
    assert desk.start("--budget", "2", "--no-submit", "--json") == 0, desk.said
    launch = json.loads(desk.printed)
    assert (launch["event"], launch["session"], launch["run"]) == ("launch", str(desk.work), str(desk.run))
    return desk


@pytest.fixture
def started(desk: Desk, template: Desk) -> Desk:
    """A copy of that session."""
    shutil.copytree(template.home, desk.home, dirs_exist_ok=True, symlinks=True)
    pointer = desk.work / POINTER
    pointer.write_text(pointer.read_text().replace(str(template.home), str(desk.home)))
    return desk


def faults(run: Path) -> list[Any]:
    return [check for check in verify(RunDirectory(run)) if check.fault]


def test_a_session_from_its_start_to_its_end(started: Desk) -> None:
    """Edit, check, test, status, the budget, submit: the exit codes of each, and a record like that of any run.

    The hidden task waits for `agent submit`, because the session was started with --no-submit.
    """
    task = (started.work / "TASK.md").read_text()
    assert "Measured in this run, with 1 seed(s)" in task
    assert "fmnist" not in task + (started.work / "AGENTS.md").read_text()
    for name in ("CLAUDE.md", "GEMINI.md"):
        assert "AGENTS.md" in (started.work / name).read_text()

    assert started.session("submit", "1") == 3
    assert "No test results yet" in started.printed
    started.edit(1.0)
    assert started.session("check") == 0, started.said
    before = len(read_events(started.run / "events.jsonl"))
    assert started.session("test") == 0, started.said
    assert started.printed.startswith("[Test #1] (1 test remaining; call submit(n=N)")
    assert started.session("test") == 0
    assert "its result is repeated and costs nothing" in started.printed
    kinds = [record.event.kind for record in read_events(started.run / "events.jsonl")[before:]]
    assert kinds.count("test_started") == 1
    assert [r.event.tool for r in read_events(started.run / "events.jsonl") if r.event.kind == "tool_called"] == [
        *("submit", "rewrite", "test", "test")
    ]

    status = started.json("status")
    assert (status["state"], status["tests_used"], status["tests_left"], status["kind"]) == ("ready", 1, 1, "open")
    assert status["baseline"]["resnet20-tiny"]["noise_sd"] == 6.0
    assert status["next"] == ["agent session check", "agent session test", "agent session submit 1"]
    started.edit(0.5)
    assert started.json("status")["file"] == "changed"
    assert started.json("test")["test"] == 2
    started.edit(0.7)
    assert started.session("test") == 4
    assert started.session("submit", "3") == 3
    assert faults(started.run) == []
    assert started.session("submit", "1", "--json") == 0, started.said
    reply, done = map(json.loads, started.printed.splitlines())
    assert (reply["submitted"], done["event"], done["submitted_test"]) == (1, "done", 1)
    assert (done["status"], done["session"], done["hidden"]) == ("waiting_for_review", "open", {})
    assert not (started.run / "hidden").exists()
    for words in (("submit", "1"), ("test",), ("undo",)):
        assert started.session(*words) == 3
        assert "this session has ended" in started.said
    assert started.json("status")["state"] == "waiting_for_review"
    for command in ("check", "restore"):  # which said "next: agent session test" as always
        assert started.session(command) == 0
        assert f"next: agent review {started.run}" in started.said
    assert started.agent("submit", str(started.run), "--json") == 0, started.said
    assert json.loads(started.printed.splitlines()[-1])["hidden"]
    assert started.json("status")["state"] == "ended"
    assert faults(started.run) == []
    assert started.agent("review", str(started.run)) == 0
    assert "An open session" in started.printed
    for command in ("replay", "audit", "show"):
        assert started.agent(command, str(started.run)) == 0, started.said


def test_a_change_outside_the_region_is_refused_with_its_line(started: Desk) -> None:
    """The line is named, nothing is spent or logged, and restore gives the file back and keeps the other one."""
    good, log = started.text, (started.run / "events.jsonl").read_bytes()
    bad = good.replace("import math\n", "import math, os\n")
    (started.work / FILE).write_text(bad)
    for words in (("test",), ("test", "--background"), ("check",)):
        assert started.session(*words) == 3
        assert "line 15 must read 'import math'" in started.said + started.printed
        assert "agent session restore" in started.said + started.printed
    assert (started.run / "events.jsonl").read_bytes() == log
    assert started.json("status")["file"] == "refused"
    assert started.session("restore") == 0
    assert (started.text, (started.work / ORIGINAL).read_text()) == (good, bad)
    (started.work / FILE).unlink()
    assert started.session("test") == 3
    assert started.session("restore") == 0
    assert started.text == good


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"\xff\xfe", "not UTF-8"), (b"", "line 1 must read"), (b"#" * 2**21, "larger"), (None, "link")],
    ids=["bytes", "empty", "huge", "link"],
)
def test_a_file_that_is_no_scaffold(started: Desk, content: bytes | None, words: str) -> None:
    """Whatever lies there is refused in one sentence."""
    file = started.work / FILE
    file.unlink()
    if content is None:
        file.symlink_to(started.run / "run.json")
    else:
        file.write_bytes(content)
    assert started.session("test") == 3
    assert words in started.said
    assert "Traceback" not in started.said
    assert started.session("restore") == 0
    assert started.text == scaffold().text


def test_windows_line_ends_and_no_final_newline_are_no_change(started: Desk) -> None:
    """Editors write both."""
    (started.work / FILE).write_bytes(scaffold().text.rstrip("\n").replace("\n", "\r\n").encode())
    assert started.json("status")["file"] == "recorded"


@pytest.mark.parametrize("blank", ["", "\n"])
def test_everything_between_the_markers_may_be_replaced(started: Desk, blank: str) -> None:
    """A script that put its function right between the markers was told `line 41 must read ''`."""
    region = started.edit(1.0)
    end = "# ==== EDITABLE REGION: end"
    (started.work / FILE).write_text(started.text.replace(f"\n\n\n{end}", f"\n{blank}{end}"))
    assert f"gain=1.0)\n{blank}{end}" in started.text
    assert Session.open(started.work).region() == region


def test_undo_goes_back_and_keeps_what_was_there(started: Desk) -> None:
    """An edit that no command has seen is recorded first, so undo takes back that one and the history loses nothing."""
    assert started.session("undo") == 3
    assert "Nothing to undo" in started.printed
    untouched = started.text
    started.edit(1.0)
    assert started.session("test") == 0
    tested = started.text
    started.edit(0.5)
    unseen = started.text
    assert started.session("undo") == 0
    assert (started.text, (started.work / ORIGINAL).read_text()) == (tested, unseen)
    assert started.session("undo", "1") == 0
    assert started.text == untouched
    assert started.session("undo", "0") == 3
    assert "n must be a whole number" in started.printed


def test_a_full_disk_loses_no_file(started: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """`undo` on a full disk moved the file away, said `[Errno 28]` and advised a second undo, which went back twice."""
    started.edit(1.0)
    edited = started.text
    session = Session.open(started.work)
    before = len(session.fold().calls)
    free = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, free[1]))
    try:
        assert session.folder is not None
        for work in (session.folder.require_writable, session.restore):
            with pytest.raises(FileNotWritten, match=f"{FILE}: cannot be written .File too large., and is as it was"):
                work()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, free)
    refusal = FileNotWritten(started.work / FILE, OSError(28, "No space left on device"))
    monkeypatch.setattr(SessionFolder, "require_writable", Mock(side_effect=refusal))
    with pytest.raises(FileNotWritten):
        session.undo()
    assert (started.text, len(session.fold().calls)) == (edited, before)
    assert sorted(path.name for path in started.work.glob("*custom_init*")) == [FILE]


def test_a_session_without_a_test_to_submit_says_what_is_left_to_do(
    started: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every test had failed and none was left: `status` said "ready", and nothing of what could be done."""
    session = Session.open(started.work)
    failed = TestStatus(1, "failed", {}, None, None, "")
    ended = replace(session_status(session), tests=(failed, failed), tests_left=0, next=())
    monkeypatch.setattr("agent.sessions.session_status", lambda session: ended)
    print_status(session)
    printed = capsys.readouterr()
    assert "test #1: failed" in printed.out
    assert "next: agent session start DIR, in another folder: every test failed, and none is left" in printed.err


def test_a_refused_test_costs_nothing(started: Desk) -> None:
    """Code that does not parse is refused by the rules, code that leaves parameters unset by isolation: exit 3."""
    for region, kind in (("def initialize_weights(model, config:\n", "syntax"), ("x = 1\n", "signature")):
        (started.work / FILE).write_text(scaffold().with_region(region).text)
        assert started.session("check", "--json") == 3
        assert json.loads(started.printed)["kind"] == kind
        assert started.session("test", "--json") == 3
        assert json.loads(started.printed)["error"] == kind
    (started.work / FILE).write_text(scaffold().with_region("def initialize_weights(model, config):\n    pass\n").text)
    assert started.json("test")["error"] == "unset_parameter"
    assert started.json("status")["tests_left"] == 2


def test_a_test_that_fails_is_paid_and_cannot_be_submitted(started: Desk) -> None:
    """Weights that pass the check and train to nothing: the exit code says that a test was spent."""
    huge = (
        "def initialize_weights(model, config):\n    for p in model.parameters():\n        nn.init.constant_(p, 1e30)\n"
    )
    (started.work / FILE).write_text(scaffold().with_region(huge).text)
    reply = started.json("test")
    status = started.json("status")
    if reply["error"] == "candidate_failed":
        assert (reply["exit_code"], status["tests"][0]["status"], status["tests"][0]["gain"]) == (0, "failed", None)
        assert started.session("submit", "1") == 3
    assert status["tests_used"] == (1 if reply["test"] else 0)


def test_screening(desk: Desk) -> None:
    """Looks are for sessions that were started with --screen, are counted, and a later process pays none twice."""
    assert desk.start("--budget", "2", "--screen", "2.5", "--no-submit") == 0, desk.said
    candidates = []
    for gain in (1.0, 0.5):
        path = desk.home / f"idea{gain}.py"
        path.write_text(REGION.format(gain=gain))
        candidates.append(str(path))
    assert desk.session("screen", *candidates) == 0, desk.said
    assert desk.printed.startswith("[Screen] 2 candidates for")
    assert desk.session("screen", *candidates) == 0
    assert desk.printed.startswith("[Screen] 2 candidates for 0.00 of a test")
    assert desk.session("test") == 0
    assert desk.session("screen", str(desk.home / "none.py")) == 2
    assert desk.session("submit", "1") == 0, desk.said
    assert faults(desk.run) == []


def test_screen_is_refused_without_screening(started: Desk) -> None:
    """Exit 3, in the words of the tool. A file that cannot be read is said in words: exit 2."""
    assert started.session("screen") == 3
    assert "Screening is off" in started.printed
    (started.work / "bytes").write_bytes(b"a = \xff")
    for name, words in ((".", ".: cannot be read: Is a directory"), ("bytes", "bytes: not UTF-8 text: byte 4 is none")):
        assert started.session("screen", name) == 2
        assert words in started.said


def test_confirmation_goes_on_after_a_kill(desk: Desk) -> None:
    """kill -9 during the fresh seeds of a submission: the next command finishes it and gives its reply."""
    assert desk.start("--budget", "1", "--confirm", "2", "--no-submit") == 0, desk.said
    desk.edit(1.0)
    assert desk.session("test") == 0
    killed = len(read_events(desk.run / "events.jsonl")) + 3
    assert desk.session("submit", "1", kill_after=killed) == -signal.SIGKILL
    assert desk.json("status")["state"] == "unfinished"
    assert desk.session("submit", "1") == 0, desk.said
    assert "[confirm]" in desk.printed
    assert faults(desk.run) == []


def test_the_second_of_two_commands_says_who_holds_the_run(started: Desk) -> None:
    """Commands that change the run are turned away with the number of the other process; the others answer."""
    with RunDirectory(started.run).held():
        for words in (("test",), ("undo",), ("submit", "1"), ("screen",)):
            assert started.session(*words) == 1
            assert f"process {os.getpid()}" in started.said
        assert started.session("status") == 0
        assert started.session("check") == 0
        assert started.session("wait", "--timeout", "0.2") == 0
        assert "still running" in started.printed
        assert started.session("restore") == 0
    assert started.session("wait") == 0
    assert "nothing is running" in started.printed


def test_start_refuses_what_it_would_overwrite(started: Desk) -> None:
    """A second session in the folder, a folder with an AGENTS.md of its owner, a file in place of the folder.

    A folder that could not be made left a run behind. new/../work overwrote the session in `work`.
    """
    (started.home / "own").mkdir()
    (started.home / "own" / "AGENTS.md").write_text("mine")
    (started.home / "file").write_text("")
    (started.home / "lost").symlink_to("nowhere")
    runs = set((started.home / "runs").iterdir())
    for name, words in (
        ("work", "custom_init.py"),
        ("own", "AGENTS.md"),
        ("file", "is not a folder"),
        ("file/new", "file gives no right to write"),
        ("lost", "is not a folder"),
    ):
        assert started.session("start", str(started.home / name), "--runs", str(started.home / "runs")) == 2
        assert words in started.said
    assert set((started.home / "runs").iterdir()) == runs
    assert started.session("start", "new", "--budget", "0") == 2
    assert started.session("start", "new", "--profile", "mine.toml") == 2
    assert "mine.toml: no such file" in started.said
    assert not (started.work / "new").exists()
    assert started.agent("search", "--proposer", "session") == 2


def test_a_folder_without_a_session(desk: Desk) -> None:
    """Every command says how a session is started; a pointer to a run that is gone says that."""
    for words in (("status",), ("test",), ("wait",), ("submit", "1"), ("restore",)):
        assert desk.session(*words) == 2
        assert "agent session start DIR" in desk.said
    (desk.home / POINTER).write_text('{"run": "/nowhere"}')
    assert desk.session("status") == 2
    assert "/nowhere, is not there" in desk.said
    assert "write its new path there" in desk.said
    for pointer in ("[]", "", '{"run": 5}', "{}", '{"run": "a\\u0000b"}'):
        (desk.home / POINTER).write_text(pointer)
        assert desk.session("status") == 2
        assert "names no run. It must read" in desk.said


def test_a_damaged_workspace_is_made_again_from_the_log(started: Desk) -> None:
    """The repository can be deleted, and be changed by hand: the log is the state."""
    started.edit(1.0)
    assert started.session("test") == 0
    shutil.rmtree(started.run / "workspace")
    assert started.session("undo") == 0
    assert started.text == scaffold().text
    (started.run / "workspace" / "sandbox" / "custom_init.py").write_text("forged")
    assert started.session("submit", "1") == 0, started.said
    assert faults(started.run) == []


def test_an_edited_log_is_refused(started: Desk) -> None:
    """A changed line breaks the chain; exit 1, and nothing is done."""
    log = started.run / "events.jsonl"
    log.write_text(log.read_text().replace('"budget": 2', '"budget": 9', 1))
    assert started.session("test") == 1
    assert "the log was edited" in started.said or "does not give event" in started.said


def test_resume_finishes_what_was_begun_and_submits_nothing(started: Desk) -> None:
    """`agent search --resume` on a session whose test was killed: the test has its result, the session goes on."""
    started.edit(1.0)
    events = len(read_events(started.run / "events.jsonl"))
    assert started.session("test", kill_after=events + 4) == -signal.SIGKILL
    assert started.agent("search", "--resume", str(started.run), "--json") == 0, started.said
    done = json.loads(started.printed.splitlines()[-1])
    assert (done["event"], done["tests_used"], done["submitted_test"]) == ("done", 1, None)
    assert started.json("status")["state"] == "ready"


def test_a_closed_session_is_not_touched_by_commands(started: Desk) -> None:
    """A folder that points to a session of `agent mcp`: refused, because it would not be closed any more."""
    summary = json.loads((started.run / "run.json").read_text())
    summary["config"]["proposer"] = CLOSED
    (started.run / "run.json").write_text(json.dumps(summary))
    for words in (("status",), ("test",), ("submit", "1")):
        assert started.session(*words) == 3
        assert "agent mcp" in started.said
    assert session_status(Session(RunDirectory(started.run))).kind == "closed"


# -- kill -9 ----------------------------------------------------------------------------------------------------------

Step = Callable[[Desk], tuple[str, ...]]


def _edited(gain: float, *words: str) -> Step:
    def step(desk: Desk) -> tuple[str, ...]:
        if words[0] == "test":
            desk.edit(gain)
        return words

    return step


STEPS: tuple[Step, ...] = (
    _edited(1.0, "test"),
    _edited(0.5, "test"),
    _edited(0.0, "submit", "2"),
)


def test_kills_over_session_commands(server: Server, tmp_path: Path, session_cache: Path) -> None:
    """kill -9 at random moments of start, test and submit, each time followed by the same command: no test is lost,
    none is paid twice, and the end is that of an undisturbed session. INITSEARCH_SESSION_KILLS sets how many.
    """
    undisturbed = Desk(server, tmp_path / "undisturbed", session_cache)
    undisturbed.home.mkdir()
    assert undisturbed.start("--budget", "2") == 0, undisturbed.said
    for step in STEPS:
        assert undisturbed.session(*step(undisturbed)) == 0, undisturbed.said
    operations = undisturbed.operations
    wanted = outcome(undisturbed.run)
    moments, kills, sessions = random.Random(11), 0, 0

    def harm(operations: int) -> dict[str, Any]:
        if kills >= KILLS:
            return {}
        return {"kill_at": moments.randint(1, operations), "delay": moments.choice((0, 0.05, 0.2))}

    while kills < KILLS:
        desk = Desk(server, tmp_path / str(sessions), session_cache)
        desk.home.mkdir()
        sessions += 1
        while True:
            code = desk.start("--budget", "2", **harm(operations[0]))
            kills += code == -signal.SIGKILL
            if (desk.work / POINTER).is_file():
                break
            shutil.rmtree(desk.work, ignore_errors=True)
        for step, most in zip(STEPS, operations[1:], strict=True):
            words = step(desk)
            while (code := desk.session(*words, **harm(most))) == -signal.SIGKILL:
                kills += 1
                spent = [
                    r.event.number for r in read_events(desk.run / "events.jsonl") if r.event.kind == "test_started"
                ]
                assert spent in ([], [1], [1, 2])
            ended = json.loads((desk.run / "run.json").read_text())["status"] == "submitted"
            assert code == 0 or (words[0] == "submit" and ended), desk.said
        found = outcome(desk.run)
        assert found["regions"][-1] == wanted["regions"][-1]
        assert found["tests"] == wanted["tests"]
        assert found["results"] == wanted["results"]
        assert (found["submitted"], found["accuracies"]) == (wanted["submitted"], wanted["accuracies"])
        assert faults(desk.run) == []


def test_a_killed_background_test_is_not_lost(started: Desk) -> None:
    """Its process is killed with -9 in the middle of the test, and `wait` starts one that goes on."""
    started.edit(1.0)
    assert started.session("test", "--background", "--json", rests_at="test_started") == 0, started.said
    assert json.loads(started.printed)["event"] == "running"
    session = Session.open(started.work)
    deadline = time.monotonic() + 120
    while (running := session.running()) is None or running.test is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert started.session("undo") == 1
    assert "agent session test --background" in started.said
    process = int(session.run.holder.partition(":")[0].removeprefix("process "))
    os.kill(process, signal.SIGKILL)
    assert started.session("wait", "--json") == 0, started.said
    reply = json.loads(started.printed)
    assert (reply["event"], reply["test"], reply["ok"]) == ("reply", 1, True)
    assert outcome(session.run.path)["tests"] == [1]


def test_a_session_on_a_task_file(desk: Desk) -> None:
    """Each command that runs the file's code names it again; looking needs no code of it; hidden stays hidden."""
    hidden = TASK + '\n[[hidden]]\nname = "secret"\nnetwork = "net.py:build"\ndata = "toys.npz"\nepochs = 1\n'
    file = write_task(desk.home / "task", hidden)
    words = ("--profile", "task/toys.toml", "--runs", str(desk.home / "runs"), "--budget", "1", "--json")
    assert desk.session("start", "work", *words) == 0, desk.said
    task = (desk.work / "TASK.md").read_text()
    assert f"`--profile {file}`" in task
    assert f"`--profile {file}`" in (desk.work / "AGENTS.md").read_text()
    assert "with the weights that the network's own constructors drew" in task
    assert "net.py:build (no residual branches, no layers on skips, head 6)" in task
    assert "secret" not in task
    assert "own constructors made it" in desk.text

    status = desk.json("status")
    assert (status["state"], status["file"]) == ("ready", "recorded")
    edited = "def initialize_weights(model, config):\n    nn.init.zeros_(model[6].weight)\n"
    (desk.work / FILE).write_text(scaffold().with_region(edited).text)
    assert desk.session("check") == 0, desk.said
    assert "accepted on net" in desk.printed
    for command in (("test",), ("undo",)):
        assert desk.session(*command) == 2
        assert f"give --profile {file} again" in desk.said
    assert desk.json("status")["tests_left"] == 1

    assert desk.session("test", "--profile", str(file)) == 0, desk.said
    assert "[Test #1]" in desk.printed
    assert desk.session("undo", "--profile", str(file)) == 0, desk.said
    assert "own constructors made it" in desk.text
    assert desk.session("submit", "1", "--profile", str(file), "--json") == 0, desk.said
    done = json.loads(desk.printed.splitlines()[-1])
    assert list(done["hidden"]) == ["secret"]
    assert faults(desk.run) == []
