"""`--proposer command:CMD`: runs a coding agent in the folder of a session, and submits the best if it did not."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from agent.config import SearchConfig
from agent.engine.loop import End, EndStatus
from agent.engine.outcome import SearchOutcome, finished_outcome
from agent.engine.resuming import Allowed
from agent.engine.search import Search
from agent.errors import RunDamaged, UsageError
from agent.progress import Progress
from agent.runs.directory import RunDirectory
from agent.runs.events import Proposal, accuracies_by_role
from agent.runs.log import read_events
from agent.runs.status import RunStatus
from agent.secrets import is_secret, scrub, without_secrets
from agent.sessions.folder import TASK, VARIABLE, SessionFolder
from agent.sessions.live import live_session
from agent.sessions.session import Session
from benchmark.files import write_atomically
from sandbox.confine import die_with_parent

LOG = "command.log"
"""The command's output in the run directory: its beginning and its end, without keys."""
PREFIX = "command:"
_KEPT_BYTES = 2**18
"""Of the output, at its beginning and again at its end."""
_MARGIN = 4096
"""So many bytes more are kept until keys are removed, so that no key is cut in two."""
_GRACE_SECONDS = 10.0
_GRACE_AFTER_END_SECONDS = 60.0
"""A command that goes on after the session has ended is ended too."""
_POLL_SECONDS = 0.1
_IN_EVENT = 2000
"""Characters of the output's end that the log holds."""
_scratch = partial(tempfile.TemporaryDirectory, prefix="initsearch-session-", ignore_cleanup_errors=True)
"""A folder for the session, which is removed afterwards: the run holds all that was tested."""


@dataclass(frozen=True)
class CommandEnd:
    """How a command ended: `exit_code` (negative: the signal), None when the time limit ended it."""

    exit_code: int | None
    seconds: float
    output: str
    output_bytes: int

    @property
    def how(self) -> str:
        """One sentence."""
        return _how(self.exit_code)

    @property
    def end(self) -> End:
        """The end of a search that this command did not submit."""
        return _end(self.exit_code)


def search_by_command(
    config: SearchConfig,
    *,
    pass_env: Collection[str] = (),
    progress: Progress | None = None,
    launched: Callable[[Session], None] = lambda session: None,
) -> SearchOutcome:
    """Start a session in a scratch folder, run the command there, and end the session.

    The command inherits no key but the variables that `pass_env` names. Raises UsageError where its program is missing.
    """
    environ = environment_for(pass_env)
    with _scratch() as folder:
        session = Session.start(Path(folder), config, progress=progress, launched=launched)
        return _carry_on(session, config, environ, progress or Progress(), time.monotonic())


def resume_by_command(
    run: RunDirectory,
    allowed: Allowed,
    *,
    pass_env: Collection[str] = (),
    progress: Progress | None = None,
    launched: Callable[[Session], None] = lambda session: None,
) -> SearchOutcome:
    """Go on with such a search: the command is begun again, with the file as it was last recorded.

    A command whose end is in the log is not begun again. Raises UsageError unless `allowed` names the command too.
    """
    recorded = SearchConfig.model_validate(run.read_summary()["config"])
    if allowed.files.proposer != recorded.proposer:
        raise UsageError(
            f"{run.path}: its proposer is a program, {recorded.proposer}, that would run with all your rights; if you "
            f"would run it, give --proposer {recorded.proposer!r} again"
        )
    environ = environment_for(pass_env)
    with _scratch() as path:
        session = Session(run, None, allowed)
        launched(session)
        session.finish_begun(progress=progress)
        if _recorded_end(run) is None and not _is_over(run):
            folder = SessionFolder.create(Path(path), run, session.recorded_region())
            search = Search.resume(run, allowed=allowed)
            measured = accuracies_by_role(session.fold().baseline)
            folder.write_texts(search.config, search.profile, measured["baseline"], session.noise())
            session = Session(run, folder, allowed)
        return _carry_on(session, recorded, environ, progress or Progress(), time.monotonic())


def _carry_on(
    session: Session, config: SearchConfig, environ: Mapping[str, str], progress: Progress, begun: float
) -> SearchOutcome:
    run = session.run
    known = _recorded_end(run)
    if not _is_over(run) and known is None and session.folder is not None:
        command = config.proposer.removeprefix(PREFIX)
        progress.message(f"running the command in {session.folder.path}: {command}")
        deadline = None if config.max_seconds is None else begun + config.max_seconds
        ended = run_command(command, session, environ, deadline)
        with contextlib.suppress(OSError):
            write_atomically(run.path / LOG, ended.output.encode(errors="replace"))
        printed = f" What it printed is in {run.path / LOG}" if ended.output.strip() else ""
        progress.message(f"after {ended.seconds:.0f} s: {ended.how}{printed}")
        known = _Known(ended.end, ended)
    while run.is_held:  # a test that the command left in the background was paid, so it is finished
        time.sleep(_POLL_SECONDS)
    if not _is_over(run):
        assert known is not None
        _close(session, known, progress)
    return finished_outcome(run)[1]


@dataclass(frozen=True)
class _Known:
    """The end of the search's command; `fresh` unless the log had it already."""

    end: End
    fresh: CommandEnd | None = None


def release(run: RunDirectory, allowed: Allowed, progress: Progress | None = None) -> SearchOutcome:
    """Run the hidden task of a session that waits for a review, for `agent submit`."""
    search = Search.resume(run, release=True, allowed=allowed)
    with live_session(search, progress or Progress()) as live:
        if live.outcome is None:
            known = _recorded_end(run)
            if known is None:
                raise RunDamaged(f"{run.events}: nothing was submitted in this session")
            live.end_without_submission(known.end)
    return finished_outcome(run)[1]


def _close(session: Session, known: _Known, progress: Progress) -> None:
    search = Search.resume(session.run, allowed=session.allowed)
    with live_session(search, progress) as live:
        if live.outcome is not None:
            return
        if (fresh := known.fresh) is not None:
            content = {"exit_code": fresh.exit_code, "seconds": round(fresh.seconds, 1), "bytes": fresh.output_bytes}
            live.note(Proposal(proposer="command", content={**content, "output": fresh.output[-_IN_EVENT:]}))
        live.end_without_submission(known.end)


def _recorded_end(run: RunDirectory) -> _Known | None:
    """The command's end in the log, if it was recorded."""
    for record in read_events(run.events) if run.has(run.events.name) else []:
        if isinstance(record.event, Proposal) and record.event.proposer == "command":
            code = record.event.content.get("exit_code")
            return _Known(_end(code if isinstance(code, int) else None))
    return None


def _how(exit_code: int | None) -> str:
    if exit_code is None:
        return "The time limit was reached and the command was ended."
    return f"The command ended {f'by signal {-exit_code}' if exit_code < 0 else f'with exit code {exit_code}'}."


def _end(exit_code: int | None) -> End:
    status: EndStatus = "time" if exit_code is None else "tests_exhausted"
    return End(status, f"{_how(exit_code)} It submitted nothing.")


def _is_over(run: RunDirectory) -> bool:
    return RunStatus.of(run.read_summary()).over


# -- the process ------------------------------------------------------------------------------------------------------


def run_command(
    command: str, session: Session, environ: Mapping[str, str], deadline: float | None = None
) -> CommandEnd:
    """Run `command` by /bin/sh in the session's folder, with the task on stdin, until it ends.

    It is ended (SIGTERM, then SIGKILL, to its process group) at `deadline` (of time.monotonic), some time after the
    session has ended, and when this process is interrupted. Its output goes nowhere but into the result.
    """
    assert session.folder is not None
    folder = session.folder.path
    begun = time.monotonic()
    ended_since: float | None = None
    in_time = True
    with (folder / TASK).open("rb") as task:
        process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            cwd=folder,
            stdin=task,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**environ, VARIABLE: str(folder)},
            start_new_session=True,
            preexec_fn=partial(die_with_parent, os.getpid(), signal.SIGTERM) if sys.platform == "linux" else None,
        )
    assert process.stdout is not None
    kept = _Kept(process.stdout)
    try:
        while process.poll() is None:
            now = time.monotonic()
            if ended_since is None and _is_over(session.run):
                ended_since = now
            in_time = deadline is None or now < deadline
            if not in_time or (ended_since is not None and now - ended_since > _GRACE_AFTER_END_SECONDS):
                break
            time.sleep(_POLL_SECONDS)
    finally:
        code = _end_group(process)
        kept.close()
    text = kept.text(value for name, value in {**os.environ, **environ}.items() if is_secret(name))
    return CommandEnd(code if in_time else None, time.monotonic() - begun, text, kept.total)


def environment_for(pass_env: Collection[str]) -> dict[str, str]:
    """The variables of a command: all of ours without keys, those that `pass_env` names, and `agent` on the PATH.

    Raises UsageError for a name that is not set.
    """
    missing = [name for name in pass_env if name not in os.environ]
    if missing:
        raise UsageError(f"--pass-env {missing[0]}: this variable is not set")
    found = {**without_secrets(os.environ), **{name: os.environ[name] for name in pass_env}}
    ours = Path(sys.executable).parent
    if (ours / "agent").is_file():
        found["PATH"] = os.pathsep.join([str(ours), os.environ.get("PATH", os.defpath)])
    return found


class _Kept:
    """Reads a stream to its end in a thread and keeps its beginning and its end."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.total = 0
        self._stream = stream
        self._head = self._tail = b""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop waiting for more: a process that left the group may hold the stream open."""
        self._thread.join(timeout=2.0)

    def text(self, secrets: Iterable[str]) -> str:
        """What was kept, without these values and without anything that looks like a key."""
        head, tail = (part.decode(errors="replace") for part in (self._head, self._tail))
        for secret in secrets:
            head, tail = scrub(head, secret), scrub(tail, secret)
        head, tail = scrub(head, ""), scrub(tail, "")
        if self.total <= len(self._head):
            return head
        left_out = self.total - 2 * _KEPT_BYTES
        if left_out <= 0:
            return head[:_KEPT_BYTES] + tail[-(self.total - _KEPT_BYTES) :]
        return f"{head[:_KEPT_BYTES]}\n[{left_out:,} bytes left out]\n{tail[-_KEPT_BYTES:]}"

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            while chunk := os.read(self._stream.fileno(), 2**16):
                self.total += len(chunk)
                if (room := _KEPT_BYTES + _MARGIN - len(self._head)) > 0:
                    self._head += chunk[:room]
                self._tail = (self._tail + chunk)[-(_KEPT_BYTES + _MARGIN) :]


def _end_group(process: subprocess.Popen[bytes]) -> int:
    """End what is left of the command's process group, and return the command's exit code."""
    for number, seconds in ((signal.SIGTERM, _GRACE_SECONDS), (signal.SIGKILL, None)):
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()
