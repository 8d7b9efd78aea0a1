"""Calls of a session in a process of their own, which outlives whoever began them, and waiting for their replies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import AgentError
from agent.sessions.replies import SessionReply, StillRunning
from agent.sessions.session import Session
from benchmark.files import open_plain, read_plain
from benchmark.tasks import is_task_file

if TYPE_CHECKING:
    from agent.engine.resuming import Allowed

LOG = "session.log"
"""What processes in the background say, in the run directory."""
_MAX_LOG_BYTES = 2**24
_POLL_SECONDS = 0.1
_TAIL = 4000


def begin_test(session: Session, region: str | None = None) -> SessionReply | StillRunning:
    """Begin a test of `region` (default: of the folder's file) in the background.

    Returns as soon as the call stands in the log: its reply if it was refused or repeated at once. Raises
    OutsideChanged, SessionEnded, and AgentError with what the process said if it ended without a reply.
    """
    session.require_going_on()
    region = session.folder.region() if region is None and session.folder is not None else region
    return begin(session, "test", region=region)


def begin(session: Session, tool: str, **arguments: object) -> SessionReply | StillRunning:
    """Begin `test` (region), `screen` (candidates) or `submit` (n) in the background; see `begin_test`."""
    session.require_going_on()
    before = len(session.fold().calls)
    worker = DetachedCall(session, {"tool": tool, **arguments})
    while True:
        ended = worker.poll()
        folded = session.fold()
        calls = [*(found.call for found in folded.calls), *([folded.pending] if folded.pending else [])][before:]
        if any(call.tool == tool for call in calls) and (running := session.running(folded)) is not None:
            return running
        if ended is not None:
            return _reply_of(worker, session)
        time.sleep(_POLL_SECONDS)


def finish_in_background(session: Session) -> DetachedCall:
    """Measure the baseline, or finish what a killed command began, in a detached process."""
    return DetachedCall(session, {"tool": None})


def wait_for_reply(
    session: Session, timeout: float | None = None, *, allowed: Callable[[], Allowed] | None = None
) -> SessionReply | StillRunning | None:
    """Wait until nothing runs, at most `timeout` seconds: the reply of the last test, screen or submit, or None.

    Takes no lock. Where a killed process left something unfinished, another one goes on with it, with what `allowed`
    allows then (default: what the session was opened with).
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    worker: DetachedCall | None = None
    idle = 0
    while True:
        folded = session.fold()
        running = session.running(folded)
        if running is None and not session.run.is_held:
            return session.last_reply()
        if not session.run.is_held:
            if worker is not None and worker.poll() is not None:
                return _reply_of(worker, session)
            idle += 1
            if worker is None and idle > 2:  # the lock is free for an instant between two commands
                session = session if allowed is None else replace(session, allowed=allowed())
                worker = DetachedCall(session, {"tool": None})
        if deadline is not None and time.monotonic() >= deadline:
            return running or StillRunning("another command", 0.0)
        time.sleep(_POLL_SECONDS)


class DetachedCall:
    """A detached process. It says what it does in `LOG`."""

    def __init__(self, session: Session, order: Mapping[str, Any]) -> None:
        self.run = session.run
        allowed = session.allowed
        order = {
            **order,
            "run": str(session.run.path),
            "folder": None if session.folder is None else str(session.folder.path),
            "allow_unsandboxed": allowed is not None and allowed.allow_unsandboxed,
            "download": allowed is not None and allowed.download,
            "profile": None if allowed is None or allowed.profile is None else _from_anywhere(allowed.profile),
            "data_root": None if allowed is None or allowed.data_root is None else str(allowed.data_root.absolute()),
        }
        root = Path(__file__).resolve().parents[2]
        paths = [str(root), os.environ.get("PYTHONPATH", "")]
        log = open_plain(self.run.path, LOG, flags=os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            self._begin = os.fstat(log).st_size
            self._process = subprocess.Popen(
                # -P: a module that lies in the session's folder must not take the place of one of ours.
                [sys.executable, "-P", "-m", "agent.sessions.worker"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self.run.path,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
                start_new_session=True,
            )
        finally:
            os.close(log)
        assert self._process.stdin is not None
        with self._process.stdin as stdin:
            stdin.write(json.dumps(order).encode())

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._process.poll()

    @property
    def error(self) -> AgentError:
        """Why it ended without a reply: the last line that it said, and its exit code."""
        code = self.poll()
        lines = self.said.strip().splitlines()
        silent = (
            f"the process ended with exit code {code} and could say nothing in {self.run.path / LOG}; is the disk full?"
        )
        error = AgentError(lines[-1].removeprefix("error: ") if lines else silent)
        error.exit_code = code if code is not None and code > 0 else 1
        return error

    @property
    def said(self) -> str:
        """The end of what it said."""
        try:
            return read_plain(self.run.path, LOG, limit=_MAX_LOG_BYTES)[self._begin :][-_TAIL:].decode(errors="replace")
        except OSError:
            return ""


def _from_anywhere(profile: str) -> str:
    """The profile as a process in another folder names it."""
    return str(Path(profile).absolute()) if is_task_file(profile) else profile


def _reply_of(worker: DetachedCall, session: Session) -> SessionReply:
    """The reply that a finished worker's call has in the log. Raises AgentError when it failed."""
    reply = session.last_reply()
    if worker.poll() == 0 and reply is not None:
        return reply
    raise worker.error
