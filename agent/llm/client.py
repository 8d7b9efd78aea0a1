"""The client of an OpenAI-compatible server: deadlines, retries after growing pauses, requests without what it refuses.

Answers are not streamed, unless the server insists: an interrupted stream looks like a finished one. The body is read
here and not by the openai package, because some servers send HTML, errors or nothing with status 200.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol, TypeVar, cast

import openai

from agent.llm.answers import Answer, BadBody, failed_generation, parse_answer
from agent.llm.capabilities import (
    Message,
    ServerCapabilities,
    speaks_of_context,
    speaks_of_roles,
    speaks_of_tools,
)
from agent.llm.errors import AccessRefused, ContextExceeded, ModelUnknown, OutOfTime, ServerFailed, ToolsRefused
from agent.llm.retry_after import asked_to_wait
from agent.llm.settings import ModelSettings, key_or_placeholder
from agent.llm.transport import TRANSPORT_ERRORS, lost_request, root_message, within
from agent.secrets import KEY_VARIABLE, scrub, without_key

ATTEMPTS = 5
PATIENT_ATTEMPTS = 8
"""Attempts when the server is busy or still loads the model; with the waits this takes a minute and a half."""
_LONGEST_OWN_WAIT = 32.0  # seconds, when the server does not say how long to wait
LONGEST_WAIT = 120.0  # seconds; when a server asks for more, the request fails
_CHECK_SECONDS = 20.0
_MAX_BODY = 16 * 1024 * 1024  # bytes
_RETRYABLE = {408, 409, 424, 425, 429, 498}  # and 5xx: the same request may succeed later
_BUSY = re.compile(r"loading|warming up|starting up|overload|\bbusy\b|capacity|high (?:demand|load|traffic)", re.I)
_TOO_LARGE = re.compile(r"request (?:is )?too large", re.IGNORECASE)
_ABOUT_KEY = re.compile(r"\bapi[ _-]?key\b", re.IGNORECASE)
T = TypeVar("T")


class Model(Protocol):
    """Answers a conversation: a server, or the script in the package."""

    def complete(self, messages: list[Message], tools: list[dict[str, Any]] | None) -> Answer:
        """The answer. Raises ServerFailed, OutOfTime, ContextExceeded or ToolsRefused."""
        ...


class _Retryable(Exception):
    """This attempt failed, but another may succeed.

    `wait`: seconds that the server asked to wait. `busy`: the server will answer later, so more attempts make sense.
    """

    def __init__(self, message: str, wait: float | None = None, *, busy: bool = False) -> None:
        super().__init__(message)
        self.wait = wait
        self.busy = busy


class ChatClient:
    """The model on a server. Not thread-safe."""

    def __init__(
        self,
        settings: ModelSettings,
        environ: Mapping[str, str],
        *,
        say: Callable[[str], None] = lambda text: None,
        seconds_left: Callable[[], float] = lambda: math.inf,
        first_wait: float = 1.0,
    ) -> None:
        self._settings = settings
        self._key = key_or_placeholder(environ)
        self._say = say
        self._seconds_left = seconds_left
        self._first_wait = first_wait
        self._capabilities = ServerCapabilities()
        self._answered = 0  # characters of the longest request that was answered
        self._shortened = False  # whether a refusal without a known reason was treated as "too long"
        self._client = openai.OpenAI(
            api_key=self._key, base_url=settings.base_url, max_retries=0, timeout=settings.request_seconds
        )

    def models(self) -> list[str] | None:
        """The names of the server's models, at no cost; None when the server has no such list.

        Raises AccessRefused for a refused key, ServerFailed when no server answers.
        """
        try:
            return self._with_retries(lambda: self._once(self._list_models, _CHECK_SECONDS), attempts=2)
        except openai.APIStatusError:
            return None
        except ServerFailed as error:
            absent = isinstance(error.__cause__, openai.APIConnectionError | TimeoutError)
            if absent or isinstance(error, AccessRefused):
                raise
            return None

    def accepts_key(self) -> bool:
        """Send an empty request, which costs nothing. True when the server accepts the key and refuses the empty list.

        The list of models may be public, so only a request shows whether the key is accepted. False when the answer
        does not show it. Raises AccessRefused, ModelUnknown.
        """
        try:
            body = self._once(lambda: self._send({"model": self._settings.model, "messages": []}), _CHECK_SECONDS)
        except openai.APIStatusError as error:
            if _ABOUT_KEY.search(said := self._said(error)):  # Google's answer to a wrong key is 400
                raise AccessRefused(self._refused_key(error.status_code, self._clean(said))) from error
            return error.status_code in (400, 422)
        except (AccessRefused, ModelUnknown):
            raise
        except (_Retryable, BadBody, ServerFailed):
            return False
        if body.lstrip().startswith("<"):
            raise ServerFailed(
                f"{self._settings.base_url} answers with a web page: it is not the address of a model's server"
            )
        return True

    def answers_a_question(self) -> bool:
        """Ask a question of a few tokens, once. False when the server is busy, breaks off or takes too long.

        Raises ServerFailed when it refuses the question.
        """
        try:
            self._adapt_and_send([{"role": "user", "content": "Answer with the word yes."}], None)
        except (_Retryable, ContextExceeded):
            return False
        return True

    def complete(self, messages: list[Message], tools: list[dict[str, Any]] | None) -> Answer:
        """See `Model.complete`."""
        start = time.monotonic()
        answer = self._with_retries(lambda: self._adapt_and_send(messages, tools), attempts=ATTEMPTS)
        self._answered = max(self._answered, _characters(messages))
        self._shortened = False
        return replace(answer, seconds=round(time.monotonic() - start, 3))

    # -- retries ------------------------------------------------------------------------------------------------

    def _with_retries(self, request: Callable[[], T], attempts: int) -> T:
        attempt = 0
        while True:
            attempt += 1
            try:
                return request()
            except _Retryable as bad:
                last = max(attempts, PATIENT_ATTEMPTS) if bad.busy and attempts > 2 else attempts
                own = min(self._first_wait * 2 ** (attempt - 1), _LONGEST_OWN_WAIT)
                wait = max(own, bad.wait or 0.0)  # a server that says "250 ms" to everybody would use up all attempts
                if attempt >= last:
                    times = f" ({attempt} attempts)" if attempt > 1 else ""
                    raise ServerFailed(f"{self._settings.base_url}: {bad}{times}") from bad.__cause__
                if wait > LONGEST_WAIT:
                    raise ServerFailed(
                        f"{self._settings.base_url}: {bad}; it asks to wait {wait:.0f} s, which is too long"
                    ) from bad.__cause__
                if wait > self._seconds_left():
                    raise OutOfTime(f"the search's time ended while waiting for {self._settings.base_url}") from None
                self._say(f"the model's server: {bad}; asking again in {wait:.3g} s")
                time.sleep(wait)

    # -- one request, without what the server refuses --------------------------------------------------------------

    def _adapt_and_send(self, messages: list[Message], tools: list[dict[str, Any]] | None) -> Answer:
        tried = {self._capabilities}
        while True:
            try:
                return self._once(lambda: self._ask(messages, tools))
            except openai.APIStatusError as error:
                if (answer := failed_generation(error.body, _characters(messages))) is not None:
                    return answer
                self._learn(self._said(error), messages, tools, error)
            except BadBody as bad:
                if not speaks_of_context(bad.about):
                    wait = asked_to_wait({}, bad.whole)
                    raise _Retryable(self._clean(str(bad)), wait, busy=bad.busy) from None
                self._learn(bad.about, messages, tools, bad)
            if self._capabilities in tried:
                raise ServerFailed(f"{self._settings.base_url} contradicts itself about what it accepts")
            tried.add(self._capabilities)

    def _learn(self, said: str, messages: list[Message], tools: list[dict[str, Any]] | None, error: Exception) -> None:
        """Change what the next attempt sends, or raise the error that the refusal means."""
        shown = self._clean(said)
        temperature = self._settings.temperature is not None
        try:
            learned = self._capabilities.after_refusal(
                said, tools=bool(tools), temperature=temperature, answer_tokens=self._settings.answer_tokens
            )
        except (ContextExceeded, ToolsRefused) as meant:
            raise type(meant)(shown) from error
        if learned is not None:
            self._capabilities = learned
            return
        status = error.status_code if isinstance(error, openai.APIStatusError) else 200
        longer = 0 < self._answered < _characters(messages)
        # Some servers do not say that the context is full. If the status means "too large", or if a shorter request
        # succeeded, a shorter request is tried once.
        if not self._shortened and (status == 413 or (status == 400 and longer)):
            self._shortened = True
            raise ContextExceeded(shown or f"status {status} without a word") from error
        raise ServerFailed(f"{self._settings.base_url} refuses the request: {shown or f'status {status}'}") from error

    def _once(self, request: Callable[[], T], most: float = math.inf) -> T:
        """One attempt within the deadline. Raises _Retryable, ServerFailed, or an APIStatusError to learn from."""
        left = self._seconds_left()
        if left <= 0:
            raise OutOfTime("the search's time has ended")
        seconds = min(self._settings.request_seconds, left, most)
        try:
            return within(seconds, request)
        except openai.APIStatusError as error:
            judged = self._judged(error)
            if judged is None:
                raise
            raise judged from error
        except TimeoutError as error:
            raise _Retryable(f"no answer within {seconds:.0f} s") from error
        except openai.APIConnectionError as error:
            raise _Retryable(f"no connection ({root_message(error)})") from error
        except TRANSPORT_ERRORS as error:
            raise _Retryable(f"the answer broke off ({self._clean(root_message(error))})") from error
        except ValueError as error:  # the openai package decodes some bodies itself and raises ValueErrors
            raise _Retryable(f"the answer cannot be read ({self._clean(str(error))})") from error

    def _judged(self, error: openai.APIStatusError) -> Exception | None:
        """The error that the status means; None when the server refused a detail of the request."""
        said, status = self._said(error), error.status_code
        where, quoted = self._settings.base_url, self._clean(said)
        if other := lost_request(error.response):
            return self._redirected(other)
        if status in (401, 403):
            return AccessRefused(self._refused_key(status, quoted))
        if status in (404, 500, 501) and speaks_of_tools(said):
            return None
        if status == 404 and quoted.startswith("<"):
            return ModelUnknown(
                f"{where} answers with a web page ({status}): it is not the address of a model's server"
            )
        if status == 404:
            return ModelUnknown(f"{where} does not know {self._settings.model!r} ({status}: {quoted})")
        if status == 429 and "insufficient_quota" in said:
            return ServerFailed(f"{where}: the account has no money left ({quoted})")
        if status == 500 and (speaks_of_context(said) or speaks_of_roles(said) or failed_generation(error.body)):
            return None
        if status == 429 and _TOO_LARGE.search(said):  # larger than the limit of a minute: it will be refused for ever
            return None
        if status in _RETRYABLE or status >= 500:
            busy = status in (429, 498, 529) or (status == 503 and _BUSY.search(said) is not None)
            return _Retryable(f"status {status}: {quoted}", asked_to_wait(error.response.headers, said), busy=busy)
        if status in (400, 413, 422) or (status == 402 and "max_tokens" in said):
            return None
        return ServerFailed(f"{where}: status {status}: {quoted}")

    def _ask(self, messages: list[Message], tools: list[dict[str, Any]] | None) -> Answer:
        settings, capabilities = self._settings, self._capabilities
        request: dict[str, Any] = {"model": settings.model, "messages": capabilities.shaped(messages)}
        if tools:
            request["tools"] = tools
        if capabilities.limit_name:
            request[capabilities.limit_name] = min(
                settings.answer_tokens, capabilities.most_tokens or settings.answer_tokens
            )
        if capabilities.stream:
            request["stream"] = True
        if capabilities.seed:
            request["seed"] = settings.seed
        if capabilities.temperature and settings.temperature is not None:
            request["temperature"] = settings.temperature
        return parse_answer(self._send(request), sent_characters=len(json.dumps(request["messages"])))

    def _send(self, request: dict[str, Any]) -> str:
        """The body of the server's answer, without the key."""
        create = cast(Any, self._client.chat.completions.with_streaming_response.create)
        deadline = time.monotonic() + self._settings.request_seconds
        with create(**request) as response:
            if other := lost_request(response.http_response):
                raise self._redirected(other)
            return without_key(self._read(response.iter_bytes(), deadline), self._key)

    def _list_models(self) -> list[str] | None:
        deadline = time.monotonic() + _CHECK_SECONDS
        with self._client.models.with_streaming_response.list() as response:
            body = self._read(response.iter_bytes(), deadline)
        try:
            found = json.loads(body)["data"]
            return [str(model["id"]) for model in found if isinstance(model, dict) and "id" in model]
        except (ValueError, KeyError, TypeError, RecursionError):
            return None

    def _read(self, chunks: Any, deadline: float) -> str:
        """Read the body. Raises _Retryable when it is too large, TimeoutError when it comes too slowly."""
        parts, size = [], 0
        for chunk in chunks:
            parts.append(chunk)
            size += len(chunk)
            if size > _MAX_BODY:
                raise _Retryable(f"an answer of more than {_MAX_BODY:,} bytes")
            if time.monotonic() > deadline:
                raise TimeoutError
        return b"".join(parts).decode("utf-8", "replace")

    def _redirected(self, url: str) -> ServerFailed:
        other = self._clean(url.partition("?")[0].removesuffix("/chat/completions"))
        return ServerFailed(
            f"{self._settings.base_url} sends questions on to another address in a way that loses them; give that one: "
            f"--base-url {other}"
        )

    def _refused_key(self, status: int, quoted: str) -> str:
        return f"{self._settings.base_url} refuses the key in {KEY_VARIABLE} ({status}: {quoted})"

    def _said(self, error: openai.APIStatusError) -> str:
        """The server's text about an error, in any format."""
        body = error.body if error.body is not None else error.response.text
        return body if isinstance(body, str) else json.dumps(body, ensure_ascii=False, default=str)

    def _clean(self, text: str) -> str:
        flat = " ".join(scrub(text[:4000], self._key).split())
        return flat[:300] + ("…" if len(flat) > 300 else "")


def _characters(messages: list[Message]) -> int:
    return sum(len(str(message.get("content") or "")) for message in messages)
