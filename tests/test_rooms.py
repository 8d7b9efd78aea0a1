"""The rooms and their arrows: agent → sandbox → benchmark, inside agent/ one order of packages, and no circle."""

from __future__ import annotations

import ast
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FORBIDDEN = {
    "benchmark": {"sandbox", "agent", "tests"},
    "sandbox": {"agent", "tests"},
    "agent": {"tests"},
    "prompts": {"agent", "sandbox", "benchmark", "tests"},
}
AGENT_FLOORS = (
    {"agent"},
    {"runs"},
    {"analysis", "evaluation", "spaces", "transcripts", "llm"},
    {"proposers"},
    {"report"},
    {"engine"},
    {"studies", "sessions"},
    {"web"},
    {"cli"},
)
"""The packages of agent/ from the lowest floor up; `agent` stands for the modules at its top level."""
ENTRY_POINTS = {"agent", "agent.__main__"}
"""Facades: they hand over to higher floors inside a function, and nothing may import them."""
MOST_AT_TOP = 10


def _modules(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def _imports(path: Path) -> Iterator[str]:
    """The dotted names that a module imports, inside functions and for type checking too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _graph(room: str) -> dict[str, set[str]]:
    """Module → modules of the same room that it imports."""
    names = {_name(path): path for path in _modules(room)}
    graph: dict[str, set[str]] = {}
    for name, path in names.items():
        targets = {one if one in names else one.rpartition(".")[0] for one in _imports(path)}
        graph[name] = (targets & set(names)) - {name}
    return graph


def _floor(module: str) -> int:
    parts = module.split(".")
    package = parts[1] if len(parts) > 1 and (ROOT / "agent" / parts[1]).is_dir() else "agent"
    return next(number for number, floor in enumerate(AGENT_FLOORS) if package in floor)


@pytest.mark.parametrize("room", FORBIDDEN)
def test_arrows_go_one_way(room: str) -> None:
    """No module imports a room above its own, not even inside a function."""
    for path in _modules(room):
        for name in _imports(path):
            assert name.partition(".")[0] not in FORBIDDEN[room], f"{path.relative_to(ROOT)} imports {name}"


def test_packages_of_agent_import_only_lower_floors() -> None:
    """A package of agent/ imports packages of lower floors only; packages on one floor do not know each other."""
    for module, targets in _graph("agent").items():
        if module in ENTRY_POINTS:
            continue
        package = module.split(".")[1]
        for target in targets:
            assert target not in ENTRY_POINTS, f"{module} imports {target}"
            same = target.split(".")[1] == package or _floor(module) == _floor(target) == 0
            assert same or _floor(target) < _floor(module), f"{module} imports {target}"


@pytest.mark.parametrize("room", FORBIDDEN)
def test_no_circle_between_files(room: str) -> None:
    """Files of a room can be put in an order in which each imports only those before it."""
    left = {module: set(targets) for module, targets in _graph(room).items()}
    while free := [module for module, targets in left.items() if not targets]:
        for module in free:
            del left[module]
        for targets in left.values():
            targets.difference_update(free)
    assert not left, f"in or above a circle: {sorted(left)}"


def test_a_public_class_name_exists_once() -> None:
    """A reader who meets the name of a class never has to ask which of several it is."""
    places: dict[str, list[str]] = {}
    for room in FORBIDDEN:
        for path in _modules(room):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    places.setdefault(node.name, []).append(_name(path))
    assert not {name: found for name, found in places.items() if len(found) > 1}


@pytest.mark.parametrize("room", FORBIDDEN)
def test_nothing_waits_for_scipy_stats(room: str) -> None:
    """Its import takes a second, and what we need of it is in scipy.special; a smoke search waited for it."""
    found = [_name(path) for path in _modules(room) if any(one.startswith("scipy.stats") for one in _imports(path))]
    assert found == []


def test_few_modules_at_the_top_of_agent() -> None:
    """A stranger who lists agent/ sees packages, and at most ten modules beside them."""
    assert len(list((ROOT / "agent").glob("*.py"))) <= MOST_AT_TOP


def test_every_module_says_what_it_is() -> None:
    """Each module of the project begins with a docstring."""
    for room in FORBIDDEN:
        for path in _modules(room):
            assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path.relative_to(ROOT)


def test_the_list_of_files_is_current() -> None:
    """A newcomer looks in docs/files.md for where to change something: it has every file, in the file's own words."""
    written = runpy.run_path(str(ROOT / "docs/files_listed.py"))["listed"]()
    assert (ROOT / "docs/files.md").read_text(encoding="utf-8") == written, "run: python docs/files_listed.py"
