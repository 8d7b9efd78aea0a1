"""First contact: what can be found out about a model's server before anything is trained."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from agent.config import SearchConfig
from agent.errors import UsageError
from agent.llm.contact import contact
from tests.agent.llm_servers import KEY, BadServer, Reply, completion, error

LIST = Reply(json.dumps({"object": "list", "data": [{"id": "tiny"}, {"id": "tiny-2"}]}).encode())


def first(url: str, model: str = "tiny", key: str | None = KEY) -> bool:
    config = SearchConfig(proposer="llm", model=model, base_url=url)
    return contact(config, {} if key is None else {"OPENAI_API_KEY": key})


def test_a_server_that_knows_model_and_key() -> None:
    """It lists the model and refuses only the empty question: nothing is asked for money."""
    with BadServer(models=LIST) as server:
        assert first(server.url) is True
    with BadServer() as server:
        assert first(server.url) is True
    assert server.requests == []


def test_without_a_list_only_a_question_can_tell() -> None:
    """Servers without a list of models, or with a broken one, are asked a real question before the baseline."""
    for unknowing in (error(404, "no such page"), Reply(b"<html>"), error(501, "GET?"), error(500, "boom")):
        with BadServer(models=unknowing) as server:
            assert first(server.url) is False


def test_a_public_list_and_a_refused_key() -> None:
    """The list of models was public, so the baseline was trained before the key was refused."""
    with BadServer(models=LIST, empty=error(401, "wrong key")) as server, pytest.raises(UsageError, match="refuses"):
        first(server.url)
    with BadServer(models=error(401, "wrong key")) as server, pytest.raises(UsageError, match="OPENAI_API_KEY"):
        first(server.url)
    with pytest.raises(UsageError, match=r"no connection \(Connection refused\)"):  # there stood "[Errno 111]" as well
        first(server.url)


def test_a_refused_key_that_comes_as_a_400() -> None:
    """Google answers 400 to a wrong key, which counted as the refusal of an empty question."""
    wrong = error(400, "API key not valid. Please pass a valid API key.")
    with BadServer(models=LIST, empty=wrong) as server, pytest.raises(UsageError, match="refuses the key"):
        first(server.url)


def test_a_model_that_the_server_does_not_list() -> None:
    """A name that is not in the list proves nothing, for some servers take any; a refused one gets a suggestion."""
    with BadServer(models=LIST) as server:
        assert first(server.url, model="another") is False
    unknown = error(404, "The model `tinny` does not exist")
    with BadServer(models=LIST, empty=unknown) as server, pytest.raises(UsageError, match="did you mean 'tiny'"):
        first(server.url, model="tinny")


def test_addresses_as_people_paste_them() -> None:
    """Without /v1, or with the full path of the documentation, the baseline was trained before anybody noticed."""
    with pytest.raises(UsageError, match="leave out the end /chat/completions: http://localhost:1/v1"):
        first("http://localhost:1/v1/chat/completions")

    with pytest.raises(UsageError, match="does not belong in an address"):
        first("http://localhost:1/v1\u201d")
    page = Reply(b"<html>welcome</html>")
    with BadServer(models=page, empty=page) as server, pytest.raises(UsageError, match="answers with a web page"):
        first(server.url)

    class Versioned(BadServer):
        def list_for(self, path: str) -> Reply:
            return LIST if path.startswith("/v1/") else Reply(b"<html>a web page</html>")

    with Versioned(completion("x")) as server, pytest.raises(UsageError, match=r"did you mean http://.*/v1"):
        first(server.url.removesuffix("/v1"))


@pytest.mark.parametrize("status", [301, 302, 303])
@pytest.mark.parametrize("there", [LIST, error(405, "Method Not Allowed")])
def test_an_address_that_redirects_questions_away(status: int, there: Reply) -> None:
    """A redirect makes a GET of the question. The answer to that was called one that "holds no message"."""
    away = Reply(b"", status, {"Location": "/new/v1/chat/completions"})

    class Moved(BadServer):
        def list_for(self, path: str) -> Reply:
            return there if path.startswith("/new/") else LIST

    with Moved(away, empty=away) as server, pytest.raises(UsageError, match=r"give that one: --base-url \S+/new/v1$"):
        first(server.url)


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("ALL_PROXY", "socks5://localhost:1080", "ALL_PROXY.*socksio"),
        ("ALL_PROXY", "socks://localhost:1080", "ALL_PROXY.*socks://"),
        ("https_proxy", "ftp://localhost", "https_proxy.*ftp://"),
        ("SSL_CERT_FILE", "/nonexistent/ca.pem", "SSL_CERT_FILE.*does not exist"),
        ("SSL_CERT_FILE", __file__, "made with SSL_CERT_FILE"),
        ("HTTP_PROXY", "http://[::1", "HTTP_PROXY holds no address"),
        ("OPENAI_CUSTOM_HEADERS", "X-Team: \u201cours\u201d", r"OPENAI_CUSTOM_HEADERS holds the character U\+201C"),
        ("SSLKEYLOGFILE", "/nonexistent/keys", "made with.* SSLKEYLOGFILE"),
        ("HTTP_PROXY", "ftp://localhost:9", "HTTP_PROXY.*ftp://"),
        ("OPENAI_ORG_ID", "\u201corg\u201d", r"OPENAI_ORG_ID holds the character U\+201C"),
    ],
)
def test_surroundings_that_no_connection_survives(
    variable: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They ended in a traceback, a bare errno, or five retries, even where NO_PROXY covered the server."""
    monkeypatch.setenv(variable, value)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setitem(sys.modules, "socksio", None)
    with BadServer(models=LIST) as server, pytest.raises(UsageError, match=words):
        first(server.url)


def test_a_proxy_without_a_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    """`HTTP_PROXY=localhost:8080`, which every program takes for http://, was "a proxy of the kind localhost://"."""
    with BadServer(completion("x"), models=LIST) as proxy, monkeypatch.context() as patch:
        for name in ("NO_PROXY", "no_proxy", "http_proxy", "ALL_PROXY", "all_proxy"):
            patch.delenv(name, raising=False)
        patch.setenv(
            "HTTP_PROXY", proxy.url.removeprefix("http://").removesuffix("/v1").replace("127.0.0.1", "localhost")
        )
        assert first("http://models.example/v1") is True
    assert len(proxy.keys) == 2


def test_a_proxy_that_is_down_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """`Connection refused` beside the address of the server, which did run, sent people to the wrong place."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with BadServer(models=LIST) as server, pytest.raises(UsageError, match=r"no connection.*made with HTTP_PROXY"):
        first(server.url)


@pytest.mark.parametrize("key", ["\u201csk-abc\u201d", "sk-a b", "sk-ä"])
def test_keys_that_are_none(key: str) -> None:
    """A typographic quotation mark in the key was a UnicodeEncodeError, five times over."""
    with pytest.raises(UsageError, match=r"OPENAI_API_KEY holds the character U\+"):
        first("http://localhost:1/v1", key=key)


def test_everything_is_said_as_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of certificates that holds none is no traceback either."""
    monkeypatch.setenv("SSL_CERT_FILE", __file__)
    given: dict[str, Any] = {"proposer": "llm", "model": "tiny", "base_url": "https://localhost:1/v1"}
    with pytest.raises(UsageError):
        contact(SearchConfig(**given), {"OPENAI_API_KEY": KEY})
