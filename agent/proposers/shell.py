"""Looks, before anything is trained, whether the program of a shell command is there."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

from agent.errors import UsageError

_PLAIN_WORD = re.compile(r"[\w./+@-]+")
_SECONDS = 10.0


def require_program(command: str) -> None:
    """Raise UsageError when the command is empty, is no shell command, or begins with a plain name that is not found.

    Anything more complicated, such as a variable or a parenthesis, is left to the shell.
    """
    if not command.strip():
        raise UsageError('--proposer command:"CMD" needs a command, which /bin/sh runs in the folder of a session')
    read = _sh("-n", "-c", command)  # -n: it is read and not carried out
    if read.returncode:
        said = " ".join(read.stderr.decode(errors="replace").split())
        raise UsageError(f"--proposer command:{command}: the shell cannot read it ({said:.300}); nothing was started")
    try:
        words = shlex.split(command, comments=True)
    except ValueError:
        return
    if not words or not _PLAIN_WORD.fullmatch(words[0]) or not command.lstrip().startswith(words[0]):
        return
    if "/" in words[0] and not words[0].startswith("/"):
        raise UsageError(
            f"--proposer command:{command}: it runs in a folder of its own, where there is no {words[0]}; write "
            f"{Path(words[0]).resolve()}"
        )
    if _sh("-c", 'command -v -- "$1"', "sh", words[0]).returncode:
        raise UsageError(f"--proposer command:{command}: there is no program {words[0]}; nothing was started")


def _sh(*words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["/bin/sh", *words], stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=False
    )
