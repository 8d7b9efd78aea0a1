"""Somebody else's run directory is resumed: what it names is not run, read or sent to until its reader names it too."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.engine.launching import FilesGiven
from agent.engine.resuming import Allowed
from agent.engine.search import Search
from agent.errors import UsageError
from agent.llm.consent import is_loopback
from agent.llm.errors import ServerFailed
from agent.runs.directory import RunDirectory
from tests.agent.conftest import Main
from tests.agent.llm_servers import KEY, BadServer, Reply, client, completion, error
from tests.agent.report_samples import change_log
from tests.sample import SAMPLE, restore

EVIL = "raise SystemExit\n"
THIEF = "http://key-thief.example/v1"
Make = Callable[..., RunDirectory]


@pytest.fixture
def interrupted(tmp_path: Path) -> Make:
    """The sample run as somebody else hands it over: cut off, and with another configuration in run.json and log."""

    def make(*, status: str = "interrupted", launch: dict[str, Any] | None = None, **config: Any) -> RunDirectory:
        run = restore(SAMPLE, tmp_path / "runs" / "theirs")
        summary = json.loads(run.summary.read_text(encoding="utf-8"))
        summary["config"] |= config
        run.summary.write_text(json.dumps({**summary, "status": status}), encoding="utf-8")

        for name in ("submission.patch", "initialize_weights.py"):
            (run.path / name).unlink()

        def changed(event: dict[str, Any]) -> dict[str, Any] | None:
            if event["kind"] != "launch":
                return None  # it was cut off at once
            return {**event, "config": {**event["config"], **config}, **(launch or {})}

        change_log(run, changed)
        return run

    return make


def left_alone(run: RunDirectory, before: bytes) -> bool:
    """Nothing was started: run.json, which every search marks as running first, is as it was."""
    return run.summary.read_bytes() == before and not (run.path / "workers.log").exists()


# -- isolation -------------------------------------------------------------------------------------------------------


def test_a_run_does_not_switch_isolation_off(main: Main, interrupted: Make, tmp_path: Path) -> None:
    """A run directory with `allow_unsandboxed: true` had its code run with all rights by --resume and by submit."""
    run = interrupted(proposer="scripted:evil.py", allow_unsandboxed=True, submit=False, launch={"script": EVIL})
    (tmp_path / "evil.py").write_text(EVIL)
    before = run.summary.read_bytes()
    for words in (("search", "--resume", "theirs"), ("submit", "theirs")):
        code, out, err = main(*words)
        assert (code, out) == (2, "")
        assert "without isolation" in err
        assert "add --allow-unsandboxed" in err
        assert left_alone(run, before)
    assert Search.resume(run, allowed=Allowed(allow_unsandboxed=True)).pinned.allow_unsandboxed


@pytest.mark.parametrize("source", ["toml", "config", "variable"])
def test_nor_does_anything_else_but_the_command_line(
    main: Main, interrupted: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """An initsearch.toml beside the run, or a variable that was set long ago, allowed it for every later run."""
    run = interrupted(allow_unsandboxed=True)
    (tmp_path / "initsearch.toml").write_text("allow_unsandboxed = true\n" if source != "variable" else "")
    if source == "variable":
        monkeypatch.setenv("INITSEARCH_ALLOW_UNSANDBOXED", "1")
    before = run.summary.read_bytes()
    words = ("--config", "initsearch.toml") if source == "config" else ()
    for command in (("search", "--resume", "theirs"), ("search",)):
        code, _, err = main(*command, *words)
        assert code == 2
        assert "counts only from the command line" in err
    assert left_alone(run, before)


def test_an_isolated_run_stays_isolated(main: Main, interrupted: Make) -> None:
    """One flag too many would mix results of two levels; the log said later that it had been edited."""
    interrupted()
    code, _, err = main("search", "--resume", "theirs", "--allow-unsandboxed")
    assert code == 2
    assert "leave out --allow-unsandboxed" in err


# -- files and folders -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [{"proposer": "scripted:mine.py"}, {"start": "mine.py"}])
def test_a_file_that_only_the_run_names_is_not_read(
    main: Main, interrupted: Make, tmp_path: Path, config: dict[str, str]
) -> None:
    """A run of somebody else named a file of the user's, and its text became a candidate and part of the run."""
    mine = "def initialize_weights(model, config):\n    pass  # private\n"
    (tmp_path / "mine.py").write_text(mine)
    run = interrupted(**config, launch={"script": None, "start_region": None})
    before = run.summary.read_bytes()
    ((name, value),) = config.items()
    code, _, err = main("search", "--resume", "theirs")
    assert code == 2
    assert f"give --{name} {value} again" in err
    assert left_alone(run, before)
    code, _, err = main("search", "--resume", "theirs", f"--{name}", "other.py")
    assert code == 2
    assert f"--{name} other.py contradicts the run's own, {value}" in err
    Search.resume(run, allowed=Allowed(files=FilesGiven(**config)))


def test_a_recipe_is_no_file(interrupted: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--start fixup in a log without its text means the recipe, also where a file of that name lies about."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fixup").write_text("private")
    Search.resume(interrupted(start="fixup", launch={"start_region": None}))


def test_data_folder_and_downloads_are_the_users(interrupted: Make, tmp_path: Path) -> None:
    """Data were read from, and would have been fetched into, whatever folder the run named."""
    theirs, mine = tmp_path / "theirs", tmp_path / "mine"
    mine.mkdir()
    run = interrupted(data_root=str(theirs), download=True)
    search = Search.resume(run)
    assert (search.pinned.data_root, search.pinned.download) == (None, False)
    assert search.config.data_root == theirs  # as the log has it
    allowed = Search.resume(run, allowed=Allowed(data_root=mine, download=True)).pinned
    assert (allowed.data_root, allowed.download) == (mine, True)


# -- where the key goes ----------------------------------------------------------------------------------------------


@pytest.fixture
def thief(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Gets whatever is sent to any host but this machine, since it is the proxy; refuses every key."""
    with BadServer(completion("x"), models=error(401, "no")) as server:
        for name in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, server.url.removesuffix("/v1"))
        for name in ("OPENAI_BASE_URL", "NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        yield server


def test_a_run_does_not_choose_who_gets_the_key(
    main: Main, interrupted: Make, thief: BadServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run.json with an address of its author's got the key by `agent search --resume`, and so by submit."""
    run = interrupted(proposer="llm", model="m", base_url=THIEF, submit=False)
    before = run.summary.read_bytes()
    wrong = ("--yes-send-key-to", "other.example")
    for words in (("search", "--resume", "theirs"), ("submit", "theirs"), ("search", "--resume", "theirs", *wrong)):
        code, out, err = main(*words)
        assert (code, out) == (2, "")
        assert THIEF in err
        assert ("--yes-send-key-to key-thief.example" in err) == (wrong[0] not in words)
        assert left_alone(run, before)
    asked: list[str] = []

    def no(question: str) -> bool:
        asked.append(question)
        return False

    with pytest.raises(UsageError, match="nothing was sent"):
        Search.resume(run, allowed=Allowed(ask=no))
    assert THIEF in asked[0]
    for allowed in (Allowed(key_host="key-thief.example"), Allowed(ask=lambda question: True)):
        assert Search.resume(run, allowed=allowed).pinned.base_url == THIEF
    assert Search.resume(run, allowed=Allowed(known_base_url=f"{THIEF}/")).pinned.base_url == THIEF
    assert Search.resume(run, allowed=Allowed(base_url="http://[::1]/v1")).pinned.base_url == "http://[::1]/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", THIEF)
    assert Search.resume(run).pinned.base_url == THIEF
    assert thief.keys == []


def test_nor_does_a_file_in_the_folder(main: Main, thief: BadServer, tmp_path: Path) -> None:
    """An initsearch.toml in a cloned repository could have the key sent to its own server. Named by hand it is."""
    (tmp_path / "initsearch.toml").write_text(f"base_url = '{THIEF}'\nmodel = 'm'\n")
    by_model = ("search", "--proposer", "llm")
    for words in (by_model, (*by_model, "--config", "initsearch.toml"), ("compare", "--proposers", "random,llm")):
        code, _, err = main(*words)
        assert code == 2
        assert "initsearch.toml: base_url sends" in err
        assert "add --yes-send-key-to key-thief.example" in err
    assert thief.keys == []
    for named in (("--yes-send-key-to", "key-thief.example"), ("--base-url", THIEF)):
        code, _, err = main(*by_model, *named)
        assert code == 2
        assert "refuses the key" in err
        assert thief.keys[-1] == f"Bearer {KEY}"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("url", ["http://localhost:8080/v1", "http://127.8.0.1/v1", "http://[::1]:9/v1"])
def test_this_machine_needs_no_confirmation(interrupted: Make, url: str) -> None:
    """A server of one's own is what most people resume with."""
    assert Search.resume(interrupted(proposer="llm", model="m", base_url=url)).pinned.base_url == url


@pytest.mark.parametrize(
    "url",
    [
        *("http://localhost.evil.example/v1", "http://127.0.0.1.evil.example/v1", "http://localhost%2eevil/v1"),
        *("http://0x7f.1/v1", "http://10.0.0.1/v1", "http://0.0.0.0/v1", "http://[::ffff:8.8.8.8]/v1"),
    ],
)
def test_what_only_looks_like_this_machine(url: str) -> None:
    """Names that begin like it, and spellings that resolvers disagree about, are confirmed too."""
    assert not is_loopback(url)


@pytest.mark.parametrize("url", ["http://localhost\\.evil.example/v1", "http://local\thost/v1", "http://a b/v1"])
def test_an_address_that_two_readers_read_differently(interrupted: Make, url: str) -> None:
    """What one parser takes for the end of a host's name, another takes for a part of it."""
    run = interrupted(proposer="llm", model="m", base_url=url)
    with pytest.raises(UsageError, match="--base-url"):
        Search.resume(run, allowed=Allowed(key_host="localhost"))


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_does_not_take_the_key_along(status: int) -> None:
    """A server that was confirmed sends the client on to another port: it follows without the key."""
    with BadServer(completion("x")) as other:
        moved = Reply(b"", status, {"Location": f"{other.url}/models"})
        with BadServer(moved, models=moved, empty=moved) as server:
            asking = client(server.url)
            asking.models()
            with contextlib.suppress(ServerFailed):  # some redirects turn the question into one for the list of models
                asking.complete([{"role": "user", "content": "x"}], None)
            assert f"Bearer {KEY}" in server.keys
        assert other.keys, "the client followed"
        assert not any(other.keys)
