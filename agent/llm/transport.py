"""One request to a server: its deadline, and the errors of the HTTP library below the openai package."""

from __future__ import annotations

import importlib
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar, cast

T = TypeVar("T")
_NUMBER = re.compile(r"^\[Errno -?\d+\] ")


def within(seconds: float, work: Callable[[], T]) -> T:
    """Return `work()`, or raise TimeoutError after `seconds`. The openai package restarts its timeout at each read.

    After a timeout the thread ends at its next read. Nothing waits for it.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as error:  # noqa: BLE001 - the waiting thread raises it again
            future.set_exception(error)

    threading.Thread(target=run, name="model request", daemon=True).start()
    return future.result(timeout=seconds)


def root_message(error: BaseException) -> str:
    """The message of the first exception of a chain, without its number; it says more than `Connection error.`."""
    while error.__cause__ is not None or (error.__context__ is not None and not error.__suppress_context__):
        error = cast(BaseException, error.__cause__ or error.__context__)
    return _NUMBER.sub("", str(error)) or type(error).__name__


def lost_request(response: Any) -> str | None:
    """Where a redirect led that made a GET without a body of a request: HTTP does so for 301, 302 and 303."""
    first = response.history[0].request.method if response.history else response.request.method
    return None if first == response.request.method else str(response.request.url)


def _transport_errors() -> tuple[type[Exception], ...]:
    """The errors of the HTTP library below the openai package: httpx for version 2, httpx2 for version 3."""
    found: list[type[Exception]] = [OSError]
    for name in ("httpx2", "httpx"):
        try:
            found.append(importlib.import_module(name).HTTPError)
        except ImportError:
            continue
    return tuple(found)


TRANSPORT_ERRORS = _transport_errors()
"""Errors of a connection that broke off."""
