"""A process that has imported everything and forks an `agent` command in milliseconds, to be harmed on the way.

Starting `agent search` takes seconds of imports and of starting processes; harming thirty of them would take minutes.
Here each command is a forked child with its own session, signals, exit code, files, git and event log. Three things
are not a user's: evaluations run in the child itself instead of in processes of their own; one isolation, which the
server keeps, serves all children; and equal trainings happen once for all tests, also those of hidden tasks, whose
results no store of a user has. Kills of the whole, with those processes, are in test_resume.py.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import importlib
import io
import json
import mmap
import os
import pickle
import resource
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from agent.protocol import CandidateFailure
from agent.runs.events import Evaluated, Submitted, TestFinished, TestStarted, ToolReplied
from agent.runs.log import read_events
from benchmark.files import write_atomically
from sandbox.isolate import Level

ROOT = Path(__file__).resolve().parents[2]
OPERATIONS = frozenset(
    {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.truncate", "subprocess.Popen"}
)
"""What is counted, so that "kill it at the n-th" means a moment of the search and not of the machine's load."""


def outcome(run: Path) -> dict[str, Any]:
    """What must be equal whether or not a search was harmed."""
    recorded = [record.event for record in read_events(run / "events.jsonl")]
    return {
        "regions": [event.region_sha256 for event in recorded if isinstance(event, ToolReplied)],
        "accuracies": [(e.role, e.task, e.seed, e.accuracy) for e in recorded if isinstance(e, Evaluated)],
        "tests": [event.number for event in recorded if isinstance(event, TestStarted)],
        "results": [event.accuracies for event in recorded if isinstance(event, TestFinished)],
        "submitted": [event.number for event in recorded if isinstance(event, Submitted)],
    }


Process = tuple[int, int]
"""Its number, and when it started: numbers are used again."""


def family(ancestor: int) -> set[Process]:
    """A process and everything below it, now."""
    parents = _processes()
    found = {process for process in parents if process[0] == ancestor}
    while more := {p for p, parent in parents.items() if parent in {number for number, _ in found}} - found:
        found |= more
    return found


def left_running(processes: set[Process], seconds: float = 10.0) -> set[Process]:
    """Those that do not end within `seconds`."""
    deadline = time.monotonic() + seconds
    while (found := processes & _processes().keys()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def _processes() -> dict[Process, int]:
    """Every process that is not a zombie, with its parent's number."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if fields[0] != "Z":
                found[int(stat.parent.name), int(fields[19])] = int(fields[1])
    return found


@dataclass
class Child:
    """A command that runs. `wait` gives its exit code (negative: the signal) and how many operations it did."""

    pid: int
    _answers: Any

    def wait(self) -> tuple[int, int]:
        done = json.loads(self._answers.readline())
        return done["exit"], done["operations"]

    def signal(self, number: int, *, group: bool = False) -> None:
        """Send a signal to the command, or as a terminal does to all processes of its group."""
        (os.killpg if group else os.kill)(self.pid, number)


class Server:
    """The test's side: `start` forks a command in `folder`; one at a time."""

    def __init__(self, trained: Path) -> None:
        """`trained`: the folder of trainings that happened. Servers can share it."""
        environment = {**os.environ, "INITSEARCH_THREADS": "1", "OMP_NUM_THREADS": "1", "OPENAI_API_KEY": "sk-none-1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.agent.harm", str(trained)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            cwd=ROOT,
            env=environment,
        )

    def close(self) -> None:
        self._process.communicate()

    def start(self, folder: Path, *words: str, **harm: Any) -> Child:
        """Fork `agent` with these words. It writes to the files stdout and stderr in `folder`.

        `harm`: kill_at (n-th operation), delay (s after it), kill_after (events in the log), file_size (bytes that a
        file may have), clock (s by which it jumps after the first event), late_after (the kind of event after which
        any limit on time is passed), path (a folder put before PATH), environ (more variables), environment (all
        of them), go_to (the folder that it works in, if not `folder`), terminal (the path of a terminal on which it
        runs; there are no files then), missing (modules that are not installed).
        `cache`: the folder of the result store. `report`: whether the page is written, which takes a second.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"words": words, "folder": str(folder), **harm}) + "\n")
        return Child(json.loads(self._process.stdout.readline())["pid"], self._process.stdout)

    def run(self, folder: Path, *words: str, **harm: Any) -> tuple[int, int]:
        """Start and wait."""
        return self.start(folder, *words, **harm).wait()


# -- the server's side ------------------------------------------------------------------------------------------------


def serve(trained: Path) -> None:
    """Read orders from stdin, fork, answer on stdout, until stdin ends."""
    import torch
    import typer

    import benchmark.executors
    import sandbox.isolate
    from benchmark.data import load_dataset
    from sandbox.isolate import Initialised, Isolation, Job
    from sandbox.region import scaffold

    torch.set_num_threads(1)
    load_dataset("tiny")
    shared = mmap.mmap(-1, 16)  # operations (8 bytes), whether the zygote is at work (1 byte)

    class Watched(Isolation):
        """Says when a request is under way: whoever is killed then leaves a zygote with an answer nobody wants."""

        def initialise(self, job: Job) -> Initialised:
            shared[8] = 1
            initialised = super().initialise(job)
            shared[8] = 0
            return initialised

        def repeat(self, job: Job) -> Initialised:
            shared[8] = 1
            initialised = super().repeat(job)
            shared[8] = 0
            return initialised

    def start() -> Watched:
        """With both interpreters up, so that no forked child waits for one."""
        isolation = Watched()
        assert isolation.repeat(Job(scaffold().region, "resnet20", 10, 0)).ok
        return isolation

    isolation = start()
    _Here.trained = trained

    def opened(*, level: Level = "auto", **ignored: Any) -> Isolation:
        """The server's isolation, unless somebody asks for none."""
        _Here.level = level
        return Isolation(level=level) if level == "none" else isolation

    # Before anything imports them from there.
    sandbox.isolate.Isolation = opened  # type: ignore[assignment, misc]
    benchmark.executors.LocalExecutor = _Here  # type: ignore[assignment, misc]
    for name in _COMMANDS:
        importlib.import_module(name)
    from agent.report import plotting

    plotting.curves("", [plotting.Line("", [0, 1], [0, 1])], x="", y="", alt="")  # matplotlib has its fonts then
    typer.main.get_command = functools.cache(typer.main.get_command)
    typer.main.get_command(sys.modules["agent.cli"].app)

    for line in sys.stdin:
        order = json.loads(line)
        shared[:] = bytes(16)
        # Opened before the test is answered, which then closes it: a terminal that nobody has open has ended.
        terminal = os.open(order["terminal"], os.O_RDWR | os.O_NOCTTY) if "terminal" in order else None
        child = os.fork()
        if child == 0:
            _inherit(isolation)
            _run(order, shared, terminal)
        if terminal is not None:
            os.close(terminal)
        _say({"pid": child})
        _, status = os.waitpid(child, 0)
        if shared[8]:
            isolation.close()
            isolation = start()
        _say({"exit": os.waitstatus_to_exitcode(status), "operations": struct.unpack("Q", shared[:8])[0]})
    isolation.close()


def _inherit(isolation: Any) -> None:
    """Let the child use the server's zygotes. Their Popen would say that they ended: they are not its children."""
    for interpreter in (isolation._first, isolation._second):
        interpreter.zygote._process.poll = lambda: None
    isolation.start_second = isolation.close = lambda: None


_COMMANDS = (
    *("agent.analysis.null_claims", "agent.cli", "agent.cli.check", "agent.engine.search", "agent.progress"),
    *("agent.proposers.llm", "agent.proposers.optuna_search", "agent.report", "agent.report.page"),
    *("agent.runs.artifacts", "agent.runs.reviews", "agent.sessions.checking", "agent.sessions.command"),
    *("agent.studies.ablation", "agent.studies.retrain", "agent.studies.tournament", "agent.studies.verify"),
    *("benchmark.building", "benchmark.checkpoint", "benchmark.host_data", "benchmark.network_look"),
    *("benchmark.precision", "benchmark.signal_stats", "benchmark.steps", "benchmark.train", "benchmark.weights"),
    *("git", "jinja2", "typer._adapters"),
)
"""Imported before the fork, so that a command need not."""


class _Here:
    """An executor that runs each call at once, where it is, unless an equal one has run."""

    remote = False
    level: Level = "auto"
    trained: Path

    def __init__(self, slots: int, **ignored: Any) -> None:
        self.slots = slots

    def __enter__(self) -> _Here:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    def close(self) -> None:
        """Has nothing to close."""

    def submit(self, call: Any, *, on_report: Any = None, on_ask: Any = None, **ignored: Any) -> Any:
        future: Future[Any] = Future()
        future.set_result(self._once(call, SimpleNamespace(report=on_report, ask=on_ask)))
        return future

    def _once(self, call: Any, parent: Any) -> Any:
        """What the call returns, with its reports. Only results of our own networks are kept, and no failures."""
        from agent.evaluation.calls import EvaluationCall, SignalCall

        if not isinstance(call, EvaluationCall | SignalCall) or call.task.network or call.task.trainer:
            return call(parent)
        words = (type(call).__name__, self.level, call.region, repr(call.task), call.seed, call.data_root)
        settings = (call.environment, call.precision) if isinstance(call, EvaluationCall) else ()
        kept = self.trained / hashlib.sha256(repr((words, settings)).encode()).hexdigest()
        if kept.exists():
            reports, result = pickle.loads(kept.read_bytes())
            for metrics in reports:
                parent.report(metrics)
            return result
        reports = []

        def report(metrics: Any) -> None:
            reports.append(metrics)
            parent.report(metrics)

        result = call(SimpleNamespace(report=report, ask=parent.ask))
        if not isinstance(result, CandidateFailure):
            with contextlib.suppress(OSError):  # a test's full disk
                write_atomically(kept, pickle.dumps((reports, result)), durable=False)
        return result


def _say(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


def _run(order: dict[str, Any], shared: mmap.mmap, terminal: int | None) -> None:
    """The child: harm as ordered, then what `agent` does; never returns."""
    from agent import cli
    from agent.clock import Clock
    from agent.runs import log as events

    code = 1
    try:
        os.setsid()
        os.chdir(order["folder"])
        if terminal is None:
            for number, name in ((0, os.devnull), (1, "stdout"), (2, "stderr")):
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
            if event.kind == order.get("late_after"):
                Clock.elapsed = property(lambda clock: 1e6)  # type: ignore[assignment, method-assign]
            if len(log.records) == order.get("kill_after"):
                os.kill(os.getpid(), signal.SIGKILL)

        events.EventLog._write = and_then  # type: ignore[method-assign, assignment]
        if not order.get("report"):
            reporting: Any = sys.modules["agent.report"]
            reporting.write_report = lambda *arguments, **named: None
        _count(order, shared)
        sys.modules.update(dict.fromkeys(order.get("missing", ())))
        sys.argv = ["agent", *order["words"]]
        cli.main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - a traceback for the test, and never back into the server's loop
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


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


def _count(order: dict[str, Any], shared: mmap.mmap) -> None:
    kill_at, delay, done = order.get("kill_at"), order.get("delay", 0.0), 0

    def hook(event: str, arguments: Any) -> None:
        nonlocal done
        if event not in OPERATIONS:
            return
        done += 1
        shared[:8] = struct.pack("Q", done)
        if done == kill_at:
            if not delay:
                os.kill(os.getpid(), signal.SIGKILL)
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()

    sys.addaudithook(hook)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
