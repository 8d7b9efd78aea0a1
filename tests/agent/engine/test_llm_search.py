"""`agent search` with models as a user runs it: first contact, the scripted demo, a whole search over HTTP, secrets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.clock import Clock
from agent.config import SearchConfig
from agent.errors import UsageError
from agent.evaluation.workbench import open_workbench
from agent.llm.settings import Price, SpendingLimits, address, limits, model_settings
from agent.progress import Progress
from agent.proposers import proposer_kind
from agent.runs.directory import RunDirectory
from agent.secrets import kept_from_children, scrub
from benchmark.executors import Parent, local
from benchmark.slot_process import SlotProcess
from tests.agent.conftest import Agent, json_lines
from tests.agent.engine.test_screening import smoke
from tests.agent.harm import Server
from tests.agent.llm_servers import GOOD, KEY, BadServer, Reply, completion, error

SMOKE = ("search", "--profile", "smoke", "--budget", "2", "--json")
FIRST = completion("", ("rewrite", {"content": GOOD.format(gain=1.0)}), ("test", {}))
TURNS = [FIRST, completion("", ("submit", {"n": 1}))]


def test_missing_key_is_said_at_once(agent: Agent, tmp_path: Path) -> None:
    """Exit code 2, one sentence that says what to set; no run directory, nothing trained."""
    without = {"OPENAI_API_KEY": "", "OPENAI_BASE_URL": ""}
    done = agent(*SMOKE, "--proposer", "llm", "--model", "m", env=without)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("OPENAI_API_KEY is not set") == done.stderr.count("error:") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"proposer": "llm"}, "--model"),
        ({"proposer": "hybrid"}, "--model"),
        ({"proposer": "llm", "model": ""}, "--model"),
        ({"proposer": "llm", "model": "m", "max_cost": 1.0}, "--price"),
        ({"proposer": "llm", "model": "m", "base_url": "http://me:secret@host/v1"}, "OPENAI_API_KEY"),
        ({"proposer": "llm", "model": "m", "base_url": "http://host/v1?key=secret"}, "OPENAI_API_KEY"),
        ({"proposer": "lmm"}, "did you mean 'llm'"),
    ],
)
def test_settings_that_cannot_work(given: dict[str, Any], expected: str) -> None:
    """What is missing is named; a secret in the address is neither kept nor repeated."""
    config = SearchConfig(**given)
    with pytest.raises(UsageError, match=expected) as refused:
        proposer_kind(config).check(config)
    assert "secret" not in str(refused.value)


def test_wrong_key_and_absent_server_are_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The list of models is asked for before a run directory is made; a refused key, a closed port: usage errors."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with BadServer(models=error(401, f"bad key {KEY}")) as server:
        config = SearchConfig(proposer="llm", model="m", base_url=server.url)
        with pytest.raises(UsageError, match="refuses the key in OPENAI_API_KEY") as refused:
            proposer_kind(config).check(config)
    assert KEY not in str(refused.value)
    with pytest.raises(UsageError, match="no connection"):
        proposer_kind(config).check(config)
    with BadServer() as server:
        there = config.model_copy(update={"base_url": server.url})
        assert proposer_kind(there).check(there).contacted is True


def test_wrong_key_on_a_server_without_a_list(agent: Agent, tmp_path: Path) -> None:
    """Only a question shows it: asked before there is a run, said once, exit code 2."""
    with BadServer(error(401, "no such key"), models=error(404, "nothing here")) as server:
        words = ("--proposer", "llm", "--model", "m", "--base-url", server.url)
        done = agent(*SMOKE, *words, env={"OPENAI_API_KEY": KEY})
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("refuses the key") == 1
    assert len(server.requests) == 1
    assert not (tmp_path / "runs").exists()


def test_server_that_answers_rubbish_ends_before_the_baseline(agent: Agent, tmp_path: Path) -> None:
    """A page instead of an answer, for ever: the typed end `api` on the last line, no test used, nothing trained."""
    with BadServer(Reply(b"<html>hello</html>"), models=Reply(b"<html>hello</html>")) as server:
        done = agent(*SMOKE, "--proposer", "llm", "--model", "m", "--base-url", server.url)
    last = json_lines(done.stdout)[-1]
    assert (last["event"], last["status"], last["tests_used"], done.returncode) == ("done", "api", 0, 4)
    log = next((tmp_path / "runs").glob("2*/events.jsonl")).read_text()
    assert '"evaluated"' not in log


def test_whole_search_over_http_stopped_and_resumed(server: Server, cache: Path, tmp_path: Path) -> None:
    """SIGTERM while the model thinks; --resume finishes; each answer was paid once; the key is in no file."""

    def reply(request: dict[str, Any]) -> Reply:
        turn: int = sum(message["role"] == "assistant" for message in request["messages"])
        if turn == 1 and len(model.requests) == 2:
            child.signal(signal.SIGTERM)
            time.sleep(0.5)
        return TURNS[min(turn, 1)]

    printed = tmp_path / "stdout", tmp_path / "stderr"
    given: dict[str, Any] = {"cache": str(cache), "environ": {"OPENAI_API_KEY": KEY}, "report": True}
    with BadServer(reply) as model:
        words = ("--proposer", "llm", "--model", "m", "--base-url", model.url, "--price", "1/2")
        child = server.start(tmp_path, *SMOKE, "--no-submit", *words, **given)
        code, _ = child.wait()
        errors = printed[1].read_text()
        assert code == 143, errors
        assert "go on with: agent search --resume" in errors
        code, _ = server.run(tmp_path, "search", "--resume", "latest", "--json", **given)
        assert code == 0, printed[1].read_text()
    last = json_lines(printed[0].read_text())[-1]
    assert (last["status"], last["tests_used"], last["submitted_test"]) == ("waiting_for_review", 1, 1)
    assert len(model.requests) == 3  # the second question was asked, cut off, and asked again
    assert not any(KEY.encode() in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert f"Bearer {KEY}" in model.keys
    sent = json.dumps(model.requests)
    assert "mobilenetv2-" not in sent  # nothing names the hidden task
    assert "resnet20-tiny: " in sent
    recorded = next((tmp_path / "runs").glob("2*/events.jsonl")).read_text()
    assert recorded.count('"kind": "proposal"') == 2


def test_demo_needs_no_network(agent: Agent) -> None:
    """`--proposer scripted:demo` plays a model's conversation and submits the best of its tests."""
    nobody = {"OPENAI_API_KEY": "", "OPENAI_BASE_URL": "http://127.0.0.1:9"}
    done = agent(*SMOKE, "--no-submit", "--proposer", "scripted:demo", env=nobody)
    last = json_lines(done.stdout)[-1]
    assert (last["status"], last["tests_used"]) == ("waiting_for_review", 2), done.stderr
    assert last["submitted_test"] in (1, 2)


def test_secrets_are_kept_from_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a search runs, no process that it starts inherits a key or token; afterwards they are back."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("HF_TOKEN", "hf_abc")
    monkeypatch.setenv("HARMLESS", "1")
    with kept_from_children() as secrets:
        seen = subprocess.run(["env"], capture_output=True, text=True, check=True).stdout
        assert secrets["OPENAI_API_KEY"] == KEY
    assert "HARMLESS=1" in seen
    assert KEY not in seen
    assert "hf_abc" not in seen
    assert os.environ["OPENAI_API_KEY"] == KEY


@dataclass(frozen=True)
class _Environment:
    """A call for a worker: the environment that it was given."""

    def __call__(self, parent: Parent) -> dict[str, str]:
        return dict(os.environ)


@pytest.mark.usefixtures("processes_shared")
def test_no_worker_of_any_command_has_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """`replay --execute`, `baselines` and `compare` start workers without a search around them."""
    monkeypatch.setattr(local, "SlotProcess", SlotProcess)  # a new one: those kept began before there was a key
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("HARMLESS", "1")
    with open_workbench(SearchConfig(workers=1), Clock(), Progress()) as workbench:
        seen = workbench.evaluator._executor.submit(_Environment()).result()
    assert seen["HARMLESS"] == "1"
    assert KEY not in seen.values()
    assert os.environ["OPENAI_API_KEY"] == KEY


def test_scrub_leaves_code_alone() -> None:
    """What looks like a key is struck out of messages; names in code are not keys."""
    text = "sk-abcdefgh1234 Bearer abcdefgh12 sk_connection hf_gain task-force"
    assert scrub(text, KEY) == "[key] Bearer [key] sk_connection hf_gain task-force"
    assert scrub("none of it", "none") == "none of it"


@pytest.mark.parametrize(
    "url", ["localhost:8080", "ftp://host/v1", "http://", "http://host:99999/v1", "http://[::1/v1"]
)
def test_addresses_that_are_none(url: str) -> None:
    """A base URL that cannot work is refused with the form it should have."""
    with pytest.raises(UsageError, match="--base-url"):
        address(SearchConfig(base_url=url), {})


def test_where_settings_come_from() -> None:
    """--base-url wins over OPENAI_BASE_URL; a local server needs no key; prices are read as IN/OUT."""
    environ = {"OPENAI_BASE_URL": "http://from.environ/v1/"}
    assert address(SearchConfig(), environ) == "http://from.environ/v1"
    assert address(SearchConfig(base_url="http://localhost:1/v1"), environ) == "http://localhost:1/v1"
    assert model_settings(SearchConfig(proposer="llm", model="m", base_url="http://localhost:1/v1"), {}).model == "m"
    assert limits(SearchConfig(price="0.5/2", max_cost=1.0, max_tokens=9)) == SpendingLimits(9, 1.0, Price(0.5, 2.0))
    assert Price.parse("1/2").cost(1_000_000, 500_000) == 2.0
    for wrong in ("1", "a/b", "-1/2", "1/2/3", "nan/1"):
        with pytest.raises(UsageError, match="IN/OUT"):
            Price.parse(wrong)


def test_a_model_looks_before_it_tests(tmp_path: Path, cache: Path, server: Server) -> None:
    """With --screen the model is told of the tool and its look is answered with a loss, spending no test; with
    --confirm it is told what submitting means."""
    look = completion("", ("rewrite", {"content": GOOD.format(gain=1.0)}), ("screen", {}))
    with BadServer(look, completion("", ("test", {})), completion("", ("submit", {"n": 1}))) as model:
        words = ("--proposer", "llm", "--model", "m", "--base-url", model.url, "--screen", "2.5", "--confirm", "1")
        more = ("--budget", "1", "--no-submit", "--runs", str(tmp_path / "runs"))
        run = smoke(server, tmp_path, cache, *words, *more)
    offered = {tool["function"]["name"]: tool["function"]["description"] for tool in model.requests[0]["tools"]}
    assert "Costs no test" in offered["screen"]
    assert "confirmation" in offered["submit"]
    task = model.requests[0]["messages"][1]["content"]
    assert "`screen` looks briefly" in task
    assert "with 1 fresh seed(s)" in task
    replies = [message["content"] for message in model.requests[1]["messages"] if message["role"] == "tool"]
    assert replies[-1].startswith("[Screen] 1 candidate for ")
    summary = RunDirectory(run).read_summary()
    assert (summary["tests_used"], summary["submitted_test"], summary["confirmed"]) == (1, 1, [1])
