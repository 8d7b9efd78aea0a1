"""Runs evaluations on a Ray cluster: an actor for each GPU, or for each slot of CPUs.

Ray schedules, moves bytes and notices what dies. What is ours: the order of the calls, one more attempt for a call
whose machine died, and that nothing which comes back is unpickled.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from benchmark.executors.checks import DescribeData, Facts, differences, read_facts
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
from benchmark.executors.wire import answer_from_json, report_from_json

OLDEST = (2, 50)
_CONNECT = 5.0
"""Seconds to wait for a port."""
_START = 120.0
"""Seconds to wait for the first workers: they import torch."""
_AGAIN = 5.0
"""Seconds between two attempts to replace a worker."""
_PATIENCE = 120.0
"""Seconds without any worker after which the calls fail."""
Say = Callable[[str], None]


@dataclass
class _Job:
    call: Call[Any]
    timeout: float | None
    on_report: Report | None
    on_ask: Ask | None
    on_start: OnStart | None
    priority: Priority
    attempts: int = 0
    ready: Call[Any] | None = None
    """The call with its tensors, kept for a second attempt."""
    future: Future[Any] = field(default_factory=Future)


@dataclass(frozen=True)
class Node:
    """A node of the cluster as Ray lists it."""

    id: str
    name: str
    cpus: int
    gpus: int
    kind: str
    """The model of its GPUs, or empty."""


class _Gone(Exception):
    """The worker or its node died."""


def nodes() -> list[Node]:
    """The nodes that are alive, of the cluster that this process is connected to."""
    import ray

    found = []
    for node in ray.nodes():
        if not node.get("Alive"):
            continue
        resources = dict(node.get("Resources") or {})
        kinds = [name.partition(":")[2] for name in resources if name.startswith("accelerator_type:")]
        name = f"{node.get('NodeManagerHostname') or node.get('NodeName')} ({str(node.get('NodeID'))[:8]})"
        cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
        found.append(Node(str(node["NodeID"]), name, cpus, gpus, kinds[0] if gpus and kinds else ""))
    return found


@contextlib.contextmanager
def connected(address: str, *, cpus: int | None = None) -> Iterator[None]:
    """A connection to the cluster at `auto`, `local` (a new one of this machine) or HOST:PORT. Raises EngineError."""
    try:
        import ray
    except ImportError:
        raise EngineError("--executor ray needs Ray: pip install 'initsearch[ray]'") from None
    version = tuple(int(part) for part in ray.__version__.split(".")[:2])
    if version < OLDEST:
        raise EngineError(
            f"Ray {ray.__version__} is installed, and --executor ray needs {OLDEST[0]}.{OLDEST[1]} or newer"
        )
    if ray.is_initialized():
        with _nothing_unpickled():
            yield
        return
    if address not in ("auto", "local"):
        _require_port(address)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # Ray reports its use to its makers unless told not to
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "namespace": "initsearch"}
    if address == "local":
        options |= {"num_cpus": cpus, "include_dashboard": False}
    try:
        ray.init(address=address, **options)
    except ConnectionError:
        raise EngineError(_no_ray(address)) from None
    except RuntimeError as error:  # Ray's own words name both versions
        if "ersion mismatch" in str(error):
            raise EngineError(f"--ray-address {address}: {' '.join(str(error).split())}") from None
        raise EngineError(f"{_no_ray(address)} ({' '.join(str(error).split())[:300]})") from None
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)
    try:
        with _nothing_unpickled():
            yield
    finally:
        ray.shutdown()


def _no_ray(address: str) -> str:
    if address == "auto":
        return "--ray-address auto: no Ray runs here; start one with `ray start --head`, or give local or HOST:PORT"
    return f"--ray-address {address}: no Ray cluster answers there"


def _require_port(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=_CONNECT):
            pass
    except (OSError, ValueError, OverflowError) as error:
        raise EngineError(f"{_no_ray(address)}: {error}") from None


@contextlib.contextmanager
def _nothing_unpickled() -> Iterator[None]:
    """While the block runs, this process takes only raw bytes and Ray's own error codes from the cluster.

    Ray unpickles whatever a worker claims to be an object or an exception. Ours return bytes.
    """
    import ray
    from ray.exceptions import RayError

    def refuse(*arguments: object, **named: object) -> Any:
        raise InfrastructureError("a worker sent an object that would have to be unpickled; only bytes are taken")

    context: Any = ray._private.worker.global_worker.get_serialization_context()
    kept, from_bytes = context._deserialize_msgpack_data, RayError.from_ray_exception
    context._deserialize_msgpack_data = refuse
    RayError.from_ray_exception = staticmethod(
        lambda error: RayError(str(getattr(error, "formatted_exception_string", "")))
    )
    try:
        yield
    finally:
        context._deserialize_msgpack_data = kept
        RayError.from_ray_exception = staticmethod(from_bytes)


def node_facts(found: Sequence[Node], timeout: float = 60.0) -> dict[str, Facts]:
    """Node → what is installed there. A node that does not answer has no facts."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from benchmark.executors import probe

    ray.cloudpickle.register_pickle_by_value(probe)  # a node without this package must be able to say so
    try:
        task = ray.remote(num_cpus=0, max_retries=0)(probe.facts)
        asked = {
            node.name: task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)).remote()
            for node in found
        }
        facts: dict[str, Facts] = {}
        for name, reference in asked.items():
            try:
                facts[name] = read_facts(ray.get(reference, timeout=timeout))
            except (ray.exceptions.RayError, ValueError, TypeError):
                facts[name] = {}
        return facts
    finally:
        ray.cloudpickle.unregister_pickle_by_value(probe)


class RayExecutor:
    """Runs calls in actors of a Ray cluster. Use it inside `connected`.

    `slots`: at most so many workers on CPUs (None: as many as fit). A cluster with GPUs has a worker for each of them,
    with `lanes` slots. All workers have the environment that `describe`
    returns; of several kinds of machines the most frequent one is used, and that is said. A call whose worker dies is
    run once more elsewhere; a second death is an InfrastructureError. Raises EngineError.
    """

    remote = True

    def __init__(
        self,
        *,
        slots: int | None,
        lanes: int = 1,
        threads: int,
        describe: Call[dict[str, str]],
        data: DescribeData | None = None,
        say: Say = lambda text: None,
    ) -> None:
        self._say = say
        self._threads_each = threads
        self._describe = describe
        self._queue: queue.PriorityQueue[tuple[Priority, int, _Job | None]] = queue.PriorityQueue()
        self._order = itertools.count()
        self._closing = threading.Event()
        self._lock = threading.Lock()
        found = nodes()
        if not found:
            raise EngineError("the Ray cluster has no node that is alive")
        unequal = differences(node_facts(found))
        if unequal:
            raise EngineError(f"the machines of the Ray cluster are not alike: {'; '.join(unequal)}")
        self._gpu = any(node.gpus for node in found)
        self._lanes = lanes if self._gpu else 1
        room = sum(node.gpus if self._gpu else node.cpus // threads for node in found)
        if room < 1:
            raise EngineError(f"no node of the Ray cluster has {threads} CPUs, which one evaluation needs")
        wanted = room if slots is None else min(room, slots)
        workers = self._started(wanted)
        self.environment, workers = self._of_one_kind(workers)
        if data is not None and data.names:
            self._compare_data(workers, data)
        self.slots = len(workers) * self._lanes
        self._alive = len(workers)
        self._last_alive = time.monotonic()
        self._workers = list(workers)
        self._seats = [
            threading.Thread(target=self._serve, args=(index,), daemon=True)
            for index in range(len(workers))
            for _ in range(self._lanes)
        ]
        for thread in self._seats:
            thread.start()

    # -- workers --------------------------------------------------------------------------------------------------

    def _actor(self) -> Any:
        import ray

        from benchmark.executors.ray_worker import Worker

        resources = {"num_gpus": 1, "num_cpus": 0} if self._gpu else {"num_cpus": self._threads_each, "num_gpus": 0}
        made = ray.remote(max_restarts=0, max_concurrency=self._lanes + 1, **resources)(Worker)
        return made.remote(self._lanes, self._threads_each, int(self._gpu))

    def _started(self, count: int) -> list[_Worker]:
        """So many workers, or those that answered."""
        starting = [self._actor() for _ in range(count)]
        asked = [(actor, self._ask_environment(actor)) for actor in starting]
        deadline = time.monotonic() + _START
        workers, reasons = [], []
        for actor, answer in asked:
            try:
                workers.append(answer(max(1.0, deadline - time.monotonic())))
            except (_Gone, InfrastructureError) as error:
                _kill(actor)
                reasons.append(str(error))
        if not workers:
            raise EngineError(f"no worker started on the Ray cluster: {reasons[0] if reasons else 'no room'}")
        if reasons:
            self._say(f"{len(reasons)} of {count} Ray workers did not start: {reasons[0]}")
        return workers

    def _ask_environment(self, actor: Any) -> Callable[[float], _Worker]:
        """Ask a worker where it is and for its environment; the result waits for both."""
        place, stream = actor.place.remote(), _stream(actor, self._describe, 600.0)

        def answered(timeout: float) -> _Worker:
            where = _get(place, timeout).decode(errors="replace")[:200]
            return _Worker(actor, where, _answer(self._describe, stream, timeout, None))

        return answered

    def _of_one_kind(self, workers: list[_Worker]) -> tuple[dict[str, str], list[_Worker]]:
        kinds = Counter(tuple(sorted(worker.environment.items())) for worker in workers)
        chosen = dict(kinds.most_common(1)[0][0])
        same = [worker for worker in workers if worker.environment == chosen]
        for worker in workers:
            if worker.environment != chosen:
                _kill(worker.actor)
        if len(kinds) > 1:
            others = "; ".join(
                f"{count} with {_difference(chosen, dict(kind))}"
                for kind, count in kinds.items()
                if dict(kind) != chosen
            )
            self._say(f"a run uses one kind of machine: {len(same)} workers with {chosen.get('device')}, not {others}")
        return chosen, same

    def _compare_data(self, workers: Sequence[_Worker], data: DescribeData) -> None:
        one_of_each = {worker.place: worker for worker in workers}
        streams = {place: _stream(worker.actor, data, 600.0) for place, worker in one_of_each.items()}
        found = {place: _answer(data, stream, 600.0, None) for place, stream in streams.items()}
        first_place, first = next(iter(found.items()))
        for place, hashes in found.items():
            for name, value in hashes.items():
                if value.startswith("missing"):
                    raise EngineError(f"{place} lacks the data set {name}: {value}")
                if value != first[name]:
                    raise EngineError(f"the data set {name} on {place} is not the one on {first_place}")

    # -- the seam -------------------------------------------------------------------------------------------------

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
        """See `Executor.submit`."""
        if self._closing.is_set():
            raise RuntimeError("the executor is closed")
        job = _Job(call, timeout, on_report, on_ask, on_start, priority)
        self._put(job)
        return job.future

    def close(self) -> None:
        """End the workers with all that they run. Unfinished futures raise InfrastructureError."""
        self._closing.set()
        for worker in self._workers:
            _kill(worker.actor)
        for _ in self._seats:
            self._queue.put(((), next(self._order), None))
        for thread in self._seats:
            thread.join(timeout=10)
        with contextlib.suppress(queue.Empty):
            while True:
                job = self._queue.get_nowait()[2]
                if job is not None and not job.future.done():
                    job.future.set_exception(InfrastructureError("the executor was closed while the call waited"))

    def __enter__(self) -> RayExecutor:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _put(self, job: _Job) -> None:
        self._queue.put((job.priority, next(self._order), job))

    def _serve(self, index: int) -> None:
        """The thread of one slot of worker `index`."""
        while not self._closing.is_set():
            worker = self._workers[index]
            job = self._queue.get()[2]
            if job is None:
                return
            if job.attempts == 0 and not job.future.set_running_or_notify_cancel():
                continue
            try:
                job.future.set_result(self._run(worker, job))
            except _Gone as death:
                self._gone(index, worker, job, death)
            except BaseException as error:  # noqa: BLE001 - the future passes every error on
                job.future.set_exception(error)

    def _run(self, worker: _Worker, job: _Job) -> Any:
        job.attempts += 1
        if job.ready is None:
            job.ready = prepared(job.call, job.on_ask)
        if job.on_start is not None:
            job.on_start(worker.place)
        answer = _answer(job.call, _stream(worker.actor, job.ready, job.timeout), None, job.on_report)
        job.ready = None
        return answer

    def _gone(self, index: int, worker: _Worker, job: _Job, death: _Gone) -> None:
        """A worker died: run its call elsewhere, once, and replace the worker."""
        if self._closing.is_set():
            job.future.set_exception(InfrastructureError("the executor was closed while the call ran"))
            return
        if job.attempts >= 2:
            job.future.set_exception(InfrastructureError(f"the machines of an evaluation died twice: {death}"))
        else:
            self._say(f"a worker on {worker.place} died ({death}); its evaluation is run again")
            job.priority = ()
            self._put(job)
        with self._lock:
            if self._workers[index] is not worker:
                return  # another lane of this worker replaces it
            self._alive -= 1
        _kill(worker.actor)
        lost = time.monotonic()
        while not self._closing.is_set():
            try:
                again = self._started(1)[0]
            except EngineError:
                with self._lock:
                    nobody = self._alive == 0 and time.monotonic() - lost > _PATIENCE
                if nobody:
                    self._fail_all("no worker is left on the Ray cluster")
                self._closing.wait(_AGAIN)
                continue
            if again.environment != self.environment:
                self._say(f"{again.place} has {_difference(self.environment, again.environment)}: it is not used")
                _kill(again.actor)
                self._closing.wait(_AGAIN)
                continue
            with self._lock:
                self._workers[index] = again
                self._alive += 1
            return

    def _fail_all(self, why: str) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                job = self._queue.get_nowait()[2]
                if job is None:
                    self._queue.put(((), next(self._order), None))
                    return
                job.future.set_exception(InfrastructureError(why))


@dataclass(frozen=True)
class _Worker:
    actor: Any
    place: str
    environment: dict[str, str]


def _stream(actor: Any, call: Call[Any], timeout: float | None) -> Iterator[Any]:
    stream: Iterator[Any] = actor.run.options(num_returns="streaming").remote(call, timeout)
    return stream


def _get(reference: Any, timeout: float | None) -> bytes:
    """The bytes of an object. Raises _Gone when the worker died, InfrastructureError for anything but bytes."""
    import ray

    try:
        data = ray.get(reference, timeout=timeout)
    except ray.exceptions.GetTimeoutError:
        raise _Gone(f"no answer within {timeout:.0f} s") from None
    except ray.exceptions.RayError as error:
        raise _Gone(" ".join(str(error).split())[:300]) from None
    if not isinstance(data, bytes):
        raise InfrastructureError(f"a Ray worker sent a {type(data).__name__}, not bytes")
    return data


def _answer(call: Call[AnswerT], stream: Any, timeout: float | None, on_report: Report | None) -> AnswerT:
    """Read a worker's messages up to the answer. Raises _Gone, InfrastructureError."""
    import ray

    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        left = None if deadline is None else max(0.1, deadline - time.monotonic())
        if left is not None and not ray.wait([stream], timeout=left)[0]:
            raise _Gone(f"no answer within {timeout:.0f} s")
        try:
            reference = next(stream)
        except StopIteration:
            raise _Gone("it ended without an answer") from None
        message = _get(reference, left)
        kind, content = message[:1], message[1:]
        if kind == b"R":
            if on_report is not None:
                with contextlib.suppress(ValueError):
                    on_report(report_from_json(call, content))
        elif kind == b"A":
            return answer_from_json(call, content)
        else:
            text = content.decode(errors="replace")[:2000]
            if "WrongMachine" in text:
                raise _Gone(text.strip().splitlines()[-1])
            raise InfrastructureError(f"an evaluation failed on a Ray worker:\n{text}")


def _kill(actor: Any) -> None:
    import ray

    with contextlib.suppress(Exception):
        ray.kill(actor, no_restart=True)


def _difference(wanted: Mapping[str, str], found: Mapping[str, str]) -> str:
    unequal = [name for name in {**wanted, **found} if wanted.get(name) != found.get(name)]
    return ", ".join(f"{name} {found.get(name)!r} instead of {wanted.get(name)!r}" for name in unequal)
