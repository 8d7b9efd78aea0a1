"""A Ray cluster: the connection, its nodes, and what comes back from its workers, of which nothing is unpickled."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from benchmark.executors.checks import Facts, read_facts
from benchmark.executors.ray_token import refusal, shown_token
from benchmark.executors.seam import AnswerT, Call, EngineError, InfrastructureError, Report, TookTooLong
from benchmark.executors.wire import answer_from_json, report_from_json

OLDEST = (2, 50)
_CONNECT = 5.0
"""Seconds to wait for a port."""


@dataclass(frozen=True)
class Node:
    """A node of the cluster as Ray lists it."""

    id: str
    name: str
    cpus: int
    gpus: int
    kind: str
    """The model of its GPUs, or empty."""


class WorkerLost(Exception):
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
    require_reachable(address)
    ours = _connect(address, cpus)
    with _nothing_unpickled():
        try:
            yield
        finally:
            if ours:
                import ray

                ray.shutdown()


def _connect(address: str, cpus: int | None) -> bool:
    """Connect, unless this process is connected. Return whether it did. Raises EngineError."""
    import ray

    if ray.is_initialized():
        return False
    os.environ.pop("RAY_ADDRESS", None)  # `auto` is the cluster of this machine, whatever a variable says
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # Ray reports its use to its makers unless told not to
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "namespace": "initsearch"}
    if address == "local":
        options |= {"num_cpus": cpus, "include_dashboard": False}
    try:
        with shown_token(address, _no_ray(address)):
            ray.init(address=address, **options)
    except (ConnectionError, ray.exceptions.RayError) as error:
        refused = "AuthenticationError" in f"{type(error).__name__} {error.__cause__}"
        raise EngineError(refusal(address, os.environ) if refused else _no_ray(address)) from None
    except RuntimeError as error:  # Ray's own words name both versions
        if "ersion mismatch" in str(error):
            raise EngineError(f"--ray-address {address}: {' '.join(str(error).split())}") from None
        raise EngineError(f"{_no_ray(address)} ({' '.join(str(error).split())[:300]})") from None
    except Exception as error:  # Ray has no type for this one
        if "timed out during startup" not in str(error):
            raise
        raise EngineError(
            f"--ray-address {address}: Ray did not start here within the 30 s that it gives itself; this machine is "
            "busy. Try again, or start it with `ray start --head` and give auto"
        ) from None
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return True


def _no_ray(address: str) -> str:
    if address == "auto":
        return "--ray-address auto: no Ray runs here; start one with `ray start --head`, or give local or HOST:PORT"
    return f"--ray-address {address}: no Ray cluster answers there"


def require_reachable(address: str) -> None:
    """Raise EngineError when Ray is missing or too old, or nothing listens at the address."""
    try:
        installed = version("ray")
    except PackageNotFoundError:
        raise EngineError("--executor ray needs Ray: pip install 'initsearch[ray]'") from None
    if tuple(int(part) for part in installed.split(".")[:2]) < OLDEST:
        raise EngineError(f"Ray {installed} is installed, and --executor ray needs {OLDEST[0]}.{OLDEST[1]} or newer")
    if address in ("auto", "local"):
        return
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=_CONNECT):
            pass
    except (OSError, ValueError, OverflowError) as error:
        raise EngineError(f"{_no_ray(address)}: {getattr(error, 'strerror', None) or error}") from None


@contextlib.contextmanager
def _nothing_unpickled() -> Iterator[None]:
    """While the block runs, this process takes only raw bytes and Ray's own error codes from the cluster.

    Ray unpickles whatever a worker claims to be an object or an exception. Ours return bytes. And Ray prints what its
    daemons report of a node's death on standard output, which is the user's.
    """
    import ray
    from ray.exceptions import RayError

    worker: Any = ray._private.worker
    context: Any = worker.global_worker.get_serialization_context()
    kept, from_bytes, shown = context._deserialize_msgpack_data, RayError.from_ray_exception, worker.print_to_stdstream

    def only_error_codes(data: Any, metadata: Sequence[bytes], *more: Any) -> Any:
        if not metadata[0].isdigit():  # only the number of an error has a message that is not pickled
            raise InfrastructureError("a worker sent an object that would have to be unpickled; only bytes are taken")
        return kept(data, metadata, *more)

    worker.print_to_stdstream = lambda *arguments, **named: None
    context._deserialize_msgpack_data = only_error_codes
    RayError.from_ray_exception = staticmethod(
        lambda error: RayError(str(getattr(error, "formatted_exception_string", "")))
    )
    try:
        yield
    finally:
        context._deserialize_msgpack_data = kept
        RayError.from_ray_exception = staticmethod(from_bytes)
        worker.print_to_stdstream = shown


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


def stream_of(actor: Any, call: Call[Any], timeout: float | None) -> Iterator[Any]:
    stream: Iterator[Any] = actor.run.options(num_returns="streaming").remote(call, timeout)
    return stream


def get_bytes(reference: Any, timeout: float | None) -> bytes:
    """The bytes of an object. Raises WorkerLost when the worker died, InfrastructureError for anything but bytes."""
    import ray

    try:
        data = ray.get(reference, timeout=timeout)
    except ray.exceptions.GetTimeoutError:
        raise WorkerLost(f"no answer within {timeout:.0f} s") from None
    except ray.exceptions.RayError as error:
        raise WorkerLost(" ".join(str(error).split())[:300]) from None
    if not isinstance(data, bytes):
        raise InfrastructureError(f"a Ray worker sent a {type(data).__name__}, not bytes")
    return data


def answer_of(
    call: Call[AnswerT],
    stream: Any,
    timeout: float | None,
    on_report: Report | None = None,
    on_begin: Callable[[], None] = lambda: None,
) -> AnswerT:
    """Read a worker's messages (see `Worker.run`) up to the answer.

    Raises WorkerLost, TookTooLong, InfrastructureError.
    """
    import ray

    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        left = None if deadline is None else max(0.1, deadline - time.monotonic())
        if left is not None and not ray.wait([stream], timeout=left)[0]:
            raise WorkerLost(f"no answer within {timeout:.0f} s")
        try:
            reference = next(stream)
        except StopIteration:
            raise WorkerLost("it ended without an answer") from None
        message = get_bytes(reference, left)
        kind, content = message[:1], message[1:]
        if kind == b"R":
            if on_report is not None:
                with contextlib.suppress(ValueError):
                    on_report(report_from_json(call, content))
        elif kind == b"S":
            on_begin()
        elif kind == b"A":
            return answer_from_json(call, content)
        else:
            text = content.decode(errors="replace")[:2000]
            if "WrongMachine" in text:
                raise WorkerLost(text.strip().splitlines()[-1])
            if kind == b"T":
                raise TookTooLong(f"on a Ray worker {text}")
            raise InfrastructureError(f"an evaluation failed on a Ray worker:\n{text}")


def kill(actor: Any) -> None:
    import ray

    with contextlib.suppress(Exception):
        ray.kill(actor, no_restart=True)
