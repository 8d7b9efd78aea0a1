"""The token that a Ray cluster may want. Ray reads it from its file; this process never does more than look for it.

`ray start` of recent versions makes a cluster that wants the token of `~/.ray/auth_token`, and a process that connects
to HOST:PORT does not show its own by itself.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmark.executors.seam import EngineError

_MODE, _PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"
_REFUSED, _SILENT = 3, 4
_ASK = f"""
import sys
from ray._raylet import GcsClient
try:
    GcsClient(address=sys.argv[1])
except Exception as error:
    sys.exit({_REFUSED} if type(error).__name__ == "AuthenticationError" else {_SILENT})
"""
_WHAT_TO_DO = (
    "copy the head's ~/.ray/auth_token to this machine's, or name the copy in RAY_AUTH_TOKEN_PATH (RAY_AUTH_TOKEN is "
    "kept from all processes, so give a file)"
)


def token_place(environ: Mapping[str, str]) -> Path:
    """The file in which Ray looks for its token."""
    return Path(environ.get(_PATH) or Path.home() / ".ray" / "auth_token")


def token_mode(environ: Mapping[str, str]) -> str | None:
    """The RAY_AUTH_MODE with which to connect: the user's own, `token` where a token is here, or None.

    Raises EngineError where a token was asked for by a variable and its file holds none.
    """
    given = environ.get(_MODE)
    if given is not None and given.lower() != "token":
        return given
    place = token_place(environ)
    without = _without_token(place)
    if without is None:
        return "token"
    if given is None and not environ.get(_PATH):
        return None
    variable = _PATH if environ.get(_PATH) else f"{_MODE}={given}"
    raise EngineError(f"{variable} asks for Ray's token, and {place} {without}: {_WHAT_TO_DO}")


def _without_token(place: Path) -> str | None:
    """Why a file holds no token; None where it may hold one."""
    try:
        if not place.is_file():
            return "is no file" if place.exists() else "is not there"
        with place.open("rb") as file:
            return None if file.read(4096).strip() else "is empty"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


@contextlib.contextmanager
def shown_token(address: str) -> Iterator[None]:
    """Let Ray show its token to a cluster that this process connects to in the block. Raises EngineError.

    The variable is as it was afterwards, so no later process inherits it.
    """
    kept = os.environ.get(_MODE)
    mode = None if address == "local" else token_mode(os.environ)  # a new cluster makes its own token
    try:
        if mode is not None:
            os.environ[_MODE] = mode
            if "ray" in sys.modules:  # it has read the variable when it was imported
                raylet: Any = sys.modules["ray._raylet"]
                raylet.Config.initialize("")
        yield
    finally:
        os.environ.pop(_MODE, None)
        if kept is not None:
            os.environ[_MODE] = kept


def refusal(address: str) -> str:
    """The sentence for a cluster that does not take this machine's token, or its lack of one."""
    place, mode = token_place(os.environ), token_mode(os.environ)
    wants = f"--ray-address {address}: the Ray cluster there wants its token, and"
    if mode == "token":
        return f"{wants} that of {place} is not the cluster's: {_WHAT_TO_DO}"
    if mode is not None:
        return f"{wants} {_MODE}={mode} keeps it back: unset that variable"
    return f"{wants} {place} {_without_token(place)}: {_WHAT_TO_DO}"


def require_answer(address: str, no_ray: str) -> None:
    """Ask the cluster at HOST:PORT for its number, in another process. Raises EngineError.

    `ray.init` would try for twenty seconds, and print each refusal.
    """
    command = [sys.executable, "-P", "-c", _ASK, address]
    try:
        code = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False
        ).returncode
    except subprocess.TimeoutExpired:
        code = _SILENT
    if code == _REFUSED:
        raise EngineError(refusal(address))
    if code == _SILENT:
        raise EngineError(f"{no_ray}: what listens there does not answer as Ray does")
