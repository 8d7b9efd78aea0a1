"""A session: an ordinary run whose calls are made one process at a time, by whoever edits a file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import Rejected, RunDamaged, UsageError, in_one_sentence
from agent.progress import Progress
from agent.protocol import ToolCall
from agent.runs.directory import RunDirectory
from agent.runs.events import Launch, TestStarted
from agent.runs.fold import Fold, edited, fold
from agent.runs.log import Record, read_events
from agent.runs.recorded_noise import Noise
from agent.runs.status import RunStatus
from agent.sessions.folder import SessionFolder, require_free
from agent.sessions.replies import SessionEnded, SessionReply, StillRunning
from sandbox.region import SCAFFOLD_NAME

if TYPE_CHECKING:
    from agent.config import SearchConfig
    from agent.engine.resuming import Allowed
    from agent.engine.search import Search
    from agent.evaluation.check import CheckReport
    from agent.sessions.live import LiveSession
    from benchmark.tasks import Profile

OPEN, CLOSED = "session", "mcp"
"""The values of the run's `proposer`: anyone with a shell edits the file, or only tools over MCP do."""


@dataclass(frozen=True)
class Session:
    """A session by its run, and its folder if it has one.

    Methods that change the run lock it and raise RunBusy when another process has the lock. They finish first what a
    killed command began. `region` arguments default to the region in the folder's file.
    """

    run: RunDirectory
    folder: SessionFolder | None = None
    allowed: Allowed | None = field(default=None, compare=False)
    """What the run wants and only the one who goes on with it may allow, such as a data folder."""

    # -- begin and find --------------------------------------------------------------------------------------------

    @classmethod
    def start(
        cls,
        folder: Path | None,
        config: SearchConfig,
        *,
        progress: Progress | None = None,
        launched: Callable[[Session], None] = lambda session: None,
    ) -> Session:
        """Make a run and, unless `folder` is None, the session's folder; then measure the baseline.

        `config.proposer` is `OPEN`, `CLOSED` or a command. `launched` is called before the baseline. If the process is
        killed then, the next command measures it. Raises UsageError before anything was made.
        """
        session, search = cls._made(folder, config)
        launched(session)
        with session._live(progress, search=search):
            pass
        return session

    @classmethod
    def create(cls, folder: Path | None, config: SearchConfig) -> Session:
        """Like `start`, but the first call, or `finish_begun`, measures the baseline."""
        return cls._made(folder, config)[0]

    @classmethod
    def _made(cls, folder: Path | None, config: SearchConfig) -> tuple[Session, Search]:
        from agent.engine.resuming import Allowed
        from agent.engine.search import Search
        from agent.profiles import baseline_region
        from benchmark.tasks import is_task_file

        if is_task_file(config.profile):  # later commands run elsewhere
            config = config.model_copy(update={"profile": str(Path(config.profile).absolute())})
        if folder is not None:
            require_free(folder)
        search = Search.create(config, by_session=True)
        region = baseline_region(search.profile)
        made = SessionFolder.create(folder, search.run, region) if folder is not None else None
        session = cls(search.run, made, Allowed.of(config, search.profile))
        if made is not None:
            made.write_texts(search.config, search.profile, {})
        search.summary.save(status=RunStatus.SESSION, created=time.time())
        return session, search

    @classmethod
    def open(cls, folder: Path | None = None, *, allowed: Allowed | None = None) -> Session:
        """The session in a folder; see `SessionFolder.find`. Raises UsageError, Rejected, RunDamaged."""
        found = SessionFolder.find(folder)
        session = cls(found.run, found, allowed)
        if session.proposer == CLOSED:
            raise Rejected(f"{found.path}: only the tools of agent mcp may act in this session, because it is closed")
        return session

    @property
    def launch(self) -> dict[str, Any]:
        """The object that `agent session start --json` prints first."""
        summary = self.run.read_summary()
        config = summary.get("config", {})
        return {
            "event": "launch",
            "run": str(self.run.path),
            "session": None if self.folder is None else str(self.folder.path),
            "profile": summary.get("profile"),
            "budget": config.get("budget"),
            "proposer": config.get("proposer"),
            "reason": summary.get("reason"),
        }

    @property
    def proposer(self) -> str:
        """The run's proposer. Raises RunDamaged where the run is no session."""
        return str(self.run.read_summary().get("config", {}).get("proposer"))

    @property
    def profile(self) -> Profile:
        """The run's profile, of which no code is imported. Raises UsageError before the run began, RunDamaged."""
        from agent.profiles import recorded_profile
        from benchmark.tasks import is_task_file

        if self.allowed is not None and self.allowed.given is not None:
            return self.allowed.given
        launch = _launch_of(self._records())
        if launch is None and is_task_file(str(self.run.read_summary().get("config", {}).get("profile"))):
            raise UsageError(f"{self.run.path}: its tasks are not recorded yet; agent session wait goes on with it")
        try:
            return recorded_profile(str(self.run.read_summary().get("profile")), launch.tasks if launch else None)
        except ValueError as error:
            raise RunDamaged(f"{self.run.path}: {in_one_sentence(error)}") from None

    # -- what changes the run --------------------------------------------------------------------------------------

    def test(self, *, region: str | None = None, progress: Progress | None = None) -> SessionReply:
        """Take in the region and test it. A region that was tested repeats its result and costs nothing.

        Raises OutsideChanged, SessionEnded.
        """
        region = self.region() if region is None else region
        with self._live(progress) as live:
            self._require_open(live)
            live.take_in(region)
            done = live.finished
            if done is not None and done.tool == "test" and live.is_tested(region):
                return done
            self._require_open(live)
            return live.call(ToolCall("test"))

    def screen(self, regions: Sequence[str], *, progress: Progress | None = None) -> SessionReply:
        """Look at each region, if the session was started with screening. Raises SessionEnded."""
        with self._live(progress) as live:
            self._require_open(live)
            return live.call(ToolCall("screen", {"candidates": list(regions)}))

    def call(self, tool: str, *, progress: Progress | None = None, **arguments: object) -> SessionReply:
        """Carry out one call of any tool of PROTOCOL.md after taking in the file, and write the file afterwards.

        Raises FileNotWritten where it cannot be written, and then the call is not carried out.
        """
        writing = self.folder if tool in ("edit", "rewrite", "undo") else None
        with self._live(progress) as live:
            self._require_open(live)
            if writing is not None:
                writing.require_writable()
            self._take_in_file(live)
            reply = live.call(ToolCall(tool, arguments))
            region = live.tools.workspace.region
        if writing is not None and reply.ok:
            writing.write(region)
        return reply

    def undo(self, n: int = 1, *, progress: Progress | None = None) -> SessionReply:
        """Go back `n` accepted changes and write the file. An edit that no command has seen is recorded first."""
        return self.call("undo", progress=progress, n=n)

    def submit(self, n: int, *, progress: Progress | None = None) -> SessionReply:
        """Submit test `n`, run the hidden task and write the page. The session ends. Raises SessionEnded."""
        with self._live(progress) as live:
            done = live.finished
            return done if done is not None and done.submitted is not None else live.call(ToolCall("submit", {"n": n}))

    def restore(self) -> bool:
        """Write the file as it was last recorded, and keep what is there as custom_init.py.orig. Needs no lock.

        Returns whether the file was changed.
        """
        if self.folder is None:
            raise UsageError("this session has no folder, so there is no file to restore")
        before = self.folder.file.read_bytes() if self.folder.file.is_file() else None
        self.folder.write(self.recorded_region())
        return before != self.folder.file.read_bytes()

    # -- what only looks -------------------------------------------------------------------------------------------

    def recorded_region(self) -> str:
        """The region after the last finished call."""
        editor, _ = edited(self.fold())
        return editor.files[SCAFFOLD_NAME].range_text()

    def region(self) -> str:
        """The region as it is: in the folder's file, or as last recorded where there is no folder."""
        return self.recorded_region() if self.folder is None else self.folder.region()

    def check(self, region: str | None = None) -> CheckReport:
        """The free checks, in isolation, on the visible architectures. Takes no lock and logs nothing."""
        from agent.sessions.checking import check_region_of

        allowed = self.allowed is not None and self.allowed.allow_unsandboxed
        region = self.region() if region is None else region
        return check_region_of(self.run, self.profile, region, allow_unsandboxed=allowed)

    def finish_begun(self, *, progress: Progress | None = None) -> SessionReply | None:
        """Finish what a killed command began. Returns the reply of its call, if it was one."""
        with self._live(progress) as live:
            return live.finished

    def fold(self) -> Fold:
        """The log as it is now. Raises RunDamaged; without a log the fold is empty."""
        records = self._records()
        launch = _launch_of(records)
        tasks = self.run.read_summary().get("tasks", {}).get("visible", [])
        config = launch.config if launch else {}
        seeds = config.get("baseline_seeds") or config.get("seeds") or 1
        return fold(records, int(seeds) * len(tasks))

    def noise(self) -> Noise | None:
        """The seed noise that the log records, by task; None before the first call. Raises RunDamaged."""
        launch = _launch_of(self._records())
        return launch.noise if launch else None

    def running(self, folded: Fold | None = None) -> StillRunning | None:
        """What is unfinished, by this process or another or none: baseline, call, or hidden task after a submission."""
        folded = self.fold() if folded is None else folded
        if RunStatus.of(self.run.read_summary()).over:
            return None
        seconds = max(0.0, time.time() - folded.since) if folded.since else 0.0
        if not folded.baseline:
            return StillRunning("the baseline", seconds)
        if folded.pending is not None:
            number = next((event.number for event in folded.inner if isinstance(event, TestStarted)), None)
            return StillRunning(folded.pending.tool, seconds, number)
        if folded.submission is not None:
            return StillRunning("submit", seconds, folded.submission.number)
        return None

    def last_reply(self) -> SessionReply | None:
        """The reply of the last finished `test`, `screen` or `submit`; None before the first."""
        tested: dict[str, int] = {}
        reply = None
        for found in self.fold().calls:
            number = tested.get(found.reply.region_sha256) if found.call.tool == "test" else None
            if found.call.tool in ("test", "screen", "submit"):
                reply = SessionReply.recorded(found, number)
            tested |= {e.region_sha256: e.number for e in found.inner if isinstance(e, TestStarted)}
        return reply

    # -- implementation --------------------------------------------------------------------------------------------

    def _records(self) -> list[Record]:
        return read_events(self.run.events) if self.run.has(self.run.events.name) else []

    def _take_in_file(self, live: LiveSession) -> None:
        """Record an edit that no command has seen. A file that is no scaffold any more is overwritten, and kept."""
        if self.folder is None:
            return
        try:
            live.take_in(self.folder.region())
        except Rejected:
            return

    def require_going_on(self) -> None:
        """Raise SessionEnded when the session has ended or waits for a review."""
        status = RunStatus.of(self.run.read_summary())
        name = self.run.path
        if status.waiting:
            raise SessionEnded(
                f"{name}: this session has ended and waits for a review; agent submit {name.name} goes on"
            )
        if status.finished:
            raise SessionEnded(f"{name}: this session has ended ({status}); agent show {name} prints what was found")

    @contextmanager
    def _live(self, progress: Progress | None, *, search: Search | None = None) -> Iterator[LiveSession]:
        from agent.engine.search import Search
        from agent.sessions.live import live_session

        self.require_going_on()
        search = search or Search.resume(self.run, allowed=self.allowed)
        with live_session(search, progress or Progress()) as live:
            if not live.folded.baseline and self.folder is not None and self.folder.path.is_dir():
                self.folder.write_texts(search.config, search.profile, live.tools.baseline, live.tools.noise)
            yield live

    def _require_open(self, live: LiveSession) -> None:
        """Raise SessionEnded when the session ended while what an earlier command began was finished."""
        if live.outcome is not None:
            raise SessionEnded(
                f"{self.run.path}: this session has ended; agent show {self.run.path} prints what was found"
            )


def _launch_of(records: Sequence[Record]) -> Launch | None:
    launch = records[0].event if records else None
    return launch if isinstance(launch, Launch) else None
