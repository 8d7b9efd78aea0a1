"""A command on a pseudo-terminal, as a person at a keyboard has it."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from collections.abc import Callable


def converse(
    command: list[str],
    environment: dict[str, str],
    script: list[tuple[str, str]],
    look: Callable[[str], None] = lambda shown: None,
) -> tuple[str, int]:
    """Run a command on a pseudo-terminal and answer its prompts in order. Returns what was shown and the exit code.

    `look` is given all that was shown so far, each time that there is more.
    """
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True)
    os.close(theirs)
    shown, seen, deadline = "", 0, time.monotonic() + 120
    read: Callable[[], bytes] = lambda: os.read(ours, 65536)  # noqa: E731
    try:
        while time.monotonic() < deadline:
            if not select.select([ours], [], [], 1)[0]:
                continue
            try:
                data = read()
            except OSError:  # the other end is closed
                break
            if not data:
                break
            shown += data.decode(errors="replace")
            look(shown)
            if script and script[0][0] in shown[seen:]:
                seen = len(shown)
                os.write(ours, script.pop(0)[1].encode())
        return shown, process.wait(timeout=30)
    finally:
        process.kill()
        os.close(ours)
