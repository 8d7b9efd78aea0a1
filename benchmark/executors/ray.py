"""Runs evaluations on a Ray cluster: an actor for each GPU, or for each slot of CPUs.

Ray schedules, moves bytes and notices what dies. What is ours: the order of the calls, one more attempt for a call
whose machine died, and that nothing which comes back is unpickled.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmark.executors.checks import DescribeData, differences, read_facts
from benchmark.executors.ray_cluster import Node, WorkerLost, answer_of, get_bytes, kill, node_facts, nodes, stream_of
from benchmark.executors.seam import Call, EngineError, InfrastructureError, prepared
from benchmark.executors.waiting import QueueExecutor, SubmittedCall

_START = 120.0
"""Seconds to wait for the first workers: they import torch."""
_AGAIN = 5.0
"""Seconds between two attempts to replace a worker."""
_PATIENCE = 120.0
"""Seconds without any worker after which the calls fail."""
_MOST_LOSSES = 10
"""Workers that may be gone before a call has begun."""
_LANES = 4
"""Lanes of a GPU, unless told: on the card that was measured they gave 0.9 of the images per second of eight."""
Say = Callable[[str], None]


class RayExecutor(QueueExecutor):
    """Runs calls in actors of a Ray cluster. Use it inside `connected`.

    `slots`: at most so many calls at a time (None: as many as fit). A cluster with GPUs has a worker for each of them
    with up to `workers` lanes, of a thread each, and its other nodes are not used. Without GPUs a worker is one slot of
    `threads` CPUs, and `workers` is the number of all. All workers have the environment that `describe` returns; of
    several kinds of machines the most frequent one is used, and that is said. A call whose worker dies is run once more
    elsewhere; a second death is an InfrastructureError. Raises EngineError.
    """

    remote = True

    def __init__(
        self,
        *,
        slots: int | None,
        workers: int | None = None,
        threads: int,
        describe: Call[dict[str, str]],
        data: DescribeData | None = None,
        say: Say = lambda text: None,
    ) -> None:
        super().__init__()
        self._say = say
        self._describe, self._data = describe, data if data is not None and data.names else None
        self._hashes: dict[str, str] = {}
        """Data set → the hash that the first worker found."""
        self._lock = threading.Lock()
        self._lost: list[_Worker] = []
        """Workers that died; the thread that notices it first replaces the worker."""
        self._actors: set[Any] = set()
        found = nodes()
        if not found:
            raise EngineError("the Ray cluster has no node that is alive")
        self._gpu = any(node.gpus for node in found)
        self._threads_each = 1 if self._gpu else threads
        room = {node: node.gpus if self._gpu else node.cpus // threads for node in found}
        if not any(room.values()):
            raise EngineError(f"no node of the Ray cluster has {threads} CPUs, which one evaluation needs")
        _require_alike([node for node in found if room[node]])
        wanted, self._lanes = _layout(sum(room.values()), slots, workers, self._gpu)
        try:
            self._workers = self._chosen(self._started(wanted))
        except BaseException:
            self._kill_all()
            raise
        self.environment = self._workers[0].environment
        self.slots = len(self._workers) * self._lanes
        self._alive = len(self._workers)
        self._seats = [
            threading.Thread(target=self._serve, args=(index,), daemon=True)
            for index in range(len(self._workers))
            for _ in range(self._lanes)
        ]
        for thread in self._seats:
            thread.start()

    def close(self) -> None:
        """End the workers with all that they run. Unfinished futures raise InfrastructureError."""
        self._closing.set()
        self._kill_all()
        self._end_waiting()
        for thread in self._seats:
            thread.join(timeout=10)
        self._fail_waiting("the executor was closed while the call waited")

    # -- workers --------------------------------------------------------------------------------------------------

    def _actor(self) -> Any:
        import ray

        from benchmark.executors.ray_worker import Worker

        cpus, gpus = (0, 1) if self._gpu else (self._threads_each, 0)
        options: dict[str, Any] = {"max_restarts": 0, "max_concurrency": self._lanes + 1}
        made: Any = ray.remote(num_cpus=cpus, num_gpus=gpus, **options)(Worker)
        actor = made.remote(self._lanes, self._threads_each, int(self._gpu))
        with self._lock:
            self._actors.add(actor)
        return actor

    def _kill(self, actor: Any) -> None:
        with self._lock:
            self._actors.discard(actor)
        kill(actor)

    def _kill_all(self) -> None:
        """Those that still start, too: a thread that waits for one goes on."""
        for actor in list(self._actors):
            self._kill(actor)

    def _started(self, count: int) -> list[_Worker]:
        """So many workers, or those that answered. Raises EngineError when none did."""
        asked = [(actor, self._ask_environment(actor)) for actor in [self._actor() for _ in range(count)]]
        deadline = time.monotonic() + _START
        workers, reasons = [], []
        for actor, answer in asked:
            try:
                workers.append(answer(max(1.0, deadline - time.monotonic())))
            except (WorkerLost, InfrastructureError) as error:
                self._kill(actor)
                reasons.append(str(error))
        if not workers:
            raise EngineError(f"no worker started on the Ray cluster: {reasons[0] if reasons else 'no room'}")
        if reasons:
            self._say(f"{len(reasons)} of {count} Ray workers did not start: {reasons[0]}")
        return workers

    def _ask_environment(self, actor: Any) -> Callable[[float], _Worker]:
        """Ask a worker where it is, what is installed there and for its environment; the result waits for all."""
        told, stream = actor.facts.remote(), stream_of(actor, self._describe, 600.0)

        def answered(timeout: float) -> _Worker:
            try:
                facts = read_facts(get_bytes(told, timeout))
            except ValueError as error:
                raise WorkerLost(f"its facts cannot be read: {error}") from None
            host = str(facts.get("host"))
            if unequal := differences({host: facts}):
                raise WorkerLost("; ".join(unequal))
            place = f"{host}, GPU {facts['gpu']}" if facts.get("gpu") else host
            return _Worker(actor, host, place, answer_of(self._describe, stream, timeout))

        return answered

    def _chosen(self, workers: list[_Worker]) -> list[_Worker]:
        """The workers of the most frequent kind, once their data are compared. The others are ended."""
        kinds = Counter(tuple(sorted(worker.environment.items())) for worker in workers)
        chosen = dict(kinds.most_common(1)[0][0])
        if self._gpu and chosen.get("device", "").startswith("cpu"):
            raise EngineError(
                f"the Ray cluster has GPUs, but torch on {workers[0].host} cannot use them "
                f"(device {chosen['device']}): install a torch for them there, or start Ray with --num-gpus 0"
            )
        same = [worker for worker in workers if worker.environment == chosen]
        for worker in workers:
            if worker.environment != chosen:
                self._kill(worker.actor)
        if len(kinds) > 1:
            others = "; ".join(
                f"{count} with {_difference(chosen, dict(kind))}"
                for kind, count in kinds.items()
                if dict(kind) != chosen
            )
            self._say(f"a run uses one kind of machine: {len(same)} workers with {chosen.get('device')}, not {others}")
        if unequal := self._data_differences(same):
            raise EngineError(unequal)
        return same

    def _data_differences(self, workers: Sequence[_Worker]) -> str | None:
        """What data sets one of these hosts lacks, or has otherwise than the first host of this executor."""
        if self._data is None:
            return None
        one_of_each = {worker.host: worker.actor for worker in workers}
        streams = {host: stream_of(actor, self._data, 600.0) for host, actor in one_of_each.items()}
        for host, stream in streams.items():
            for name, value in answer_of(self._data, stream, 600.0).items():
                if value.startswith("missing"):
                    return f"{host} lacks the data set {name}: {value}"
                if self._hashes.setdefault(name, value) != value:
                    return f"the data set {name} on {host} is not the one on the other machines"
        return None

    # -- jobs -----------------------------------------------------------------------------------------------------

    def _serve(self, index: int) -> None:
        """The thread of one slot of worker `index`."""
        while not self._closing.is_set():
            job = self._take()
            if job is None:
                return
            worker = self._workers[index]
            try:
                job.future.set_result(self._run(worker, job))
            except WorkerLost as loss:
                self._run_again(job, worker, loss)
                self._replaced(index, worker)
            except BaseException as error:  # noqa: BLE001 - the future passes every error on
                job.future.set_exception(error)

    def _run(self, worker: _Worker, job: SubmittedCall) -> Any:
        """Raises WorkerLost, InfrastructureError."""

        def begun() -> None:
            job.attempts += 1
            if job.on_start is not None:
                job.on_start(worker.place)

        job.call, job.on_ask = prepared(job.call, job.on_ask), None  # a second attempt gets the same tensors
        return answer_of(job.call, stream_of(worker.actor, job.call, job.timeout), None, job.on_report, begun)

    def _run_again(self, job: SubmittedCall, worker: _Worker, loss: WorkerLost) -> None:
        """Let the call of a lost worker run elsewhere, unless it has begun twice."""
        job.losses += 1
        if self._closing.is_set():
            job.fail("the executor was closed while the call ran")
        elif job.attempts >= 2 or job.losses >= _MOST_LOSSES:
            job.fail(f"the machines of an evaluation died twice: {loss}")
        else:
            again = "its evaluation is run again" if job.attempts else "an evaluation waits for another one"
            self._say(f"a worker on {worker.place} died ({loss}); {again}")
            job.priority = ()
            self._put(job)

    def _replaced(self, index: int, worker: _Worker) -> None:
        """Replace a lost worker, or wait until another lane of it has done so."""
        with self._lock:
            ours = worker not in self._lost
            if ours:
                self._lost.append(worker)
                self._alive -= 1
        if ours:
            self._kill(worker.actor)
            self._replace(index)
        while self._workers[index] is worker and not self._closing.wait(0.2):
            pass

    def _replace(self, index: int) -> None:
        """Start a worker in place of one that died, as soon as the cluster has room for it."""
        lost, said = time.monotonic(), ""
        while not self._closing.is_set():
            try:
                again = self._started(1)[0]
                why = self._unfit(again)
            except (EngineError, InfrastructureError, WorkerLost) as error:
                if str(error) != said:
                    said = str(error)
                    self._say(f"a lost worker is not replaced yet: {error}")
                if self._alive == 0 and time.monotonic() - lost > _PATIENCE:
                    self._fail_waiting("no worker is left on the Ray cluster")
                self._closing.wait(_AGAIN)
                continue
            if why is None:
                with self._lock:
                    self._workers[index] = again
                    self._alive += 1
                return
            self._say(f"a new worker on {again.place} is not used: {why}")
            self._kill(again.actor)
            self._closing.wait(_AGAIN)

    def _unfit(self, worker: _Worker) -> str | None:
        """Why a worker that came later cannot go on with this run. Raises WorkerLost, InfrastructureError."""
        if worker.environment != self.environment:
            return f"it has {_difference(self.environment, worker.environment)}"
        return self._data_differences([worker])


@dataclass(frozen=True, eq=False)
class _Worker:
    actor: Any
    host: str
    place: str
    environment: dict[str, str]


def _require_alike(found: Sequence[Node]) -> None:
    if unequal := differences(node_facts(found)):
        raise EngineError(f"the machines of the Ray cluster are not alike: {'; '.join(unequal)}")


def _layout(room: int, slots: int | None, workers: int | None, gpu: bool) -> tuple[int, int]:
    """How many actors of those that have `room`, and the lanes of each: on GPUs as wide as possible before deep."""
    if not gpu:
        return min(room, workers or slots or room), 1
    lanes = workers or _LANES
    actors = min(room, slots or room)
    return actors, min(lanes, -(-slots // actors)) if slots else lanes


def _difference(wanted: Mapping[str, str], found: Mapping[str, str]) -> str:
    unequal = [name for name in {**wanted, **found} if wanted.get(name) != found.get(name)]
    return ", ".join(f"{name} {found.get(name)!r} instead of {wanted.get(name)!r}" for name in unequal)
