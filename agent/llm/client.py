"""One question to an OpenAI-compatible server: with a deadline, retries, and a memory of what the server refuses.

Answers are never streamed: a cut stream looks like a finished one. The body is read here, not by the openai package,
because servers send HTML, errors and nothing at all with status 200.
"""

from __future__ import annotations

import email.utils
import importlib
import json
import math
import re
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar, cast

import openai

from agent.config import SearchConfig
from agent.errors import UsageError
from agent.llm.answers import Answer, BadBody, parse_answer
from agent.llm.errors import AccessRefused, ContextExceeded, ModelUnknown, OutOfTime, ServerFailed, ToolsRefused
from agent.llm.settings import ModelSettings, key_or_placeholder, model_settings
from agent.secrets import KEY_VARIABLE, read_key, scrub, without_key

Message = dict[str, Any]
"""One message of Chat Completions. Reasoning stands under `reasoning`; the client sends it where it is wanted."""

ATTEMPTS = 5
LONGEST_WAIT = 120.0  # seconds: a server that asks for more will not be waited for
_CHECK_SECONDS = 20.0
_MAX_BODY = 16 * 1024 * 1024  # bytes
_RETRYABLE = {408, 409, 425, 429}  # and 5xx: the same request may succeed later
_CONTEXT = re.compile(
    r"context[ _-]?(length|size|window)|maximum context|exceed_context|too many tokens|prompt is too long"
    r"|reduce the length|input is too long|token limit",
    re.IGNORECASE,
)
_TOOLS = re.compile(r"\btools?\b|tool_choice|function.?call", re.IGNORECASE)

T = TypeVar("T")


class Model(Protocol):
    """Answers a conversation: a server, or a script that ships in the package."""

    def complete(self, messages: list[Message], tools: list[dict[str, Any]] | None) -> Answer:
        """The answer. Raises ServerFailed, OutOfTime, ContextExceeded or ToolsRefused."""
        ...


class _Retryable(Exception):
    """This attempt failed and another may succeed. `wait`: seconds that the server asked for."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


@dataclass(frozen=True)
class ServerCapabilities:
    """What this server and model accept. Each refusal switches one thing off for all later requests."""

    limit_name: str | None = "max_tokens"
    seed: bool = True
    temperature: bool = True
    echo_reasoning: bool = True


class ChatClient:
    """A model behind a server. Use one client per thread."""

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
        self._client = openai.OpenAI(
            api_key=self._key, base_url=settings.base_url, max_retries=0, timeout=settings.request_seconds
        )

    def check(self) -> bool:
        """Ask for the list of models, which costs nothing: True when the server knew us and answered it properly.

        False when the server has no such list, so that only a real question can tell. Raises AccessRefused for a key
        that is refused, ServerFailed when nobody is there.
        """
        try:
            return self._with_retries(lambda: self._once(self._list_models, _CHECK_SECONDS), attempts=2)
        except openai.APIStatusError:
            return False
        except ServerFailed as error:
            absent = isinstance(error.__cause__, openai.APIConnectionError | TimeoutError)
            if absent or isinstance(error, AccessRefused):
                raise
            return False

    def complete(self, messages: list[Message], tools: list[dict[str, Any]] | None) -> Answer:
        """See `Model.complete`."""
        start = time.monotonic()
        answer = self._with_retries(lambda: self._adapt_and_send(messages, tools), attempts=ATTEMPTS)
        return replace(answer, seconds=round(time.monotonic() - start, 3))

    # -- again, when it was bad luck ------------------------------------------------------------------------------

    def _with_retries(self, request: Callable[[], T], attempts: int) -> T:
        for attempt in range(1, attempts + 1):
            try:
                return request()
            except _Retryable as bad:
                wait = self._first_wait * 2 ** (attempt - 1) if bad.wait is None else bad.wait
                if attempt == attempts:
                    times = f" ({attempts} attempts)" if attempts > 1 else ""
                    raise ServerFailed(f"{self._settings.base_url}: {bad}{times}") from bad.__cause__
                if wait > LONGEST_WAIT:
                    raise ServerFailed(
                        f"{self._settings.base_url}: {bad}; it asks to wait {wait:.0f} s, which is too long"
                    ) from bad.__cause__
                if wait > self._seconds_left():
                    raise OutOfTime(f"the search's time ended while waiting for {self._settings.base_url}") from None
                self._say(f"the model's server: {bad}; asking again in {wait:.3g} s")
                time.sleep(wait)
        raise AssertionError("unreachable")

    # -- one request, without what the server refuses --------------------------------------------------------------

    def _adapt_and_send(self, messages: list[Message], tools: list[dict[str, Any]] | None) -> Answer:
        while True:
            before = self._capabilities
            try:
                return self._once(lambda: self._ask(messages, tools))
            except openai.APIStatusError as error:
                self._learn(self._said(error), bool(tools), error)
            except BadBody as bad:
                if _CONTEXT.search(bad.about):
                    self._learn(bad.about, bool(tools), bad)
                else:
                    raise _Retryable(self._clean(str(bad))) from None
            assert self._capabilities != before

    def _learn(self, said: str, tools: bool, error: Exception) -> None:
        """Change what the next attempt sends, or raise what the refusal means."""
        capabilities = self._capabilities
        if capabilities.limit_name and capabilities.limit_name in said:
            # The name is what most servers know; the newest models refuse it in favour of another one.
            other = capabilities.limit_name == "max_tokens" and "max_completion_tokens" in said and "large" not in said
            self._capabilities = replace(capabilities, limit_name="max_completion_tokens" if other else None)
        elif capabilities.seed and re.search(r"\bseed\b", said):
            self._capabilities = replace(capabilities, seed=False)
        elif capabilities.temperature and self._settings.temperature is not None and "temperature" in said:
            self._capabilities = replace(capabilities, temperature=False)
        elif capabilities.echo_reasoning and "reasoning" in said:
            self._capabilities = replace(capabilities, echo_reasoning=False)
        elif _CONTEXT.search(said):
            if not capabilities.limit_name:
                raise ContextExceeded(self._clean(said)) from error
            # Room is wanted for the answer, too: try once without reserving any.
            self._capabilities = replace(capabilities, limit_name=None)
        elif tools and _TOOLS.search(said):
            raise ToolsRefused(self._clean(said)) from error
        else:
            raise ServerFailed(f"{self._settings.base_url} refuses the request: {self._clean(said)}") from error

    def _once(self, request: Callable[[], T], most: float = math.inf) -> T:
        """One attempt within the deadline. Raises _Retryable, ServerFailed, or an APIStatusError to learn from."""
        left = self._seconds_left()
        if left <= 0:
            raise OutOfTime("the search's time has ended")
        seconds = min(self._settings.request_seconds, left, most)
        try:
            return _within(seconds, request)
        except openai.APIStatusError as error:
            judged = self._judged(error)
            if judged is None:
                raise
            raise judged from error
        except TimeoutError as error:
            raise _Retryable(f"no answer within {seconds:.0f} s") from error
        except openai.APIConnectionError as error:
            raise _Retryable(f"no connection ({_root(error)})") from error
        except _TRANSPORT as error:
            raise _Retryable(f"the answer broke off ({self._clean(_root(error))})") from error
        except ValueError as error:  # the openai package decodes bodies in some places, and says so with ValueErrors
            raise _Retryable(f"the answer cannot be read ({self._clean(str(error))})") from error

    def _judged(self, error: openai.APIStatusError) -> Exception | None:
        """What the status means, or None when the server says what it does not like about the request."""
        said, status = self._said(error), error.status_code
        where, quoted = self._settings.base_url, self._clean(said)
        if status in (401, 403):
            return AccessRefused(f"{where} refuses the key in {KEY_VARIABLE} ({status}: {quoted})")
        if status in (404, 500, 501) and _TOOLS.search(said):
            return None
        if status == 404:
            return ModelUnknown(f"{where} does not know {self._settings.model!r} ({status}: {quoted})")
        if status == 429 and "insufficient_quota" in said:
            return ServerFailed(f"{where}: the account has no money left ({quoted})")
        if status == 500 and _CONTEXT.search(said):
            return None
        if status in _RETRYABLE or status >= 500:
            return _Retryable(f"status {status}: {quoted}", _retry_after(error.response.headers))
        if status in (400, 413, 422):
            return None
        return ServerFailed(f"{where}: status {status}: {quoted}")

    def _ask(self, messages: list[Message], tools: list[dict[str, Any]] | None) -> Answer:
        settings, capabilities = self._settings, self._capabilities
        request: dict[str, Any] = {"model": settings.model, "messages": [self._on_wire(one) for one in messages]}
        if tools:
            request["tools"] = tools
        if capabilities.limit_name:
            request[capabilities.limit_name] = settings.answer_tokens
        if capabilities.seed:
            request["seed"] = settings.seed
        if capabilities.temperature and settings.temperature is not None:
            request["temperature"] = settings.temperature
        create = cast(Any, self._client.chat.completions.with_streaming_response.create)
        deadline = time.monotonic() + settings.request_seconds
        with create(**request) as response:
            body = self._read(response.iter_bytes(), deadline)
        return parse_answer(without_key(body, self._key), sent_characters=len(json.dumps(request["messages"])))

    def _on_wire(self, message: Message) -> Message:
        """The message as this server accepts it: with the reasoning in the field it came in, or without reasoning."""
        plain = {name: value for name, value in message.items() if name not in ("reasoning", "reasoning_field")}
        wanted = message.get("reasoning_field") == "reasoning_content" and message.get("tool_calls")
        if wanted and self._capabilities.echo_reasoning:
            plain["reasoning_content"] = message["reasoning"]
        return plain

    def _list_models(self) -> bool:
        deadline = time.monotonic() + _CHECK_SECONDS
        with self._client.models.with_streaming_response.list() as response:
            body = self._read(response.iter_bytes(), deadline)
        try:
            return isinstance(json.loads(body)["data"], list)
        except (ValueError, KeyError, TypeError, RecursionError):
            return False

    def _read(self, chunks: Any, deadline: float) -> str:
        """The body, unless it comes too slowly or does not end."""
        parts, size = [], 0
        for chunk in chunks:
            parts.append(chunk)
            size += len(chunk)
            if size > _MAX_BODY:
                raise _Retryable(f"an answer of more than {_MAX_BODY:,} bytes")
            if time.monotonic() > deadline:
                raise TimeoutError
        return b"".join(parts).decode("utf-8", "replace")

    def _said(self, error: openai.APIStatusError) -> str:
        """The server's own words about an error, whatever shape they have."""
        body = error.body if error.body is not None else error.response.text
        return body if isinstance(body, str) else json.dumps(body, ensure_ascii=False, default=str)

    def _clean(self, text: str) -> str:
        flat = " ".join(scrub(text[:4000], self._key).split())
        return flat[:300] + ("…" if len(flat) > 300 else "")


def contact(config: SearchConfig, environ: Mapping[str, str]) -> bool:
    """See `ChatClient.check`, for the server of a search. Raises UsageError: nothing was started yet."""
    settings = model_settings(config, environ)
    try:
        return ChatClient(settings, environ).check()
    except ServerFailed as error:
        hint = "" if read_key(environ) or not isinstance(error, AccessRefused) else f"; {KEY_VARIABLE} is not set"
        raise UsageError(f"{error}{hint}") from None


def _within(seconds: float, work: Callable[[], T]) -> T:
    """`work()`, given up after `seconds`: the package's own timeout counts each read anew. Raises TimeoutError.

    A thread that is given up ends with its next read; it holds nothing that anybody waits for.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as error:  # noqa: BLE001 - it is raised again where the answer is awaited
            future.set_exception(error)

    threading.Thread(target=run, name="model request", daemon=True).start()
    return future.result(timeout=seconds)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from `Retry-After-Ms` or `Retry-After` (seconds or a date); None when there is no usable one."""
    for name, divisor in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) / divisor
        except ValueError:
            continue
        return seconds if math.isfinite(seconds) and seconds >= 0 else None
    parsed = email.utils.parsedate_tz(headers.get("retry-after", ""))
    return max(0.0, email.utils.mktime_tz(parsed) - time.time()) if parsed else None


def _root(error: BaseException) -> str:
    """The first cause in a chain of exceptions; its text says more than `Connection error.`."""
    while error.__cause__ is not None or (error.__context__ is not None and not error.__suppress_context__):
        error = cast(BaseException, error.__cause__ or error.__context__)
    return str(error) or type(error).__name__


def _transport_errors() -> tuple[type[Exception], ...]:
    """The errors of the HTTP library below the openai package: httpx for version 2, httpx2 for version 3."""
    found: list[type[Exception]] = [OSError]
    for name in ("httpx2", "httpx"):
        try:
            found.append(importlib.import_module(name).HTTPError)
        except ImportError:
            continue
    return tuple(found)


_TRANSPORT = _transport_errors()
