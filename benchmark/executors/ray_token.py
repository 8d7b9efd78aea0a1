"""The token that a Ray cluster may want. Ray reads it from its file; this process looks only whether it is blank.

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


def modes(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The values of RAY_AUTH_MODE with which to connect, in the order to be tried. The user's own counts alone.

    Without the token first: a process that shows it takes nothing from workers that do not, so actors would not start.
    Raises EngineError where the user asked for a token and its file holds none.
    """
    place, given = token_place(environ), environ.get(_MODE)
    without = _without_token(place)
    if given is None:
        return ("disabled",) if without else ("disabled", "token")
    if without and given.lower() == "token":
        raise EngineError(f"{_MODE}={given} asks for Ray's token, and {place} {without}: {_WHAT_TO_DO}")
    return (given,)


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
def shown_token(address: str, no_ray: str) -> Iterator[None]:
    """Let Ray show its token in the block if the cluster at HOST:PORT wants one. Raises EngineError.

    Ray itself decides for `auto` and `local`. The variable is as it was afterwards, so no later process inherits it.
    """
    kept = os.environ.get(_MODE)
    try:
        if address not in ("auto", "local"):
            os.environ[_MODE] = _accepted(address, no_ray)
            if "ray" in sys.modules:  # it has read the variable when it was imported
                raylet: Any = sys.modules["ray._raylet"]
                raylet.Config.initialize("")
        yield
    finally:
        os.environ.pop(_MODE, None)
        if kept is not None:
            os.environ[_MODE] = kept


def _accepted(address: str, no_ray: str) -> str:
    """The RAY_AUTH_MODE that the cluster accepts, asked in other processes. Raises EngineError.

    `ray.init` would try for twenty seconds, and print each refusal.
    """
    command = [sys.executable, "-P", "-c", _ASK, address]
    for mode in modes(os.environ):
        environ = {**os.environ, _MODE: mode}
        try:
            code = subprocess.run(
                command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            code = _SILENT
        if code == _SILENT:
            raise EngineError(f"{no_ray}: what listens there does not answer as Ray does")
        if code != _REFUSED:
            return mode
    raise EngineError(refusal(address, os.environ))


def refusal(address: str, environ: Mapping[str, str]) -> str:
    """The sentence for a cluster that does not take this machine's token, or its lack of one."""
    place, given = token_place(environ), environ.get(_MODE)
    without = _without_token(place)
    wants = f"--ray-address {address}: the Ray cluster there wants its token, and"
    if given is not None and given.lower() != "token":
        return f"{wants} {_MODE}={given} keeps it back: unset that variable"
    return f"{wants} {f'{place} {without}' if without else f'that of {place} is not the one'}: {_WHAT_TO_DO}"
