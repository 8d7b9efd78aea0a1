"""The session behind `agent mcp`: made at the first call that needs it, and shared by all clients of the server."""

from __future__ import annotations

import importlib.metadata
import threading
import time
from typing import TYPE_CHECKING, Any

from agent.config import SearchConfig
from agent.errors import RunBusy
from agent.llm.prompting import task_prompt
from agent.profiles import baseline_region, resolve_profile
from agent.protocol import Accuracies, Situation
from agent.runs.events import accuracies_by_role
from agent.runs.fold import edited
from agent.runs.recorded_noise import Noise
from agent.runs.status import RunStatus
from agent.sessions.background import DetachedCall, begin, begin_test, finish_in_background
from agent.sessions.replies import SessionEnded, SessionReply, StillRunning
from agent.sessions.session import Session
from agent.sessions.status import session_status, status_lines
from benchmark.tasks import Profile
from sandbox.region import SCAFFOLD_NAME, scaffold

if TYPE_CHECKING:
    from agent.evaluation.check import CheckReport

_POLL_SECONDS = 0.1
_COMMANDS = (
    ("agent session submit ", "submit n="),
    ("agent session screen FILE", "screen"),
    ("agent session restore", "rewrite"),
    ("agent session ", ""),
)


class SharedSession:
    """All methods block and may be called from any thread; those that change the run, one at a time.

    Clients start every server that they know when they start themselves, so nothing is made or trained before a tool
    is called. `session` is given where there is one already.
    """

    def __init__(self, config: SearchConfig | None = None, session: Session | None = None) -> None:
        self._config = config
        self._session = session
        self._chosen: Profile | None = None
        self._making = threading.Lock()
        self._worker: DetachedCall | None = None
        """Measures the baseline, or finishes what a killed process began."""

    @property
    def version(self) -> str:
        """The version of this program, for clients."""
        try:
            return importlib.metadata.version("initsearch")
        except importlib.metadata.PackageNotFoundError:
            return "0"

    @property
    def started(self) -> Session:
        """The session, whose baseline a process of its own measures when it is new. Raises UsageError."""
        with self._making:
            if self._session is None:
                assert self._config is not None
                self._session = Session.create(None, self._config)
                self._worker = finish_in_background(self._session)
            return self._session

    # -- calls -----------------------------------------------------------------------------------------------------

    def call(self, tool: str, **arguments: Any) -> SessionReply:
        """Carry out edit, rewrite or undo. Raises RunBusy, SessionEnded."""
        return self.started.call(tool, **arguments)

    def view(self) -> SessionReply:
        """The editable range. Without an entry in the log, while something runs and after the end."""
        session = self.started
        try:
            return session.call("view") if session.running() is None else self._seen(session)
        except (RunBusy, SessionEnded):
            return self._seen(session)

    def check(self) -> SessionReply:
        """The free checks, as a reply."""
        report: CheckReport = self.started.check()
        if report.accepted:
            text = f"OK: accepted on {', '.join(report.archs)} (isolation: {report.isolation_level})"
            return SessionReply("check", text)
        return SessionReply("check", f"ERROR: rejected ({report.kind}): {report.message}", ok=False, error=report.kind)

    def begin_test(self) -> SessionReply | StillRunning:
        """Begin a test of the present region in the background."""
        return begin_test(self.started)

    def begin_screen(self, candidates: list[str] | None) -> SessionReply | StillRunning:
        """Begin a look at each candidate, or at the present region."""
        session = self.started
        return begin(session, "screen", candidates=[self._region(session)] if candidates is None else candidates)

    def begin_submit(self, n: int) -> SessionReply | StillRunning:
        """Begin the submission of test `n`."""
        found = begin(self.started, "submit", n=n)
        return self._with_verdict(found) if isinstance(found, SessionReply) else found

    def wait(self, seconds: float) -> SessionReply | StillRunning | None:
        """The reply of what runs, or of the last test, screen or submit."""
        session, deadline = self.started, time.monotonic() + seconds
        while (found := self.running()) is not None or session.run.is_held:
            if time.monotonic() >= deadline:
                return found or StillRunning("another command", 0.0)
            time.sleep(_POLL_SECONDS)
        reply = session.last_reply()
        return None if reply is None else self._with_verdict(reply)

    def running(self) -> StillRunning | None:
        """What runs. Where a killed process left something, another one goes on with it.

        Raises AgentError with what that process said if it failed.
        """
        session = self.started
        found = session.running()
        if found is None or session.run.is_held:
            return found
        with self._making:
            if self._worker is not None and (code := self._worker.poll()) is not None:
                ended, self._worker = self._worker, None
                if code and session.running() is not None and not session.run.is_held:
                    raise ended.error
            elif self._worker is None:
                self._worker = finish_in_background(session)
        return found

    def status(self) -> tuple[str, dict[str, Any]]:
        """Where the session stands, in words and as an object; commands are named as tools."""
        found = session_status(self.started)
        data = found.as_json()
        data["next"] = [_as_tool(words.partition(" --profile ")[0]) for words in found.next]
        lines = [*status_lines(found), f"next: {', '.join(data['next'])}"]
        return _as_tool("\n".join(lines)), data

    def _with_verdict(self, found: SessionReply) -> SessionReply:
        """A submission's reply with what was found, which nothing hides any more once the session has ended."""
        summary = self.started.run.read_summary()
        words = summary.get("words")
        if found.submitted is None or not RunStatus.of(summary).finished or not isinstance(words, list):
            return found
        text = "\n\n".join([found.text, "\n".join(str(line) for line in words)])
        return SessionReply(found.tool, text, found.ok, found.error, found.test, found.submitted)

    # -- texts -----------------------------------------------------------------------------------------------------

    def file(self) -> str:
        """The file as it is now; the untouched one before the first call."""
        return scaffold().with_region(self._region(self._session)).text

    def task(self) -> str:
        """The task, with the baseline where it was measured. Makes no session."""
        session = self._session
        baseline: Accuracies = {}
        noise: Noise | None = None
        config = self._config
        if session is not None:
            config = SearchConfig.model_validate(session.run.read_summary()["config"])
            baseline, noise = accuracies_by_role(session.fold().baseline).get("baseline", {}), session.noise()
        assert config is not None
        file = scaffold().with_region(self._region(session))
        return task_prompt(
            self.profile,
            Situation.at_start(SCAFFOLD_NAME, file, config.budget, baseline, noise),
            budget=config.budget,
            seeds=config.evaluation_seeds,
            screening=config.screen > 0,
            confirm=config.confirm,
            means="mcp",
        )

    def _seen(self, session: Session) -> SessionReply:
        return SessionReply("view", edited(session.fold())[0].view().text)

    @property
    def profile(self) -> Profile:
        """The profile of the session; before there is one, that of the settings, of which a task file is read once."""
        if self._session is not None:
            return self._session.profile
        if self._chosen is None:
            assert self._config is not None
            config = self._config
            self._chosen, _ = resolve_profile(config.profile, data_root=config.data_root, download=config.download)
        return self._chosen

    def _region(self, session: Session | None) -> str:
        return baseline_region(self.profile) if session is None else session.region()


def _as_tool(words: str) -> str:
    for command, tool in _COMMANDS:
        words = words.replace(command, tool)
    return words
