"""A process that has imported everything and forks an `agent` command in milliseconds, to be harmed on the way.

Starting `agent search` takes seconds of imports and of starting processes; harming dozens of them would take minutes.
Here each command is a forked child with its own session, signals, exit code, files, git and event log. Four things
are not a user's: evaluations run in the child itself instead of in processes of their own; one isolation, which the
server keeps, serves all children; equal trainings happen once for all tests, also those of hidden tasks, whose results
no store of a user has; a model's server is asked again after a hundredth of the pauses. What a session begins in the
background is a fork of the command. Kills of the whole, with those processes, are in test_resume.py.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import gc
import importlib
import io
import json
import mmap
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, NoReturn

from sandbox.isolate import IsolationCrashed, Level
from sandbox.launcher import STARTUP_SECONDS
from tests.agent.harm_executor import Here

OPERATIONS = frozenset(
    {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.truncate", "subprocess.Popen"}
)
"""What is counted, so that "kill it at the n-th" means a moment of the search and not of the machine's load."""


def serve(trained: Path) -> None:
    """Read orders from stdin, fork, answer on stdout, until stdin ends."""
    gc.disable()  # imports make no garbage, and a child that looks for some copies all that was imported
    import torch
    import typer

    import benchmark.executors
    import sandbox.isolate
    from benchmark.data import load_dataset
    from sandbox.isolate import Isolation, Job
    from sandbox.region import scaffold

    torch.set_num_threads(1)
    load_dataset("tiny")
    isolation = Isolation(at_once=True)
    assert isolation.initialise(job := Job(scaffold().region, "resnet20", 10, 0)).ok
    assert isolation.repeat(job).ok
    pair = {"first": isolation._first, "second": isolation._second}
    lines = [_Line(interpreter, trained / f"{os.getpid()}.{name}.lock") for name, interpreter in pair.items()]
    Here.trained = trained

    def opened(*, level: Level = "auto", **ignored: Any) -> Isolation:
        """The server's isolation, unless somebody asks for none."""
        Here.level = level
        return Isolation(level=level) if level == "none" else shared

    shared, close = isolation, isolation.close
    isolation.close = lambda: None  # type: ignore[method-assign]
    # Before anything imports them from there.
    sandbox.isolate.Isolation = opened  # type: ignore[assignment, misc]
    benchmark.executors.LocalExecutor = Here  # type: ignore[assignment, misc]
    for name in _COMMANDS:
        importlib.import_module(name)
    from agent.report import plotting

    plotting.curves("", [plotting.Line("", [0, 1], [0, 1])], x="", y="", alt="")  # matplotlib has its fonts then
    from agent.llm.client import ChatClient

    pauses = ChatClient.__init__.__kwdefaults__
    assert pauses is not None
    pauses["first_wait"] /= 100
    typer.main.get_command = functools.cache(typer.main.get_command)
    typer.main.get_command(sys.modules["agent.cli"].app)
    gc.enable()
    gc.collect()
    gc.freeze()

    _carry_out(sys.stdin, sys.stdout, lines)
    close()


def _carry_out(orders: IO[str], answers: IO[str], lines: list[_Line]) -> None:
    """Fork for each order, until they end."""
    operations = mmap.mmap(-1, 8)

    def say(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=answers, flush=True)

    for line in orders:
        order = json.loads(line)
        operations[:] = bytes(8)
        for interpreter in lines:
            interpreter.mend()
        # Opened before the test is answered, which then closes it: a terminal that nobody has open has ended.
        terminal = os.open(order["terminal"], os.O_RDWR | os.O_NOCTTY) if "terminal" in order else None
        child = os.fork()
        if child == 0:
            if "beside" not in order:
                for interpreter in lines:
                    interpreter.inherit()
                _end_with(functools.partial(_run, order, operations, terminal))
            into, out = map(Path, order["beside"])
            with into.open() as its_orders, out.open("w") as its_answers:
                _carry_out(its_orders, its_answers, lines)
            os._exit(0)
        if "beside" in order:
            continue
        if terminal is not None:
            os.close(terminal)
        say({"pid": child})
        _, status = os.waitpid(child, 0)
        say({"exit": os.waitstatus_to_exitcode(status), "operations": struct.unpack("Q", operations)[0]})


class _Line:
    """The line to one interpreter of the isolation, which a server and all its children use, one at a time.

    In a user's processes a zygote ends with the one that asks it. Here it outlives whoever is killed in the middle of a
    request, and the next one reads the answer that nobody wanted.
    """

    def __init__(self, interpreter: Any, lock: Path) -> None:
        self._interpreter, self._lock = interpreter, lock
        lock.touch()
        self._watch()

    def _watch(self) -> None:
        """Note when an answer is due."""
        zygote, self._due = self._interpreter.zygote, mmap.mmap(-1, 1)
        request, receive, due = zygote._request, zygote._receive, self._due

        def noted_request(*arguments: Any) -> None:
            due[0] = 1
            request(*arguments)

        def noted_receive() -> Any:
            answer = receive()
            due[0] = 0
            return answer

        zygote._request, zygote._receive = noted_request, noted_receive

    def inherit(self) -> None:
        """Let a child use it. The zygote is not the child's own, so its Popen would say that it ended."""
        acquire = self._interpreter.acquire
        self._interpreter.zygote._process.poll = lambda: None

        @contextlib.contextmanager
        def one_at_a_time() -> Iterator[Any]:
            with self._held(), acquire() as zygote:
                self._settle()
                yield zygote

        self._interpreter.acquire = one_at_a_time

    def mend(self) -> None:
        """In the server: read an answer that is still due, or start the zygote again."""
        interpreter = self._interpreter
        with self._held():
            try:
                self._settle()
            except (IsolationCrashed, ValueError):
                interpreter.zygote.close()
                interpreter.zygote = interpreter._start()
                interpreter.zygote._await_start()
                self._watch()

    def _settle(self) -> None:
        """Wait for an answer that is due, and forget it. Raises IsolationCrashed if the zygote has ended, too."""
        zygote = self._interpreter.zygote
        control = zygote._control
        if self._due[0] or select.select([control], [], [], 0)[0]:  # without a request it has only its end to say
            control.settimeout(10)
            zygote._receive()
            control.settimeout(STARTUP_SECONDS)

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        """Keep other processes away. A lock of this kind ends with its process."""
        with self._lock.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


_COMMANDS = (
    *("agent.analysis.null_claims", "agent.cli", "agent.cli.check", "agent.engine.search", "agent.progress"),
    *("agent.proposers.llm", "agent.proposers.optuna_search", "agent.report", "agent.report.page"),
    *("agent.runs.artifacts", "agent.runs.reviews", "agent.sessions.background", "agent.sessions.checking"),
    *("agent.sessions.command", "agent.sessions.worker"),
    *("agent.studies.ablation", "agent.studies.retrain", "agent.studies.tournament", "agent.studies.verify"),
    *("benchmark.building", "benchmark.checkpoint", "benchmark.host_data", "benchmark.network_look"),
    *("benchmark.precision", "benchmark.signal_stats", "benchmark.steps", "benchmark.train", "benchmark.weights"),
    *("git", "jinja2", "typer._adapters"),
)
"""Imported before the fork, so that a command need not."""


def _end_with(work: Callable[[], None]) -> NoReturn:
    """In a fork: do the work, and end as an interpreter would."""
    code = 1
    try:
        work()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - a traceback for the test, and never back into what forked this process
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _run(order: dict[str, Any], operations: mmap.mmap, terminal: int | None) -> None:
    """In the child: harm as ordered, then what `agent` does."""
    from agent import cli
    from agent.clock import Clock
    from agent.runs import log as events

    os.setsid()
    os.chdir(order["folder"])
    if terminal is None:
        output, errors = order.get("output", "stdout"), order.get("output", "stderr")
        for number, name in enumerate((os.devnull, output, errors)):
            os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644), number)
    else:
        _take_terminal(terminal)
    if "environment" in order:
        os.environ.clear()
    os.environ.update(order.get("environment") or order.get("environ", {}))
    os.chdir(order.get("go_to", "."))
    os.environ["INITSEARCH_CACHE_DIR"] = order.get("cache") or str(Path(order["folder"]) / "cache")
    os.environ["PATH"] = os.pathsep.join([*([order["path"]] if "path" in order else []), os.environ["PATH"]])
    if "file_size" in order:
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_size"], order["file_size"]))
    real, write = time.time, events.EventLog._write

    def and_then(log: events.EventLog, event: Any) -> None:
        write(log, event)
        if "clock" in order:
            time.time = lambda: real() + order["clock"]
        if _Worker.here and event.kind == order.get("rests_at"):
            os.kill(os.getpid(), signal.SIGSTOP)
        if event.kind == order.get("late_after"):
            Clock.elapsed = property(lambda clock: 1e6)  # type: ignore[assignment, method-assign]
        if len(log.records) == order.get("kill_after"):
            os.kill(os.getpid(), signal.SIGKILL)

    events.EventLog._write = and_then  # type: ignore[method-assign, assignment]
    if not order.get("report"):
        reporting: Any = sys.modules["agent.report"]
        reporting.write_report = lambda *arguments, **named: None
    background: Any = sys.modules["agent.sessions.background"]
    background.subprocess = SimpleNamespace(Popen=_Worker, PIPE=subprocess.PIPE)
    _count(order, operations)
    if "worker" in order:
        sys.stdin = io.StringIO(order["worker"])
        sys.modules["agent.sessions.worker"].main()
    sys.modules.update(dict.fromkeys(order.get("missing", ())))
    sys.argv = ["agent", *order["words"]]
    cli.main()


def _take_terminal(terminal: int) -> None:
    """Make it this session's terminal, with streams that are like those of an interpreter that was started on it."""
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
    for number in range(3):
        os.dup2(terminal, number)
    os.close(terminal)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - lives as long as the process
    for stream in (sys.stdout, sys.stderr):
        assert isinstance(stream, io.TextIOWrapper)
        stream.reconfigure(line_buffering=True)


class _Worker:
    """Stands for the `Popen` of a process in the background, which is a fork of the command."""

    here = False
    """Whether this process is one."""

    def __init__(self, command: list[str], *, stdout: int, cwd: Path, env: dict[str, str], **ignored: Any) -> None:
        assert command[-1] == "agent.sessions.worker"
        order, into = os.pipe()
        self.stdin = os.fdopen(into, "wb")
        self._ended: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        self._pid = os.fork()
        if self._pid == 0:
            _end_with(functools.partial(self._work, order, stdout, cwd, env))
        os.close(order)

    def poll(self) -> int | None:
        if self._ended is None and (found := os.waitpid(self._pid, os.WNOHANG))[0]:
            self._ended = os.waitstatus_to_exitcode(found[1])
        return self._ended

    def _work(self, order: int, output: int, cwd: Path, env: dict[str, str]) -> None:
        from agent.sessions import worker

        _Worker.here = True
        os.setsid()
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(env)
        self.stdin.close()
        for number, descriptor in enumerate((order, output, output)):
            os.dup2(descriptor, number)
        sys.stdin = os.fdopen(0)
        worker.main()


def _count(order: dict[str, Any], operations: mmap.mmap) -> None:
    kill_at, delay, done = order.get("kill_at"), order.get("delay", 0.0), 0

    def hook(event: str, arguments: Any) -> None:
        nonlocal done
        if event not in OPERATIONS:
            return
        done += 1
        operations[:] = struct.pack("Q", done)
        if done == kill_at:
            if not delay:
                os.kill(os.getpid(), signal.SIGKILL)
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()

    sys.addaudithook(hook)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
