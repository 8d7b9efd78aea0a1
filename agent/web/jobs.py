"""The searches that are started in the browser: each is an `agent` command in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent import errors
from agent.errors import AgentError, UsageError
from agent.runs.status import RunStatus
from agent.runs.untrusted import mapping
from agent.secrets import without_secrets
from agent.web.new_search import PROPOSERS

"""The proposers of searches that a browser may start: they run no program of the user's and send nothing away."""
_LAUNCH_SECONDS = 120
_PLAN_SECONDS = 600
_GRACE = 15


@dataclass
class StartedCommand:
    """One command at work on a run."""

    what: str
    process: subprocess.Popen[str]
    said: deque[str] = field(default_factory=lambda: deque(maxlen=200))
    """The last lines on its stderr."""

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None


@dataclass(frozen=True)
class JobView:
    """What the page of a run says of a job. `failed` are the last lines of one that broke off."""

    what: str = ""
    running: bool = False
    failed: str = ""


class Jobs:
    """All commands that this server has started. They end with it."""

    def __init__(self, runs: Path) -> None:
        self._runs = runs
        self._jobs: dict[Path, StartedCommand] = {}
        self._starting: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()

    def search(self, settings: Sequence[str]) -> Path:
        """Start `agent search` with these flags; the run directory. Raises AgentError with what it said otherwise."""
        process = self._start("search", *settings, "--runs", str(self._runs), "--json")
        job = StartedCommand("the search", process)
        with self._lock:
            self._starting.add(process)
        _drain(job)
        assert process.stdout is not None
        timer = threading.Timer(_LAUNCH_SECONDS, process.kill)
        timer.start()
        try:
            line = process.stdout.readline()
        finally:
            timer.cancel()
        try:
            run = Path(json.loads(line)["run"])
            while not (run / "run.json").exists():  # it is written a moment after the launch was said
                if process.poll() is not None:
                    raise ValueError
                time.sleep(0.02)
        except (ValueError, KeyError, TypeError):
            process.kill()
            process.wait()
            raise AgentError(_last_words(job, line)) from None
        finally:
            with self._lock:
                self._starting.discard(process)
        self._keep(run, job)
        return run

    def submit(self, run: Path) -> None:
        """Start the hidden task of an approved run. Raises AgentError when a job is at work on it."""
        self._begin(run, "the hidden task", "submit", str(run), "--require-approval", "--json")

    def resume(self, run: Path) -> None:
        """Go on with an interrupted search. Raises AgentError when a job is at work on it."""
        self._begin(run, "the search", "search", "--resume", str(run), "--json")

    def stop(self, run: Path) -> None:
        """Ask the job of a run to stop, as Ctrl-C would. Raises UsageError when this server started none."""
        job = self._jobs.get(run)
        if job is None or not job.running:
            raise UsageError(f"{run.name}: this server has started nothing that works on this run")
        job.process.send_signal(signal.SIGTERM)

    def plan(self, settings: Sequence[str]) -> Mapping[str, Any]:
        """The object of `agent plan --json`. Raises AgentError."""
        process = self._start("plan", *settings, "--json")
        with self._lock:
            self._starting.add(process)
        try:
            out, err = process.communicate(timeout=_PLAN_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise AgentError("The estimate took too long and was stopped.") from None
        finally:
            with self._lock:
                self._starting.discard(process)
        try:
            found = json.loads(out.splitlines()[-1])
        except (ValueError, IndexError):
            found = {}
        if process.returncode or not isinstance(found, dict):
            raise AgentError(str(found.get("message") or err.strip()[-1000:] or "agent plan failed"))
        return found

    def view(self, run: Path) -> JobView:
        """What to say of the run's job."""
        job = self._jobs.get(run)
        if job is None:
            return JobView()
        if job.running:
            return JobView(job.what, running=True)
        return JobView(job.what, failed=_last_words(job) if job.process.returncode in (1, 2, 3) else "")

    def signature(self, run: Path) -> object:
        """Changes when `view` does."""
        job = self._jobs.get(run)
        return None if job is None else (id(job), job.process.poll())

    def close(self) -> None:
        """Stop all jobs, and wait until they have written that they were stopped."""
        with self._lock:
            processes = [*self._starting, *(job.process for job in self._jobs.values())]
        alive = [process for process in processes if process.poll() is None]
        for process in alive:
            process.send_signal(signal.SIGTERM)
        for process in alive:
            try:
                process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _begin(self, run: Path, what: str, *words: str) -> None:
        if (job := self._jobs.get(run)) is not None:
            try:
                job.process.wait(_GRACE)  # one that has let go of the run is about to end
            except subprocess.TimeoutExpired:
                raise UsageError(f"{run.name}: {job.what} is at work already") from None
        job = StartedCommand(what, self._start(*words))
        _drain(job)
        self._keep(run, job)

    def _keep(self, run: Path, job: StartedCommand) -> None:
        """Keep the job, and read its stdout so that it never waits for a full pipe."""
        with self._lock:
            self._jobs[run] = job
        threading.Thread(target=_swallow, args=(job,), daemon=True).start()

    def _start(self, *words: str) -> subprocess.Popen[str]:
        # Nothing that is started here asks a server, so no key is handed on. -P: the working directory, which may be
        # anybody's, is no place to import from.
        environment = without_secrets(os.environ) | {"PYTHONUNBUFFERED": "1"}
        home = Path(errors.__file__).resolve().parents[1]
        if "site-packages" not in home.parts:
            paths = [str(home), environment.get("PYTHONPATH", "")]
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "agent", *words],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C in the terminal reaches the server, which then stops them in order
        )


def may_go_on(summary: Mapping[str, Any]) -> bool:
    """Whether a browser may go on with this search: it was broken off, and needs nothing from the command line."""
    proposer = mapping(summary.get("config")).get("proposer")
    return RunStatus.of(summary).resumable and proposer in PROPOSERS


def _drain(job: StartedCommand) -> None:
    def read() -> None:
        assert job.process.stderr is not None
        for line in job.process.stderr:
            job.said.append(line.rstrip("\n")[:2000])

    threading.Thread(target=read, daemon=True).start()


def _swallow(job: StartedCommand) -> None:
    assert job.process.stdout is not None
    for _ in job.process.stdout:
        pass
    job.process.wait()


def _last_words(job: StartedCommand, line: str = "") -> str:
    """The error that a command ended with."""
    try:
        message = json.loads(line).get("message")
    except (ValueError, AttributeError):
        message = None
    errors = [said.removeprefix("error: ") for said in job.said if said.startswith("error: ")]
    return str(message or (errors[-1] if errors else "\n".join(list(job.said)[-10:])) or "it ended without a word")
