"""Runs evaluations as jobs of a Slurm cluster, submitted by submitit.

A job finds its call in a folder of the run, on the file system that head and nodes share, and leaves its answer there
as JSON. So a search that is killed finds its jobs again. Slurm schedules, requeues and cancels; what is ours is one
more attempt for a job that ended without an answer.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.executors.checks import DescribeData, differences
from benchmark.executors.seam import (
    AnswerT,
    Ask,
    Call,
    EngineError,
    InfrastructureError,
    OnStart,
    Priority,
    Report,
    prepared,
)
from benchmark.executors.slurm_worker import ANSWER, CALL, REPORTS, TENSORS, main
from benchmark.executors.wire import answer_from_json, call_to_json, report_from_json
from benchmark.files import write_atomically

OPTIONS = frozenset(
    {"account", "comment", "constraint", "cpus_per_task", "exclude", "exclusive", "gpus_per_node", "gres", "mem"}
    | {"nodelist", "partition", "qos", "time"}
)
"""Options of --slurm, as submitit spells them."""

_EXPORTED = "PATH,HOME,USER,LANG,TMPDIR,XDG_CACHE_HOME,LD_LIBRARY_PATH,INITSEARCH_CACHE_DIR,SUBMITIT_EXECUTOR"
"""Slurm gives jobs the whole environment unless told which variables: these hold no keys."""
_POLL = 1.0
_GRACE = 15.0
"""Seconds after the end of a job for its answer to appear on a network's file system."""
_QUEUE_PATIENCE = 3600.0
"""Seconds for which a full queue is asked again."""
_START = 1800.0
"""Seconds that the first job may wait in the queue."""
_LIVE = {"PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED"}
_LIVE |= {"RESIZING", "STOPPED", "SIGNALING", "STAGE_OUT", "SPECIAL_EXIT", "PREEMPTED"}
_NEVER = re.compile(r"invalid|not available|not permitted|not valid|no such|unknown|unrecognized", re.IGNORECASE)
_MAX_ANSWER = 16 * 2**20
Say = Callable[[str], None]


def parse_options(text: str | None) -> dict[str, str | int]:
    """`partition=gpu,gpus_per_node=1,time=120` as options. Raises EngineError for anything else."""
    found: dict[str, str | int] = {}
    for part in filter(None, (text or "").split(",")):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if name not in OPTIONS or not equals or not re.fullmatch(r"[\w.:/@+\[\]-]{1,200}", value):
            raise EngineError(f"--slurm {part}: expected NAME=VALUE with one of {', '.join(sorted(OPTIONS))}")
        found[name] = int(value) if value.isdigit() else value
    for name in ("cpus_per_task", "gpus_per_node", "time"):
        if found.get(name) == 0:
            raise EngineError(f"--slurm {name}=0: must be at least 1")
    return found


def jobs(ids: Sequence[str] = ()) -> dict[str, tuple[str, str]]:
    """Id of a job → its state and its nodes, as Slurm knows them now; of all of the user's jobs without `ids`."""
    which = ["--jobs", ",".join(ids)] if ids else ["--me"]
    command = ["squeue", "--noheader", "--states=all", "--format=%i|%T|%N", *which]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode and "Invalid job id" not in done.stderr:
        raise OSError(done.stderr.strip() or f"squeue ended with {done.returncode}")
    rows = (line.split("|") for line in done.stdout.splitlines())
    return {row[0]: (row[1], row[2]) for row in rows if len(row) == 3}


@dataclass
class _Job:
    call: Call[Any]
    timeout: float | None
    on_report: Report | None
    on_ask: Ask | None
    on_start: OnStart | None
    folder: Path
    id: str = ""
    attempts: int = 0
    reports: int = 0
    started: float | None = None
    ended: float | None = None
    avoid: str = ""
    next_try: float = 0.0
    full_since: float | None = None
    future: Future[Any] = field(default_factory=Future)


class SlurmExecutor:
    """Runs at most `slots` jobs at a time. `folder` is on the shared file system and keeps calls and answers.

    Every job must have the environment that the first one has. A job that ends without an answer (cancelled, its node
    died) is submitted once more; the second time it is an InfrastructureError. Raises EngineError.
    """

    remote = True

    def __init__(
        self,
        folder: Path,
        options: Mapping[str, str | int],
        *,
        slots: int,
        describe: Call[dict[str, str]],
        data: DescribeData | None = None,
        say: Say = lambda text: None,
        modules: tuple[str, ...] = (),
    ) -> None:
        """`modules`: whose calls a job may carry out; empty: those of a search."""
        try:
            import submitit
        except ImportError:
            raise EngineError("--executor slurm needs submitit: pip install 'initsearch[slurm]'") from None
        for program in ("sbatch", "squeue", "scancel"):
            if shutil.which(program) is None:
                raise EngineError(f"--executor slurm: the program {program} is not here; run this where Slurm is")
        self.slots = slots
        self.threads = int(options.get("cpus_per_task", 1))
        self._folder = folder.absolute()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._say = say
        self._modules = modules
        self._engine = submitit.SlurmExecutor(folder=self._folder / "jobs")
        self._options = dict(options)
        self._set_options("")
        self._waiting: queue.PriorityQueue[tuple[Priority, int, _Job]] = queue.PriorityQueue()
        self._order = itertools.count()
        self._running: list[_Job] = []
        self._closing = threading.Event()
        self._first = True
        self._thread = threading.Thread(target=self._manage, daemon=True)
        self._thread.start()
        try:
            self.environment = self._introduced(describe, data)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> SlurmExecutor:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def submit(
        self,
        call: Call[AnswerT],
        *,
        timeout: float | None = None,
        on_report: Report | None = None,
        on_ask: Ask | None = None,
        on_start: OnStart | None = None,
        priority: Priority = (),
    ) -> Future[AnswerT]:
        """See `Executor.submit`. A call with a `key` is found again by it."""
        if self._closing.is_set():
            raise RuntimeError("the executor is closed")
        key = getattr(call, "key", None)
        name = hashlib.sha256(str(key).encode()).hexdigest()[:40] if key else uuid.uuid4().hex
        job = _Job(call, timeout, on_report, on_ask, on_start, self._folder / name)
        self._waiting.put((priority, next(self._order), job))
        return job.future

    def close(self) -> None:
        """Cancel all jobs. Unfinished futures raise InfrastructureError."""
        self._closing.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=30)
        with contextlib.suppress(queue.Empty):
            while True:
                self._running.append(self._waiting.get_nowait()[2])
        for job in self._running:
            self._cancel(job)
            if not job.future.done():
                with contextlib.suppress(Exception):
                    job.future.set_exception(InfrastructureError("the executor was closed while a job was to run"))

    # -- the first job --------------------------------------------------------------------------------------------

    def _introduced(self, describe: Call[dict[str, str]], data: DescribeData | None) -> dict[str, str]:
        """Run a first job: it shows that jobs start, see the folder, and have this package."""
        first = self.submit(describe)
        try:
            environment = first.result(timeout=_START)
        except TimeoutError:
            raise EngineError(f"the first Slurm job did not run within {_START:.0f} s; squeue --me says why") from None
        except InfrastructureError as error:
            raise EngineError(str(error)) from None
        self._first = False
        asked = int(self._options.get("gpus_per_node", 0) or 0)
        if asked and environment.get("device", "").startswith("cpu"):
            raise EngineError(f"--slurm gpus_per_node={asked}: the job got no GPU that torch can use")
        if data is not None and data.names:
            for name, found in self.submit(data).result(timeout=_START).items():
                if found.startswith("missing"):
                    raise EngineError(f"the nodes of the Slurm cluster lack the data set {name}: {found}")
        return environment

    # -- the thread that follows the jobs -------------------------------------------------------------------------

    def _manage(self) -> None:
        while not self._closing.wait(_POLL / 4 if self._first else _POLL):
            try:
                self._admit()
                self._follow()
            except (OSError, subprocess.SubprocessError) as error:
                self._say(f"Slurm does not answer, and is asked again: {error}")
                self._closing.wait(10)

    def _admit(self) -> None:
        """Take waiting calls while there is room."""
        while len(self._running) < self.slots:
            try:
                job = self._waiting.get_nowait()[2]
            except queue.Empty:
                return
            if job.future.set_running_or_notify_cancel():
                self._running.append(job)
                self._begin(job)

    def _begin(self, job: _Job) -> None:
        """Find the job that an earlier process submitted, or write the call and submit it."""
        try:
            if not self._found_again(job):
                job.folder.mkdir(exist_ok=True)
                text, tensors = call_to_json(prepared(job.call, job.on_ask))
                if tensors:
                    write_atomically(job.folder / TENSORS, tensors)
                write_atomically(job.folder / CALL, text.encode())
                self._send(job)
        except BaseException as error:  # noqa: BLE001 - the future passes every error on
            self._end(job, error=error)

    def _found_again(self, job: _Job) -> bool:
        """Whether an earlier process of this search has submitted the call, and it runs or has its answer."""
        try:
            recorded = json.loads((job.folder / "job.json").read_text())
            job.id, job.attempts = str(int(recorded["id"])), int(recorded["attempts"])
        except (OSError, ValueError, KeyError, TypeError):
            return False
        if (job.folder / ANSWER).exists() or jobs([job.id]).get(job.id, ("", ""))[0] in _LIVE:
            self._say(f"Slurm job {job.id} of an earlier process is found again")
            return True
        return False

    def _send(self, job: _Job) -> None:
        """Submit to Slurm. A full queue is asked again later; what can never run raises."""
        for name in (ANSWER, REPORTS):
            (job.folder / name).unlink(missing_ok=True)
        job.id, job.started, job.ended, job.reports = "", None, None, 0
        self._set_options(job.avoid)
        try:
            sent = self._engine.submit(main, str(job.folder), self.threads, self._modules)
        except Exception as error:  # noqa: BLE001 - submitit has several types, and none of them public
            words = " ".join(str(error).split())[-400:]
            if _NEVER.search(words):
                raise EngineError(f"Slurm refuses the job: {words}") from None
            job.full_since = job.full_since or time.monotonic()
            if time.monotonic() - job.full_since > _QUEUE_PATIENCE:
                raise InfrastructureError(
                    f"Slurm takes no job for {_QUEUE_PATIENCE / 60:.0f} minutes: {words}"
                ) from None
            if job.next_try == 0.0:
                self._say(f"Slurm takes no job now, and is asked again: {words}")
            job.next_try = time.monotonic() + 5.0
            return
        job.next_try, job.full_since = 0.0, None
        job.id, job.attempts = str(sent.job_id), job.attempts + 1
        write_atomically(job.folder / "job.json", json.dumps({"id": job.id, "attempts": job.attempts}).encode())

    def _follow(self) -> None:
        """Look at all running jobs once."""
        known = jobs([job.id for job in self._running if job.id]) if any(job.id for job in self._running) else {}
        for job in list(self._running):
            try:
                if not job.id:
                    if time.monotonic() >= job.next_try:
                        self._send(job)
                    continue
                self._look(job, *known.get(job.id, ("", "")))
            except (InfrastructureError, EngineError) as error:
                self._end(job, error=error)

    def _look(self, job: _Job, state: str, nodes: str) -> None:
        if state == "RUNNING" and job.started is None:
            job.started = time.monotonic()
            if job.on_start is not None:
                job.on_start(f"{nodes} (job {job.id})")
        self._read_reports(job)
        if (job.folder / ANSWER).exists():
            self._read_answer(job, nodes)
        elif state in _LIVE:
            job.ended = None
            if job.timeout is not None and job.started is not None and time.monotonic() - job.started > job.timeout:
                self._cancel(job)
                raise InfrastructureError(f"Slurm job {job.id} did not finish within {job.timeout:.0f} s")
        else:
            job.ended = job.ended or time.monotonic()
            if time.monotonic() - job.ended > (_GRACE if state in ("COMPLETED", "") else 1.0):
                self._again(job, f"ended as {state or 'unknown to Slurm'} without an answer{self._log_of(job)}")

    def _again(self, job: _Job, why: str) -> None:
        """Submit once more, or give up."""
        if self._first:
            shared = f"is {self._folder} on a file system that the nodes share, and this Python there?"
            raise InfrastructureError(f"the first Slurm job, {job.id}, {why}; {shared}")
        if job.attempts >= 2:
            raise InfrastructureError(f"the Slurm jobs of an evaluation ended twice without an answer: {job.id} {why}")
        self._say(f"Slurm job {job.id} {why}; its evaluation is submitted again")
        self._send(job)

    def _read_reports(self, job: _Job) -> None:
        if job.on_report is None:
            return
        try:
            lines = (job.folder / REPORTS).read_bytes().split(b"\n")[:-1]
        except OSError:
            return
        for line in lines[job.reports :]:
            with contextlib.suppress(ValueError):
                job.on_report(report_from_json(job.call, line))
        job.reports = max(job.reports, len(lines))

    def _read_answer(self, job: _Job, nodes: str) -> None:
        path = job.folder / ANSWER
        try:
            if path.is_symlink() or path.stat().st_size > _MAX_ANSWER:
                raise ValueError("it is a link or too large")
            found = json.loads(path.read_bytes())
            error, answer = found.get("error"), found.get("answer")
            facts = {str(name): None if value is None else str(value) for name, value in dict(found["facts"]).items()}
            host = str(found["host"])[:200]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
            raise InfrastructureError(f"{path}: no answer of a job: {problem}") from None
        if unequal := differences({host: facts}):
            raise InfrastructureError(f"the machines of the Slurm cluster are not alike: {'; '.join(unequal)}")
        if error is not None:
            last = str(error).strip().splitlines()[-1][:500]
            if "WrongMachine" in last:
                job.avoid = ",".join(filter(None, (job.avoid, nodes or host)))
                self._again(job, f"was on another kind of machine ({last})")
                return
            raise InfrastructureError(f"an evaluation failed in Slurm job {job.id}:\n{str(error)[:2000]}")
        self._end(job, answer=answer_from_json(job.call, json.dumps(answer)))

    def _end(self, job: _Job, *, answer: Any = None, error: BaseException | None = None) -> None:
        self._running.remove(job)
        (job.folder / TENSORS).unlink(missing_ok=True)
        if error is not None:
            if isinstance(error, EngineError):
                error = InfrastructureError(str(error))
            job.future.set_exception(error)
        else:
            job.future.set_result(answer)

    def _cancel(self, job: _Job) -> None:
        if job.id and not job.future.done():
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                subprocess.run(["scancel", job.id], capture_output=True, timeout=30, check=False)

    def _log_of(self, job: _Job) -> str:
        """The last line that the job wrote, for a message."""
        for path in sorted((self._folder / "jobs").glob(f"{job.id}_*_log.err")):
            with contextlib.suppress(OSError):
                lines = path.read_text(errors="replace").strip().splitlines()
                if lines:
                    return f" ({lines[-1][:300]})"
        return ""

    def _set_options(self, avoid: str) -> None:
        options = {"job_name": "initsearch", "time": None, **self._options, "cpus_per_task": self.threads}
        if avoid:
            options["exclude"] = ",".join(filter(None, (str(options.get("exclude", "")), avoid)))
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
        exported = f"{_EXPORTED},PYTHONPATH={path}" if "," not in path else _EXPORTED
        nodelist = options.pop("nodelist", None)
        more = {"export": exported, "requeue": True, **({"nodelist": nodelist} if nodelist else {})}
        self._engine.update_parameters(**options, additional_parameters=more, stderr_to_stdout=False)


def reachable() -> dict[str, Any]:
    """What `agent doctor` says of Slurm here: its version, partitions and nodes, and submitit's version."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        found: dict[str, Any] = {"submitit": version("submitit")}
    except PackageNotFoundError:
        found = {"submitit": None}
    if shutil.which("sinfo") is None:
        return {**found, "slurm": None, "partitions": []}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)

    listed = run("sinfo", "--noheader", "--format=%P|%a|%D|%c|%G|%l")
    rows = [line.split("|") for line in listed.stdout.splitlines()]
    names = ("partition", "state", "nodes", "cpus", "gres", "time")
    return {
        **found,
        "slurm": run("sinfo", "--version").stdout.strip() or None,
        "error": listed.stderr.strip() or None,
        "partitions": [dict(zip(names, row, strict=True)) for row in rows if len(row) == len(names)],
        "python": sys.executable,
    }
