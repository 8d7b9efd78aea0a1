"""What `pip install` brings: all that a user runs, and nothing that only developers run."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DEVELOPERS_ONLY = {
    "benchmark/data/build.py",
    "benchmark/data/build_fmnist_pocket.py",
    "benchmark/data/build_openclipart.py",
    "benchmark/data/build_tiny.py",
    "benchmark/data/shrink.py",
    "benchmark/signal_table.py",
    "sandbox/bench.py",
}
ROOMS = ("agent", "sandbox", "benchmark", "prompts", "initsearch")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of the wheel by name."""
    pytest.importorskip("hatchling", reason="hatchling is not installed; the extra `dev` brings it")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.iterdir()
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_holds_the_rooms_without_what_developers_run(wheel: dict[str, bytes]) -> None:
    """Every tracked file of the rooms but the builders and measurements: templates, recipes and pictures too."""
    tracked = subprocess.run(["git", "ls-files", *ROOMS], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.skip("this is no git checkout")
    expected = {name for name in tracked.stdout.splitlines() if (ROOT / name).exists()}
    assert expected >= DEVELOPERS_ONLY
    packed = {name for name in wheel if name.partition("/")[0] in ROOMS}
    assert expected - DEVELOPERS_ONLY <= packed
    assert not DEVELOPERS_ONLY & packed


def test_nothing_in_the_wheel_imports_what_was_left_out(wheel: dict[str, bytes]) -> None:
    """A module that was left out, and imported by one that was not, would fail at the user's only."""
    modules = {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in wheel}
    left_out = {name.removesuffix(".py").replace("/", ".") for name in DEVELOPERS_ONLY}
    assert {"agent.cli", "benchmark.speed"} <= modules
    for name, content in wheel.items():
        if name.endswith(".py"):
            for node in ast.walk(ast.parse(content)):
                if isinstance(node, ast.ImportFrom):
                    imported = {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
                elif isinstance(node, ast.Import):
                    imported = {alias.name for alias in node.names}
                else:
                    continue
                assert not imported & left_out, name
