"""From the text of a region to its syntax tree, such that no text can fill the memory of this process or block it.

Sixteen kilobytes of Python can keep its compiler busy for ever: it folds constants, copies finally clauses and
recurses. So a text is first parsed and compiled in a child with limits (`sandbox.compile_child`). Only what passes
there is parsed here, and it is compiled nowhere but in the isolated worker.
"""

from __future__ import annotations

import ast
import atexit
import contextlib
import functools
import json
import os
import select
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

MAX_REGION_BYTES = 16 * 1024
"""Room for any initialiser that computes; none for one that carries trained weights."""

MEMORY_BYTES = 150 << 20
CPU_SECONDS = 1
"""What compiling one text may take; an ordinary region takes a thousandth of either."""

_WALL_SECONDS = 60.0
"""A stopped child, or a machine so busy that a second takes a minute."""
_CACHED_VERDICTS = 256


class TooCostlyError(SyntaxError):
    """The text is too large, or Python needs more memory or time to compile it than is allowed."""


class CompilerUnavailableError(OSError):
    """The child that compiles cannot be started: the fault of the machine, never of the text."""


def parse(text: str) -> ast.Module:
    """The tree of a text that parses and compiles; lines count from 1.

    Raises TooCostlyError for more than 16 kB and for what would take too much memory or time, another SyntaxError
    (with its line, where it has one) for what is not Python, CompilerUnavailableError where no child can be started.
    """
    size = len(text.encode(errors="replace"))
    if size > MAX_REGION_BYTES:
        raise TooCostlyError(f"the text is {size:,} bytes; at most {MAX_REGION_BYTES:,} are allowed")
    verdict = _verdict(text)
    if verdict.get("error") == "costly":
        raise TooCostlyError(
            f"compiled, the text would be huge: it takes more than {CPU_SECONDS} s or {MEMORY_BYTES >> 20} MiB; "
            "compute large values where they are used, and do not nest finally clauses"
        )
    if verdict:
        raise SyntaxError(verdict["message"], ("<unknown>", verdict.get("line"), verdict.get("column"), None))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (RecursionError, MemoryError):  # the child had more stack left than this call has
        raise SyntaxError("nested too deeply") from None


@functools.lru_cache(_CACHED_VERDICTS)
def _verdict(text: str) -> dict[str, Any]:
    return _child.ask(text)


class _Child:
    """The process that compiles. It starts with the first text, and anew after a text that ended it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def ask(self, text: str) -> dict[str, Any]:
        """The child's verdict on a text: {} is a good one."""
        data = text.encode("utf-8", "surrogatepass")
        with self._lock:
            try:
                process = self._running()
                assert process.stdin is not None
                process.stdin.write(len(data).to_bytes(4, "big") + data)
                process.stdin.flush()
                answer = self._answer(process)
            except BrokenPipeError:
                answer = None
            except BaseException:
                self.close()  # half a request must not be taken for the beginning of the next one
                raise
            if answer is None:
                self.close()
                return {"error": "costly"}
            return answer

    def close(self) -> None:
        """End the process, if there is one and it is ours."""
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._owner == os.getpid() and self._process.poll() is None:
            return self._process
        self.close()
        program = str(Path(__file__).with_name("compile_child.py"))
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-X", "utf8", program, str(MEMORY_BYTES), str(CPU_SECONDS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ},
            start_new_session=True,  # Ctrl-C is for this process
        )
        self._owner = os.getpid()
        if self._answer(self._process) is None:
            raise CompilerUnavailableError("the process that compiles regions ends as it starts; is memory short?")
        return self._process

    def _answer(self, process: subprocess.Popen[bytes]) -> dict[str, Any] | None:
        """The next line, or None where the process ends or is stuck."""
        assert process.stdout is not None
        poll = select.poll()
        poll.register(process.stdout, select.POLLIN)
        ready = poll.poll(_WALL_SECONDS * 1000)
        line = process.stdout.readline() if ready else b""
        answer: dict[str, Any] | None = json.loads(line) if line.endswith(b"\n") else None
        return answer


_child = _Child()
atexit.register(_child.close)
