"""The client against a bad server that others wrote: llmock grades how a client behaves when things break."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from agent.llm.client import ChatClient
from agent.llm.errors import ContextExceeded, ServerFailed
from agent.llm.prompting import tools
from tests.agent.llm_servers import client

pytest.importorskip("llmock", reason="llmock is not installed: pip install '.[dev]'")

HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture
def asked(llmock: Any) -> Iterator[ChatClient]:
    """Our client on llmock's server; at the end its verdict must be free of failures."""
    yield client(llmock.base_url(), request_seconds=3.0)
    llmock.assert_resilient()


def test_rate_limits_are_respected(llmock: Any, asked: ChatClient) -> None:
    """Two refusals with Retry-After: waited for, as llmock's own clock sees it, then answered."""
    llmock.rate_limit(times=2, retry_after=0.3)
    llmock.reply("fine", times=None)
    assert asked.complete(HELLO, None).text == "fine"


def test_errors_of_the_server_are_survived(llmock: Any, asked: ChatClient) -> None:
    """500 and 503 are tried again."""
    llmock.fail(500)
    llmock.fail(503)
    llmock.reply("fine", times=None)
    assert asked.complete(HELLO, None).text == "fine"


def test_outage_ends_typed(llmock: Any, asked: ChatClient) -> None:
    """A provider that stays down is given up after a few attempts, not a storm of them."""
    llmock.outage()
    with pytest.raises(ServerFailed, match="5 attempts"):
        asked.complete(HELLO, None)


def test_context_overflow_is_recognised(llmock: Any, asked: ChatClient) -> None:
    """The provider's own words for too long a prompt are understood."""
    llmock.context_overflow(times=None)
    with pytest.raises(ContextExceeded):
        asked.complete(HELLO, None)


@pytest.mark.parametrize("kind", ["malformed_arguments", "unknown_tool"])
def test_broken_tool_calls_arrive_as_they_are(llmock: Any, asked: ChatClient, kind: str) -> None:
    """Arguments that are no JSON, a tool that was never offered: handed on, for the proposer to reply to."""
    llmock.break_tool_call(kind)
    answer = asked.complete([{"role": "user", "content": "please call submit"}], tools())
    assert len(answer.calls) == 1
