"""Commands that are harmed on the way, by a server that forks them (harm_server.py), and what is left of them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from agent.runs.events import Evaluated, Submitted, TestFinished, TestStarted, ToolReplied
from agent.runs.log import read_events

ROOT = Path(__file__).resolve().parents[2]


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

    def __init__(self, orders: IO[str], answers: IO[str]) -> None:
        self._orders, self._answers = orders, answers

    @classmethod
    @contextlib.contextmanager
    def started(cls, trained: Path) -> Iterator[Server]:
        """A new process. `trained`: the folder of trainings that happened. Servers can share it."""
        environment = {**os.environ, "INITSEARCH_THREADS": "1", "OMP_NUM_THREADS": "1", "OPENAI_API_KEY": "sk-none-1"}
        with subprocess.Popen(
            [sys.executable, "-m", "tests.agent.harm_server", str(trained)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            cwd=ROOT,
            env=environment,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            yield cls(process.stdin, process.stdout)

    @contextlib.contextmanager
    def beside(self, folder: Path) -> Iterator[Server]:
        """A fork of this server, with its isolation, for commands while this one's runs. `folder`: for its pipes."""
        pipes = folder / "orders", folder / "answers"
        for pipe in pipes:
            os.mkfifo(pipe)
        self._send({"beside": [str(pipe) for pipe in pipes]})
        with pipes[0].open("w", buffering=1) as orders, pipes[1].open() as answers:
            yield Server(orders, answers)

    def start(self, folder: Path, *words: str, **harm: Any) -> Child:
        """Fork `agent` with these words. It writes to the files stdout and stderr in `folder`.

        `harm`: kill_at (n-th operation), delay (s after it), kill_after (events in the log), file_size (bytes that a
        file may have), clock (s by which it jumps after the first event), late_after (the kind of event after which
        any limit on time is passed), path (a folder put before PATH), environ (more variables), environment (all
        of them), go_to (the folder that it works in, if not `folder`), rests_at (the kind of event after which a
        process in the background stops, as by SIGSTOP), worker (the order for a process in the background, which runs
        instead of `agent`), output (a file for both streams), terminal (the path of a terminal on which it runs; there
        are no files then), missing (modules that are not installed).
        `cache`: the folder of the result store. `report`: whether the page is written, which takes a second.
        """
        self._send({"words": words, "folder": str(folder), **harm})
        return Child(json.loads(self._answers.readline())["pid"], self._answers)

    def _send(self, order: dict[str, Any]) -> None:
        self._orders.write(json.dumps(order) + "\n")

    def run(self, folder: Path, *words: str, **harm: Any) -> tuple[int, int]:
        """Start and wait."""
        return self.start(folder, *words, **harm).wait()


class Worker:
    """Stands for the `Popen` of a process in the background, which the server forks. It takes the whole server.

    `folder`: where the server may write.
    """

    def __init__(self, server: Server, folder: Path, *, stdout: int, cwd: Path, env: dict[str, str]) -> None:
        self._ended: int | None = None
        output = str(Path(f"/proc/self/fd/{stdout}").readlink())
        worker = self

        class Order(io.BytesIO):
            def close(self) -> None:
                if not self.closed:
                    harm = {
                        "output": output,
                        "go_to": str(cwd),
                        "environment": env,
                        "cache": env["INITSEARCH_CACHE_DIR"],
                    }
                    worker._begun(server.start(folder, worker=self.getvalue().decode(), **harm))
                super().close()

        self.stdin = Order()

    def _begun(self, child: Child) -> None:
        def wait() -> None:
            self._ended, _ = child.wait()

        threading.Thread(target=wait, daemon=True).start()

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._ended
