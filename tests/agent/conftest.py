"""A finished smoke search that many tests look at, and the `agent` command as a user runs it."""

from __future__ import annotations

import functools
import json
import os
import pickle
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from agent import cli, search
from agent.engine.search import SearchOutcome
from tests.agent.harm import Server
from tests.agent.kept import Kept, used
from tests.agent.terminals import converse

ROOT = Path(__file__).resolve().parents[2]
Agent = Callable[..., "subprocess.CompletedProcess[str]"]


def agent_command(*words: str) -> list[str]:
    """The command line that runs `agent` from this checkout."""
    return [sys.executable, "-c", "from agent.cli import main; main()", *words]


def agent_environment(cache: Path, extra: Mapping[str, str] = {}) -> dict[str, str]:
    """The environment of a user who has this checkout and nothing else."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    return {**os.environ, "PYTHONPATH": path, "INITSEARCH_CACHE_DIR": str(cache), **extra}


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One result store for all tests: equal code is trained once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def kept(cache: Path) -> Iterator[Kept]:
    """Isolation and slots for all tests that share them."""
    kept = Kept(cache)
    yield kept
    kept.close()


@pytest.fixture(scope="module")
def processes_shared(kept: Kept) -> Iterator[None]:
    """The tests of a file use the isolation and the slots that other files use, too; see tests/agent/kept.py."""
    with used(kept):
        yield


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One Chromium for the tests of a file, driven by Playwright. It keeps an event loop, so it ends with the file."""
    sync_api: Any = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium here (Debian: apt install chromium)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def agent_in(server: Server, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Run `agent …` in a folder, without a terminal and without standard input, with isolation as strong as a user's.

    The process is forked from one that has imported everything and has an isolation; see tests/agent/harm_server.py.
    `page`: whether a search writes its page, which takes seconds.
    """

    def run(
        folder: Path, *words: str, env: Mapping[str, str] = {}, page: bool = False, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        printed = tmp_path_factory.mktemp("printed")
        child = server.start(
            printed,
            *words,
            go_to=str(folder),
            cache=env.get("INITSEARCH_CACHE_DIR", str(cache)),
            environment=agent_environment(cache, env),
            report=page or words[:1] != ("search",),
        )
        overdue = threading.Timer(timeout, child.signal, (signal.SIGKILL,))
        overdue.start()
        code, _ = child.wait()
        overdue.cancel()
        out, err = ((printed / name).read_text(encoding="utf-8") for name in ("stdout", "stderr"))
        return subprocess.CompletedProcess(["agent", *words], code, out, err)

    return run


def done_line(result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The last line of a command with --json that succeeded."""
    assert result.returncode == 0, result.stderr
    return json_lines(result.stdout)[-1]


@pytest.fixture
def agent(agent_in: Command, tmp_path: Path) -> Agent:
    """As `agent_in`, in an empty folder."""
    return functools.partial(agent_in, tmp_path)


Terminal = Callable[..., tuple[str, int]]


@pytest.fixture
def terminal(server: Server, cache: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    """Run `agent …` as `agent` does, on a terminal of its own: what it showed, and its exit code.

    `script`: prompts and what is then typed. `look`: see `converse`. `missing`: modules that are not installed.
    """

    def run(
        *words: str,
        env: Mapping[str, str] = {},
        script: Sequence[tuple[str, str]] = (),
        look: Callable[[str], None] = lambda shown: None,
        missing: Sequence[str] = (),
    ) -> tuple[str, int]:
        ours, theirs = pty.openpty()
        child = server.start(
            tmp_path_factory.mktemp("printed"),
            *words,
            go_to=str(tmp_path),
            cache=str(cache),
            environment=agent_environment(cache, env),
            report=True,
            terminal=os.ttyname(theirs),
            missing=missing,
        )
        os.close(theirs)
        try:
            shown = converse(ours, script, look)
        finally:
            overdue = threading.Timer(30, child.signal, (signal.SIGKILL,))
            overdue.start()
            code, _ = child.wait()
            overdue.cancel()
            os.close(ours)
        return shown, code

    return run


@pytest.fixture(scope="session")
def for_all(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes which test share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def trained(for_all: Path) -> Path:
    """Where the servers keep what they trained."""
    folder = for_all / "trained"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def server(trained: Path) -> Iterator[Server]:
    """Forks `agent` commands that are to be harmed; see tests/agent/harm_server.py."""
    with Server.started(trained) as server:
        yield server


@pytest.fixture(scope="session")
def finished(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, for_all: Path, cache: Path
) -> SearchOutcome:
    """The main job on the smoke profile, by the Python interface: real training, real git, real isolation.

    Where several processes test, the first that needs it searches, and each has a copy of the run and of the results.
    """
    shared = for_all / "finished"
    with FileLock(f"{shared}.lock"):
        if not shared.exists():
            with tempfile.TemporaryDirectory(dir=for_all) as folder, pytest.MonkeyPatch.context() as patch:
                making = Path(folder) / "making"
                patch.setenv("INITSEARCH_CACHE_DIR", str(making / "cache"))
                with used(request.getfixturevalue("kept")):
                    made = search(budget=2, profile="smoke", proposer="optuna", runs=making / "runs")
                (making / "outcome.pickle").write_bytes(pickle.dumps(made))
                making.rename(shared)
    shutil.copytree(shared / "cache", cache, dirs_exist_ok=True)
    runs = shutil.copytree(shared / "runs", tmp_path_factory.mktemp("runs"), symlinks=True, dirs_exist_ok=True)
    outcome: SearchOutcome = pickle.loads((shared / "outcome.pickle").read_bytes())
    run = runs / outcome.run.name
    return replace(outcome, run=run, done=outcome.done | {"run": str(run)})


@dataclass(frozen=True)
class Searched:
    """An example of docs/examples that was searched, in a folder of its own."""

    name: str
    folder: Path
    outcome: SearchOutcome

    @property
    def task_file(self) -> Path:
        return self.folder / "task.toml"


def copy_example(name: str, folder: Path, changes: Sequence[tuple[str, str, str]]) -> None:
    """Copy the files of an example of docs/examples. `changes`: (file, old text, new text)."""
    for path in (ROOT / "docs" / "examples" / name).iterdir():
        if path.is_file():
            shutil.copy(path, folder)
    for file, old, new in changes:
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new))


def search_in(agent_in: Command, folder: Path, *words: str) -> SearchOutcome:
    """A search with one test on the folder's task file."""
    done = done_line(agent_in(folder, "search", "--profile", "task.toml", "--budget", "1", *words, "--json"))
    return SearchOutcome(Path(done["run"]), done["status"], done, [])


@pytest.fixture(scope="session")
def val_loss(tmp_path_factory: pytest.TempPathFactory, agent_in: Command) -> Searched:
    """A search with one test on a task whose score is val_loss, lower is better, and whose owner states its noise."""
    folder = tmp_path_factory.mktemp("letters")
    noise = ('direction = "minimize"', 'direction = "minimize"\n\n[noise]\ngru-letters = 0.05')
    copy_example("letters", folder, [("train.py", "3, 40, 48, 32", "2, 3, 48, 32"), ("task.toml", *noise)])
    return Searched("letters", folder, search_in(agent_in, folder))


def json_lines(text: str) -> list[dict[str, Any]]:
    """The objects on stdout, one a line."""
    return [json.loads(line) for line in text.splitlines()]


Main = Callable[..., tuple[int, str, str]]


@pytest.fixture
def main(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], commands_built_once: None
) -> Iterator[Main]:
    """Run `agent …` in this process and an empty folder: exit code, stdout, stderr."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["agent", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert isinstance(end.value.code, int)
        return end.value.code, *capsys.readouterr()

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)
