"""Parse the text of a region into a syntax tree. No text can exhaust this process's memory or block it.

Sixteen kilobytes of Python can keep the compiler busy for ever, because it folds constants, copies finally clauses and
recurses. So a child with limits (`sandbox.compile_child`) parses and compiles each text first. This process parses only
texts that pass, and only the isolated worker compiles them again.
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
"""Enough for any initialiser that computes weights, too little for one that stores trained weights."""

MEMORY_BYTES = 150 << 20
CPU_SECONDS = 1
"""Limits for compiling one text. An ordinary region takes a thousandth of either."""

_WALL_SECONDS = 60.0
"""Longest wait for an answer. It ends when the child is stopped or the machine extremely busy."""
_CACHED_VERDICTS = 256


class TooCostlyError(SyntaxError):
    """The text is too large, or Python needs more memory or time to compile it than is allowed."""


class CompilerUnavailableError(OSError):
    """The compiling child cannot be started. The machine is at fault, not the text."""


def parse(text: str) -> ast.Module:
    """Return the syntax tree of a text that compiles. Line numbers count from 1.

    Raises TooCostlyError for a text over 16 kB or one that takes too much memory or time, another SyntaxError (with its
    line, if it has one) for invalid Python, CompilerUnavailableError if the child cannot be started.
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
    except (RecursionError, MemoryError):  # the child had more free stack than this call
        raise SyntaxError("nested too deeply") from None


@functools.lru_cache(_CACHED_VERDICTS)
def _verdict(text: str) -> dict[str, Any]:
    return _child.ask(text)


class _Child:
    """The compiling process. The first text starts it, and so does the next text after it has ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def ask(self, text: str) -> dict[str, Any]:
        """Return the child's verdict on a text: {} if it compiles."""
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
                self.close()  # the child would join half a request with the next one
                raise
            if answer is None:
                self.close()
                return {"error": "costly"}
            return answer

    def close(self) -> None:
        """End the process if this process started one."""
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
            start_new_session=True,  # so that Ctrl-C interrupts only the parent
        )
        self._owner = os.getpid()
        if self._answer(self._process) is None:
            raise CompilerUnavailableError("the process that compiles regions ends as it starts; is memory short?")
        return self._process

    def _answer(self, process: subprocess.Popen[bytes]) -> dict[str, Any] | None:
        """Return the next answer, or None if the child ends or does not answer in time."""
        assert process.stdout is not None
        poll = select.poll()
        poll.register(process.stdout, select.POLLIN)
        ready = poll.poll(_WALL_SECONDS * 1000)
        line = process.stdout.readline() if ready else b""
        answer: dict[str, Any] | None = json.loads(line) if line.endswith(b"\n") else None
        return answer


_child = _Child()
atexit.register(_child.close)
