"""Writes a folder for Harbor: the task, the agent's image without hidden data, the verifier's image, a solution."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from agent.errors import UsageError
from agent.llm.prompting import task_prompt
from agent.protocol import Situation
from benchmark.data.pocket import EMBEDDED, EMBEDDED_NAMES
from benchmark.recipes import get_recipe
from benchmark.seeds import evaluation_seeds
from benchmark.tasks import Profile
from prompts import environment
from sandbox.region import SCAFFOLD_NAME, scaffold

FILE = Path(SCAFFOLD_NAME).name
SUBMISSION = f"/app/session/{FILE}"
"""The file that is judged, in the agent's environment and, as an artifact, in the verifier's."""
RECIPE = "fixup"
ROOMS = ("agent", "sandbox", "benchmark", "prompts")
_AGENT_SECONDS, _VERIFIER_SECONDS = 4 * 3600, 2 * 3600
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*")
_UNWANTED = shutil.ignore_patterns("__pycache__", "*.pyc", "build*.py", "shrink.py")


def export_harbor(folder: Path, profile: Profile, *, budget: int, seeds: int) -> Path:
    """Write the task into `folder`, which must be empty or new, and return it.

    Only profiles whose data is in the package can be exported: an image cannot carry the full data sets. Raises
    UsageError.
    """
    data = sorted({task.dataset for task in (*profile.visible, *profile.hidden)})
    if foreign := [name for name in data if name not in EMBEDDED_NAMES]:
        raise UsageError(
            f"--profile {profile.name} needs {' and '.join(foreign)}, which an image of this export cannot carry; "
            "choose pocket, mini or smoke"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: there is something already; name a new folder")
    requirements = _requirements()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
            made = Path(scratch) / "task"
            _write(made, profile, budget, seeds, requirements)
            if folder.exists():
                folder.rmdir()
            made.rename(folder)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written: {error}") from None
    return folder


def _write(folder: Path, profile: Profile, budget: int, seeds: int, requirements: str) -> None:
    facts: dict[str, Any] = {
        "profile": profile,
        "budget": budget,
        "seeds": seeds,
        "submission": SUBMISSION,
        "recipe": RECIPE,
        "python": platform.python_version(),
        "version": importlib.metadata.version("initsearch"),
        "agent_seconds": _AGENT_SECONDS,
        "verifier_seconds": _VERIFIER_SECONDS,
        "task": _task(profile, budget, seeds),
    }

    def put(name: str, template: str, *, role: str = "", executable: bool = False) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(environment().get_template(f"harbor/{template}").render(facts, role=role), encoding="utf-8")
        path.chmod(0o755 if executable else 0o644)

    put("task.toml", "task.toml.j2")
    put("instruction.md", "instruction.md.j2")
    put("environment/Dockerfile", "Dockerfile.j2", role="agent")
    put("tests/Dockerfile", "Dockerfile.j2", role="verifier")
    put("tests/test.sh", "test.sh.j2", executable=True)
    put("solution/solve.sh", "solve.sh.j2", executable=True)
    solved = scaffold().with_region(get_recipe(RECIPE).region).text
    (folder / "solution" / FILE).write_text(solved, encoding="utf-8")
    visible = {_stem(task.dataset) for task in profile.visible}
    every = visible | {_stem(task.dataset) for task in profile.hidden}
    for place, kept in (("environment", visible), ("tests", every)):
        _copy_program(folder / place / "initsearch", kept)
        (folder / place / "initsearch" / "requirements.txt").write_text(requirements, encoding="utf-8")


def _task(profile: Profile, budget: int, seeds: int) -> str:
    lines = scaffold().lines
    situation = Situation(
        filename=FILE,
        region=scaffold().region,
        editable=(lines.start, lines.end),
        tests_left=budget,
        tests=(),
        baseline={},
        best=None,
    )
    return task_prompt(profile, situation, budget=budget, seeds=tuple(evaluation_seeds(0, seeds)), means="folder")


def _copy_program(target: Path, data: set[str]) -> None:
    """Copy our packages, and of the embedded data only the sets named."""
    home = Path(__file__).resolve().parents[2]
    for room in ROOMS:
        shutil.copytree(home / room, target / room, ignore=_UNWANTED)
    embedded = target / EMBEDDED.relative_to(home)
    for path in embedded.iterdir():
        if path.suffix in (".bz2", ".json") and path.stem not in data:
            path.unlink()


def _stem(dataset: str) -> str:
    """The name of the files that hold a data set; `tiny` is a part of another one."""
    return "openclipart100" if dataset == "tiny" else dataset


def _requirements() -> str:
    """Our dependencies, pinned to what is installed here, so that both images measure with the same versions."""
    try:
        named = importlib.metadata.requires("initsearch") or []
        pinned = []
        for requirement in named:
            found = _NAME.match(requirement)
            if found is not None and "extra ==" not in requirement:
                version = importlib.metadata.version(found[0]).partition("+")[0]
                pinned.append(f"{found[0]}=={version}")
    except importlib.metadata.PackageNotFoundError as missing:
        raise UsageError(f"the package {missing.name} is not installed, so its version cannot be pinned") from None
    return "".join(f"{line}\n" for line in sorted(pinned))
