"""Are the packages that we import ours? Their names are common, and other files can shadow them."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from agent.errors import AgentError

_OURS = ("sandbox", "benchmark", "prompts")


def require_own_modules() -> None:
    """Raise AgentError when `sandbox`, `benchmark` or `prompts` would not be imported from beside `agent`."""
    room = Path(__file__).parents[2]
    for name in _OURS:
        try:
            spec = find_spec(name)
        except ValueError:  # a module that somebody put into sys.modules by hand
            spec = None
        origin = spec.origin if spec is not None else None
        if origin is not None and Path(origin) == room / name / "__init__.py":
            continue
        if origin is None:
            raise AgentError(f"the package {name!r} is missing in {room}: install initsearch again")
        raise AgentError(f"{origin} hides initsearch's own package {name!r} in {room}; {_advice(Path(origin))}")


def _advice(origin: Path) -> str:
    here = Path.cwd()
    if here in origin.absolute().parents and sys.path and sys.path[0] in ("", str(here)):
        return "run the command from another folder, or by the script `initsearch` instead of `python -m agent`"
    return "install initsearch in an environment of its own (pipx or uv tool), and unset PYTHONPATH"
