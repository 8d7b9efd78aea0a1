"""The rooms and their arrows: agent → sandbox → benchmark, and nothing the other way."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FORBIDDEN = {
    "benchmark": {"sandbox", "agent", "tests"},
    "sandbox": {"agent", "tests"},
    "agent": {"tests"},
    "prompts": {"agent", "sandbox", "benchmark", "tests"},
}


def _modules(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("room", FORBIDDEN)
def test_arrows_go_one_way(room: str) -> None:
    """No module imports a room above its own, not even inside a function."""
    for path in _modules(room):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            for name in names:
                assert name.partition(".")[0] not in FORBIDDEN[room], f"{path.relative_to(ROOT)} imports {name}"


def test_every_module_says_what_it_is() -> None:
    """Each module of the project begins with a docstring."""
    for room in FORBIDDEN:
        for path in _modules(room):
            assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path.relative_to(ROOT)
