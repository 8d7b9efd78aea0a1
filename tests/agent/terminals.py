"""A pseudo-terminal, as a person at a keyboard has it."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Sequence


def converse(terminal: int, script: Sequence[tuple[str, str]], look: Callable[[str], None]) -> str:
    """Answer the prompts of the command at the other end of a terminal in order, until it ends. Returns what it showed.

    `look` is given all that was shown so far, each time that there is more.
    """
    shown, seen, deadline = "", 0, time.monotonic() + 120
    waiting = list(script)
    while time.monotonic() < deadline:
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            data = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            break
        if not data:
            break
        shown += data.decode(errors="replace")
        look(shown)
        if waiting and waiting[0][0] in shown[seen:]:
            seen = len(shown)
            os.write(terminal, waiting.pop(0)[1].encode())
    return shown
