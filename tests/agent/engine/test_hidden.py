"""Hidden stays hidden: a canary in the hidden result shows up nowhere before submit, and is found after it."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent.runs.directory import RunDirectory
from benchmark.results import EvaluationResult
from benchmark.store import ResultStore
from sandbox.workspace import Workspace
from tests.agent.harm import Server
from tests.agent.llm_servers import BadServer, Reply, completion

CANARY = 73.51927
SIGNS = (b"73.51927", b"73.519", b"73.52 ", b">73.52<", b"73.5 %")
"""The canary, and as people round it."""
SMOKE = ("--profile", "smoke", "--budget", "1")


def texts_of(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file that a search has left, but for the hidden folder; git's objects as git shows them."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and ".git" not in path.parts and "hidden" not in path.parts:
            yield str(path), path.read_bytes()
    for repository in folder.rglob(".git"):
        show = ["git", "--git-dir", str(repository), "cat-file", "--batch-all-objects", "--batch"]
        yield str(repository), subprocess.run(show, capture_output=True, check=True).stdout


def found_in(folder: Path) -> list[str]:
    return [name for name, content in texts_of(folder) if any(sign in content for sign in SIGNS)]


def test_hidden_result_shows_up_nowhere_before_submit(server: Server, tmp_path: Path) -> None:
    """A result with an accuracy of its own is planted for baseline and submission, and a model searches.

    Events, prompts, replies, log, page, git, result store, stdout and stderr are searched for it before submit. After
    it they have it: so the search would have found it.
    """
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    cache = str(tmp_path / "cache")
    assert server.run(first, "search", *SMOKE, cache=cache)[0] == 0, (first / "stderr").read_text()
    known = RunDirectory(next((first / "runs").glob("2*")))
    with Workspace.open(known.workspace) as workspace:
        region = workspace.region_at("submit/1")

    turns = [completion("", ("rewrite", {"content": region}), ("test", {})), completion("", ("submit", {"n": 1}))]

    def reply(request: dict[str, Any]) -> Reply:
        turn: int = sum(message["role"] == "assistant" for message in request["messages"])
        return turns[min(turn, 1)]

    with BadServer(reply) as model:
        words = ("--proposer", "llm", "--model", "m", "--base-url", model.url, "--no-submit")
        code, _ = server.run(second, "search", *SMOKE, *words, cache=cache, kill_after=1)
        assert code == -signal.SIGKILL
        run = RunDirectory(next((second / "runs").glob("2*")))
        for path in known.hidden.glob("*.json"):
            ResultStore(run.hidden).put(_canary(ResultStore(known.hidden).get(path.stem)))
        assert server.run(second, "search", "--resume", str(run.path), cache=cache, report=True)[0] == 0
        assert run.read_summary()["status"] == "waiting_for_review"
        prompts = json.dumps(model.requests).encode()
    assert model.requests
    assert not any(sign in prompts for sign in SIGNS)
    assert (run.path / "report.html").exists()
    assert found_in(second) == []
    assert found_in(tmp_path / "cache") == []

    code, _ = server.run(second, "submit", str(run.path), cache=cache, report=True)
    assert code == 0, (second / "stderr").read_text()
    assert run.read_summary()["hidden"]["mobilenetv2-tiny"]["submitted"] == CANARY
    assert {Path(name).name for name in found_in(second)} >= {"events.jsonl", "run.json", "report.html", "stdout"}
    assert found_in(tmp_path / "cache") == []


def _canary(result: EvaluationResult | None) -> EvaluationResult:
    assert result is not None
    curve = tuple(epoch.model_copy(update={"test_acc": CANARY}) for epoch in result.curve)
    return result.model_copy(update={"best_test_acc": CANARY, "last_test_acc": CANARY, "curve": curve})
