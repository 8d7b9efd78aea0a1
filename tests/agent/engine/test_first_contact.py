"""A model's server that refuses, as `agent search` and `agent compare` meet it: exit 2, and no run directory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.config import SearchConfig
from agent.proposers import proposer_kind
from tests.agent.conftest import Main
from tests.agent.llm_servers import KEY, BadServer, Reply, completion, error

LIST = Reply(json.dumps({"data": [{"id": "org/Tiny-2"}, {"id": "tiny"}, {"id": "other"}]}).encode())
PAGE = Reply(b"<!DOCTYPE html><html>hello</html>")
YES = completion("yes")


class Versioned(BadServer):
    """Knows its models below one path only."""

    below = "/v1/"

    def list_for(self, path: str) -> Reply:
        return LIST if path.startswith(self.below) else error(404, "no such page")


class Router(Versioned):
    """As OpenRouter, whose list is at /api/v1."""

    below = "/api/v1/"


REFUSALS: dict[str, tuple[Callable[[], BadServer], str]] = {
    "another name": (
        lambda: BadServer(error(404, "The model `tinny` does not exist"), models=LIST),
        "of its 3 models: did you mean 'tiny' or 'org/Tiny-2'?",
    ),
    "another name, 400": (lambda: BadServer(error(400, "Model Not Exist"), models=LIST), "did you mean 'tiny'"),
    "another name, 422": (lambda: BadServer(Reply(b'{"detail": []}', 422), models=LIST), "did you mean 'tiny'"),
    "another name, at once": (
        lambda: BadServer(YES, models=LIST, empty=error(404, "model 'tinny' not found")),
        "did you mean 'tiny'",
    ),
    "another name and no list": (
        lambda: BadServer(error(404, "model 'tinny' not found"), models=error(404, "")),
        "lists no models either: is the address whole?",
    ),
    "a key that only questions need": (lambda: BadServer(error(401, "no key"), models=LIST), "refuses the key"),
    "no permission": (
        lambda: BadServer(error(403, "not yours"), models=LIST),
        "refuses the key in OPENAI_API_KEY (403",
    ),
    "no money": (lambda: BadServer(error(402, "Insufficient credits"), models=LIST), "status 402: "),
    "a page": (lambda: BadServer(PAGE, models=PAGE, empty=PAGE), "answers with a web page"),
    "a missing page": (
        lambda: BadServer(PAGE, models=Reply(PAGE.body, 404), empty=Reply(PAGE.body, 404)),
        "answers with a web page (404)",
    ),
    "a server of files": (
        lambda: BadServer(Reply(PAGE.body, 405), models=PAGE, empty=Reply(PAGE.body, 405)),
        "status 405",
    ),
    "no /v1": (lambda: Versioned(YES), "/v1?"),
    "no /api/v1": (lambda: Router(PAGE, empty=Reply(PAGE.body, 404)), "/api/v1: did you mean that?"),
    "the whole path": (lambda: BadServer(YES, models=LIST), "leave out the end /chat/completions"),
}
ENDS = {"no /v1": "", "no /api/v1": "/v1", "the whole path": "/v1/chat/completions"}
COMMANDS = {
    "llm": ("search", "--profile", "smoke", "--proposer", "llm"),
    "hybrid": ("search", "--profile", "smoke", "--proposer", "hybrid"),
    "compare": ("compare", "--profile", "smoke", "--proposers", "random,llm"),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refusal_is_said_before_there_is_a_run(
    main: Main, tmp_path: Path, refusal: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was exit 2 beside a run directory of status `failed`, or after the baseline had been trained."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    make, said = REFUSALS[refusal]
    with make() as server:
        address = server.url.removesuffix("/v1") + ENDS.get(refusal, "/v1")
        code, out, err = main(*COMMANDS[command], "--model", "tinny", "--base-url", address)
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def contacted(server: BadServer, model: str, monkeypatch: pytest.MonkeyPatch) -> bool:
    """What the check before a search finds out."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    config = SearchConfig(proposer="llm", model=model, base_url=server.url)
    return proposer_kind(config).check(config).contacted


def test_a_name_that_is_not_listed_and_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some servers list aliases or files and take other names, too: one short question shows that this one answers."""
    with BadServer(YES, models=LIST) as server:
        assert contacted(server, "default", monkeypatch) is True
    assert [request["max_tokens"] for request in server.requests] == [16]


def test_a_question_teaches_the_check_what_the_server_accepts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer model refuses `max_tokens`, which says nothing about its name."""
    refusal = error(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
    with BadServer(refusal, YES, models=error(404, "no list")) as server:
        assert contacted(server, "deployment", monkeypatch) is True
    assert "max_completion_tokens" in server.requests[1]


def test_a_busy_server_is_asked_again_by_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is overloaded or loads its model may answer in a minute: the search is not refused for that."""
    for busy in (error(429, "slow down"), error(503, "Loading model"), Reply(hang_up=True)):
        with BadServer(busy, models=LIST) as server:
            assert contacted(server, "default", monkeypatch) is False
