"""Server-sent events: one watcher per run, however many pages are open, that tells them what has changed.

`live` carries the live part as HTML. `page` carries the version of the page: a reader with another one loads it again.
A new reader gets both at once, so a page that was opened late, or has lost its connection, shows what is true.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from starlette.concurrency import run_in_threadpool

from agent.errors import AgentError
from agent.runs.directory import RunDirectory
from agent.runs.live import LiveReader
from agent.runs.state import RunState
from agent.web.live_view import live_html
from agent.web.run_page import RunPages
from agent.web.shelf import Shelf, Signature, live_stat, read_state, signature_of

_EVERY = 1.0
"""Seconds between two looks at the files."""
_REFRESH = 5.0
"""Seconds after which the live part is made again although nothing was written: times go on."""
_ALIVE = 15.0
_SHARE = 25
"""A page is made again at the earliest after so many times the seconds that making it took: 4 % of a core."""
_LONGEST_WAIT = 60.0


class Watched(Protocol):
    """What a feed looks at. Called in a thread."""

    def look(self) -> tuple[str, str, float, object]:
        """(live part, version of the page, seconds that the page takes to make, what must be told at once)."""


class RunWatched:
    """A run."""

    def __init__(self, run: RunDirectory, pages: RunPages) -> None:
        self._run = run
        self._pages = pages
        self._reader = LiveReader(run.path)
        self._signature: Signature | None = None
        self._state: RunState | None = None
        self._seen: object = None
        self._html = ""
        self._made = 0.0

    def look(self) -> tuple[str, str, float, object]:
        """See `Watched`. That a process begins or ends is told at once."""
        signature, now = signature_of(self._run), time.monotonic()
        if signature != self._signature:
            self._signature = signature
            try:
                self._state = read_state(self._run)
            except AgentError:
                self._state = None
            self._made = 0.0
        if self._state is None or not self._state.running:
            self._html = ""
        elif (seen := live_stat(self._run)) != self._seen or now - self._made > _REFRESH:
            self._seen, self._made = seen, now
            self._reader.read()
            self._html = live_html(self._reader.state, self._state)
        urgent = (self._state is not None and self._state.running, self._pages.processes(self._run))
        return self._html, self._pages.version(self._run), self._pages.seconds, urgent


class ShelfWatched:
    """The list of runs."""

    def __init__(self, shelf: Shelf, version: Callable[[Signature], str]) -> None:
        self._shelf = shelf
        self._version = version

    def look(self) -> tuple[str, str, float, object]:
        """See `Watched`."""
        return "", self._version(self._shelf.signature()), 0.2, None


class Feed:
    """Looks at one thing while anybody listens, and tells all listeners."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        self._listeners: set[asyncio.Event] = set()
        self._task: asyncio.Task[None] | None = None
        self._live: str | None = None
        self._version = ""
        self._next_version = 0.0

    async def listen(self) -> AsyncIterator[str]:
        """The stream for one listener."""
        changed = asyncio.Event()
        self._listeners.add(changed)
        if self._task is None:
            self._task = asyncio.create_task(self._watch())
        live, version = None, ""
        try:
            yield "retry: 2000\n\n"
            while True:
                if self._live is not None and self._live != live:
                    live = self._live
                    yield f"event: live\ndata: {json.dumps(live)}\n\n"
                if self._version != version:
                    version = self._version
                    yield f"event: page\ndata: {json.dumps(version)}\n\n"
                changed.clear()
                try:
                    await asyncio.wait_for(changed.wait(), _ALIVE)
                except TimeoutError:
                    yield ": alive\n\n"
        finally:
            self._listeners.discard(changed)
            if not self._listeners and self._task is not None:
                self._task.cancel()
                self._task, self._live, self._version = None, None, ""  # what was true is not what is true

    async def _watch(self) -> None:
        urgent: object = None
        while True:
            with contextlib.suppress(OSError):
                live, version, seconds, now = await run_in_threadpool(self._watched.look)
                if version != self._version and (now != urgent or time.monotonic() >= self._next_version):
                    self._version, urgent = version, now
                    self._next_version = time.monotonic() + min(_LONGEST_WAIT, _SHARE * seconds)
                self._live = live
                for listener in self._listeners:
                    listener.set()
            await asyncio.sleep(_EVERY)
