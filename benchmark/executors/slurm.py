"""Runs evaluations in jobs of a Slurm cluster.

A job finds its calls in folders of the run, on the file system that head and nodes share, and leaves the answers there
as JSON. So a search that is killed finds its jobs again. Slurm schedules, requeues and cancels; what is ours is one
more attempt for a call whose job ended without its answer.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.executors.checks import DescribeData, differences
from benchmark.executors.seam import Call, EngineError, InfrastructureError, TookTooLong, prepared
from benchmark.executors.slurm_jobs import Known, QueueFull, Submitter, cancel, jobs, require_programs
from benchmark.executors.slurm_worker import ANSWER, CALL, REPORTS, TENSORS
from benchmark.executors.waiting import QueueExecutor, SubmittedCall
from benchmark.executors.wire import answer_from_json, call_to_json, parsed, report_from_json
from benchmark.files import write_atomically

_POLL = 1.0
"""Seconds between two questions to Slurm."""
_LOOK = 0.02
"""Seconds between two looks for answers, per ten jobs: each look is a call of the file system."""
_GATHER = 0.5
"""Seconds in which calls that are submitted one after the other become lanes of one job."""
_GRACE = 15.0
"""Seconds after the end of a job for its answer to appear on a network's file system."""
_QUEUE_PATIENCE = 3600.0
"""Seconds for which a full queue is asked again."""
_START = 1800.0
"""Seconds that the first job may wait in the queue."""
_LIVE = {"PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED"}
_LIVE |= {"RESIZING", "STOPPED", "SIGNALING", "STAGE_OUT", "SPECIAL_EXIT", "PREEMPTED"}
_MAX_ANSWER = 16 * 2**20
Say = Callable[[str], None]


@dataclass(eq=False)
class _Sent:
    """A call that has a folder, and the job that carries it out, once there is one."""

    job: SubmittedCall
    folder: Path
    id: str = ""
    reports: int = 0
    started: float | None = None
    ended: float | None = None
    nodes: str = ""
    avoid: str = ""
    next_try: float = 0.0
    full_since: float | None = None


class SlurmExecutor(QueueExecutor):
    """Runs at most `slots` jobs at a time. `folder` is on the shared file system and keeps calls and answers.

    The option `lanes` lets so many calls share a job; then there are `lanes` times as many slots. Every job must have
    the environment that the first one has. A call whose job ends without its answer (cancelled, its node died) is
    submitted once more; the second time it is an InfrastructureError. Raises EngineError.
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
        jobs_folder: Path | None = None,
        modules: tuple[str, ...] = (),
    ) -> None:
        """`jobs_folder`: for submitit's own files, on the shared file system too (None: in `folder`).

        `modules`: whose calls a job may carry out; empty: those of a search.
        """
        require_programs()
        super().__init__()
        self._folder = folder.absolute()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._say = say
        self._submitter = Submitter((jobs_folder or self._folder / "jobs").absolute(), options, modules)
        self._most_jobs = slots
        self.slots = slots * self._submitter.lanes
        self._gpus_asked = int(options.get("gpus_per_node", 0) or 0)
        self._running: list[_Sent] = []
        self._first = True
        self._submitted = threading.Event()
        self._thread = threading.Thread(target=self._manage, daemon=True)
        self._thread.start()
        try:
            self.environment = self._introduced(describe, data)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Cancel all jobs. Unfinished futures raise InfrastructureError."""
        self._closing.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=30)
        for job in {sent.id for sent in self._running if sent.id}:
            cancel(job)
        for sent in self._running:
            sent.job.fail("the executor was closed while a job was to run")
        self._fail_waiting("the executor was closed while the call waited")

    def _put(self, job: SubmittedCall) -> None:
        super()._put(job)
        self._submitted.set()

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
        if self._gpus_asked and environment.get("device", "").startswith("cpu"):
            raise EngineError(f"--slurm gpus_per_node={self._gpus_asked}: the job got no GPU that torch can use")
        if data is not None and data.names:
            for name, found in self.submit(data).result(timeout=_START).items():
                if found.startswith("missing"):
                    raise EngineError(f"the nodes of the Slurm cluster lack the data set {name}: {found}")
        return environment

    # -- the thread that follows the jobs -------------------------------------------------------------------------

    def _manage(self) -> None:
        asked = 0.0
        while not self._closing.is_set():
            if self._submitted.wait(_LOOK * max(1.0, len(self._running) / 10)) and self._submitter.lanes > 1:
                self._closing.wait(_GATHER)
            self._submitted.clear()
            try:
                self._admit()
                self._send_new()
                self._each(self._read)
                if time.monotonic() - asked >= _POLL:
                    asked = time.monotonic()
                    self._follow()
            except (OSError, subprocess.SubprocessError) as error:
                self._say(f"Slurm does not answer, and is asked again: {error}")
                self._closing.wait(10)

    def _follow(self) -> None:
        """Ask Slurm for the states of all jobs."""
        ids = sorted({sent.id for sent in self._running if sent.id})
        known = jobs(ids) if ids else {}
        self._each(lambda sent: self._look(sent, known.get(sent.id, Known())))

    def _each(self, work: Callable[[_Sent], None]) -> None:
        """Do this for all calls that have a job, and end those for which it raises."""
        for sent in [sent for sent in self._running if sent.id]:
            try:
                work(sent)
            except (InfrastructureError, EngineError) as error:
                self._end(sent, error=error)
            except (OSError, subprocess.SubprocessError):  # Slurm or the file system, asked again by `_manage`
                raise
            except Exception as error:  # noqa: BLE001 - without this thread nobody would follow the other jobs
                self._end(sent, error=InfrastructureError(f"Slurm job {sent.id} could not be followed: {error!r}"))

    def _admit(self) -> None:
        """Take waiting calls while there is room for another job, or in one that is not submitted yet."""
        lanes = self._submitter.lanes
        while True:
            unsent = sum(not sent.id for sent in self._running)
            in_use = len({sent.id for sent in self._running if sent.id}) + math.ceil(unsent / lanes)
            if in_use >= self._most_jobs and unsent % lanes == 0:
                return
            job = self._take(wait=False)
            if job is None:
                return
            key = getattr(job.call, "key", None)
            name = hashlib.sha256(str(key).encode()).hexdigest()[:40] if key else uuid.uuid4().hex
            sent = _Sent(job, self._folder / name)
            self._running.append(sent)
            try:
                self._begin(sent)
            except BaseException as error:  # noqa: BLE001 - the future passes every error on
                self._end(sent, error=error)
            if lanes == 1:  # it need not wait for the initialisation of the next one
                self._send_new()

    def _begin(self, sent: _Sent) -> None:
        """Find the job that an earlier process submitted for the call, or write the call for a new one."""
        if not self._found_again(sent):
            sent.folder.mkdir(exist_ok=True)
            text, tensors = call_to_json(prepared(sent.job.call, sent.job.on_ask))
            if tensors:
                write_atomically(sent.folder / TENSORS, tensors)
            write_atomically(sent.folder / CALL, text.encode())

    def _found_again(self, sent: _Sent) -> bool:
        """Whether an earlier process of this search has submitted the call, and it runs or has its answer."""
        try:
            recorded = json.loads((sent.folder / "job.json").read_text())
            job, sent.job.attempts = str(int(recorded["id"])), int(recorded["attempts"])
        except (OSError, ValueError, KeyError, TypeError):
            return False
        if (sent.folder / ANSWER).exists() or self._submitter.state_of(job) in _LIVE:
            self._say(f"Slurm job {job} of an earlier process is found again")
            sent.id = job
            return True
        return False

    def _send_new(self) -> None:
        """Submit the calls that have no job, as many in one as there are lanes."""
        now = time.monotonic()
        ready: dict[str, list[_Sent]] = {}
        for sent in self._running:
            if not sent.id and now >= sent.next_try:
                ready.setdefault(sent.avoid, []).append(sent)
        for avoid, group in ready.items():
            for begin in range(0, len(group), self._submitter.lanes):
                self._send(group[begin : begin + self._submitter.lanes], avoid)

    def _send(self, group: Sequence[_Sent], avoid: str) -> None:
        """Submit one job. A full queue is asked again later; what can never run ends the calls."""
        for sent in group:
            for name in (ANSWER, REPORTS):
                (sent.folder / name).unlink(missing_ok=True)
            sent.started, sent.ended, sent.reports, sent.nodes = None, None, 0, ""
        try:
            job = self._submitter.submit([sent.folder for sent in group], avoid)
        except QueueFull as full:
            self._wait_for_room(group, str(full))
        except EngineError as error:
            for sent in group:
                self._end(sent, error=error)
        else:
            for sent in group:
                sent.id, sent.next_try, sent.full_since = job, 0.0, None
                sent.job.attempts += 1
                content = json.dumps({"id": job, "attempts": sent.job.attempts})
                write_atomically(sent.folder / "job.json", content.encode())

    def _wait_for_room(self, group: Sequence[_Sent], words: str) -> None:
        now = time.monotonic()
        if all(sent.full_since is None for sent in group):
            self._say(f"Slurm takes no job now, and is asked again: {words}")
        for sent in group:
            sent.full_since, sent.next_try = sent.full_since or now, now + 5.0
            if now - sent.full_since > _QUEUE_PATIENCE:
                why = f"Slurm takes no job for {_QUEUE_PATIENCE / 60:.0f} minutes: {words}"
                self._end(sent, error=InfrastructureError(why))

    def _read(self, sent: _Sent) -> None:
        if (sent.folder / ANSWER).exists():
            self._read_reports(sent)
            self._read_answer(sent)

    def _look(self, sent: _Sent, known: Known) -> None:
        """Follow the state of a job that has not answered."""
        job, state = sent.job, known.state
        self._read_reports(sent)
        if state == "RUNNING" and sent.started is None:
            sent.started, sent.nodes = time.monotonic(), known.nodes
            if job.on_start is not None:
                job.on_start(f"{known.nodes} (job {sent.id})")
        if state in _LIVE:
            sent.ended = None
            if job.timeout is not None and sent.started is not None and time.monotonic() - sent.started > job.timeout:
                cancel(sent.id)
                raise TookTooLong(f"Slurm job {sent.id} did not finish within {job.timeout:.0f} s")
        else:
            sent.ended = sent.ended or time.monotonic()
            if time.monotonic() - sent.ended > (_GRACE if state in ("COMPLETED", "") else 1.0):
                log = self._submitter.log_of(sent.id)
                self._again(sent, f"ended as {state or 'unknown to Slurm'} without an answer{log}")

    def _again(self, sent: _Sent, why: str) -> None:
        """Let the call have one more job, or give up."""
        if self._first:
            shared = f"is {self._folder} on a file system that the nodes share, and this Python there?"
            raise InfrastructureError(f"the first Slurm job, {sent.id}, {why}; {shared}")
        if sent.job.attempts >= 2:
            raise InfrastructureError(f"the Slurm jobs of an evaluation ended twice without an answer: {sent.id} {why}")
        self._say(f"Slurm job {sent.id} {why}; its evaluation is submitted again")
        sent.id = ""

    def _read_reports(self, sent: _Sent) -> None:
        if sent.job.on_report is None:
            return
        try:
            lines = (sent.folder / REPORTS).read_bytes().split(b"\n")[:-1]
        except OSError:
            return
        for line in lines[sent.reports :]:
            with contextlib.suppress(ValueError):
                sent.job.on_report(report_from_json(sent.job.call, line))
        sent.reports = max(sent.reports, len(lines))

    def _read_answer(self, sent: _Sent) -> None:
        path = sent.folder / ANSWER
        try:
            if path.is_symlink() or path.stat().st_size > _MAX_ANSWER:
                raise ValueError("it is a link or too large")
            found = parsed(path.read_bytes())
            error, answer = found.get("error"), found.get("answer")
            facts = {str(name): None if value is None else str(value) for name, value in dict(found["facts"]).items()}
            host = str(found["host"])[:200]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
            raise InfrastructureError(f"{path}: no answer of a job: {problem}") from None
        if unequal := differences({host: facts}):
            raise InfrastructureError(f"the machines of the Slurm cluster are not alike: {'; '.join(unequal)}")
        if sent.started is None and sent.job.on_start is not None:  # it ended between two looks
            sent.job.on_start(f"{sent.nodes or host} (job {sent.id})")
        if error is not None:
            last = "".join(str(error).strip().splitlines()[-1:])[:500]
            if "WrongMachine" in last:
                sent.avoid = ",".join(filter(None, (sent.avoid, sent.nodes or host)))
                self._again(sent, f"was on another kind of machine ({last})")
                return
            raise InfrastructureError(f"an evaluation failed in Slurm job {sent.id}:\n{str(error)[:2000]}")
        self._end(sent, answer=answer_from_json(sent.job.call, json.dumps(answer)))

    def _end(self, sent: _Sent, *, answer: Any = None, error: BaseException | None = None) -> None:
        self._running.remove(sent)
        (sent.folder / TENSORS).unlink(missing_ok=True)
        if error is not None:
            if isinstance(error, EngineError):
                error = InfrastructureError(str(error))
            sent.job.future.set_exception(error)
        else:
            sent.job.future.set_result(answer)
