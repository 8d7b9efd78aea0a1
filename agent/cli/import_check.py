"""Checks that the packages we import are ours. Their names are common, so other files can hide them."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from agent.errors import AgentError

_OURS = ("sandbox", "benchmark", "prompts")


def require_own_modules() -> None:
    """Raise AgentError when `sandbox`, `benchmark` or `prompts` would not be imported from the folder of `agent`.

    Imports none of them. Cannot help when `agent` itself is hidden by another file.
    """
    room = Path(__file__).resolve().parents[2]
    for name in _OURS:
        try:
            spec = find_spec(name)
        except ValueError:  # a module without a spec: somebody put it into sys.modules
            spec = None
        if spec is None or spec.origin is None:
            raise AgentError(f"the package {name!r} is missing in {room}: install initsearch again")
        origin = Path(spec.origin).absolute()
        if origin.resolve() != room / name / "__init__.py":
            raise AgentError(f"{origin} hides the package {name!r} that initsearch has in {room}: {_advice(origin)}")


def _advice(origin: Path) -> str:
    """Advice: another folder when the present one comes first on Python's path, else another environment."""
    here = Path.cwd()
    if here in origin.parents and sys.path[:1] in ([""], [str(here)]):
        return "run it from another folder, or rename that file"
    return "install initsearch in an environment of its own (pipx install, uv tool install) and unset PYTHONPATH"
