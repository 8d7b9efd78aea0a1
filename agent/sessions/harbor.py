"""Writes a folder for Harbor: the task, the agent's image without hidden data, the verifier's image, a solution."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import shutil
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from agent.errors import UsageError, in_one_sentence
from agent.llm.prompting import task_prompt
from agent.profiles import scaffold_of
from agent.protocol import Situation
from agent.runs.metrics import reward_metric
from agent.sessions.harbor_task import imports, write_task
from benchmark.data.pocket import EMBEDDED, EMBEDDED_NAMES
from benchmark.recipes import get_recipe
from benchmark.seeds import evaluation_seeds
from benchmark.tasks import Profile, Task
from prompts import environment
from sandbox.region import SCAFFOLD_NAME, scaffold

FILE = Path(SCAFFOLD_NAME).name
SUBMISSION = f"/app/session/{FILE}"
"""The file that is judged, in the agent's environment and, as an artifact, in the verifier's."""
TASKS = "/opt/task"
"""The folder of the task file in both environments, where there is one."""
RECIPE = "fixup"
ROOMS = ("agent", "sandbox", "benchmark", "prompts")
_AGENT_SECONDS, _VERIFIER_SECONDS = 4 * 3600, 2 * 3600
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*")
_UNWANTED = shutil.ignore_patterns("__pycache__", "*.pyc", "build.py", "build_*.py", "shrink.py")


def export_harbor(folder: Path, profile: Profile, *, budget: int, seeds: int, include: Sequence[Path] = ()) -> Path:
    """Write the task into `folder`, which must be empty or new, and return it.

    An image cannot carry the full data sets, so of ours only those in the package can be exported. `include` are files
    and folders beside a task file that its trainers read. Raises UsageError.
    """
    data = sorted({name for task in profile.tasks if (name := _of_ours(task)) is not None})
    if foreign := [name for name in data if name not in EMBEDDED_NAMES]:
        raise UsageError(
            f"--profile {profile.name} needs {' and '.join(foreign)}, which an image of this export cannot carry; "
            "choose pocket, mini or smoke"
        )
    reward_metric(*([task.metric for task in tasks] for tasks in (profile.visible, profile.hidden)))
    for path in include:
        if not profile.is_own or not path.exists():
            raise UsageError(
                f"--include {path}: " + ("no such file" if profile.is_own else "it belongs to a task file")
            )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: there is something already; name a new folder")
    requirements = _requirements(imports(profile) if profile.is_own else ())
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
            made = Path(scratch) / "task"
            _write(made, profile, budget, seeds, requirements)
            for place, hidden in (("environment", False), ("tests", True)) if profile.is_own else ():
                write_task(made / place / "task", profile, hidden=hidden, include=include)
            if folder.exists():
                folder.rmdir()
            made.rename(folder)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written ({in_one_sentence(error)})") from None
    return folder


def _write(folder: Path, profile: Profile, budget: int, seeds: int, requirements: str) -> None:
    own, judged = f"{TASKS}/{profile.name}.toml" if profile.is_own else "", profile.hidden or profile.visible
    facts: dict[str, Any] = {
        "profile": profile,
        "own": own,
        "metric": judged[0].metric,
        "budget": budget,
        "seeds": seeds,
        "judged": f"{'hidden' if profile.hidden else 'visible'} task{'s' if len(judged) > 1 else ''}",
        "submission": SUBMISSION,
        "recipe": RECIPE,
        "python": platform.python_version(),
        "version": importlib.metadata.version("initsearch"),
        "agent_seconds": _AGENT_SECONDS,
        "verifier_seconds": _VERIFIER_SECONDS,
        "task": _task(profile, budget, seeds, own),
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
    visible, every = ({name for name in map(_of_ours, tasks) if name} for tasks in (profile.visible, profile.tasks))
    for place, kept in (("environment", visible), ("tests", every)):
        _copy_program(folder / place / "initsearch", kept)
        (folder / place / "initsearch" / "requirements.txt").write_text(requirements, encoding="utf-8")


def _task(profile: Profile, budget: int, seeds: int, own: str) -> str:
    return task_prompt(
        profile,
        Situation.at_start(FILE, scaffold_of(profile), budget),
        budget=budget,
        seeds=tuple(evaluation_seeds(0, seeds)),
        means="folder",
        again=f"--profile {own}" if own else None,
    )


def _copy_program(target: Path, data: set[str]) -> None:
    """Copy our packages, and of the embedded data only the sets named."""
    home = Path(__file__).resolve().parents[2]
    for room in ROOMS:
        shutil.copytree(home / room, target / room, ignore=_UNWANTED)
    embedded = target / EMBEDDED.relative_to(home)
    for path in embedded.iterdir():
        if path.suffix in (".bz2", ".json") and path.stem not in data:
            path.unlink()


def _of_ours(task: Task) -> str | None:
    """The data set of ours that a task trains on as it is."""
    return task.dataset if task.data is None and task.trainer is None else None


def _requirements(more: Collection[str]) -> str:
    """Our dependencies, pinned to what is installed here, so that both images measure with the same versions.

    `more` are import names of further packages; those that are not installed are a task file's own modules.
    """
    try:
        named = [one for one in importlib.metadata.requires("initsearch") or [] if "extra ==" not in one]
        names = {_plain(found[0]): found[0] for one in named if (found := _NAME.match(one)) is not None}
        known = importlib.metadata.packages_distributions() if more else {}
        for name in (one for package in more for one in known.get(package, ())[:1] if one != "initsearch"):
            names.setdefault(_plain(name), name)
        pinned = [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in names.values()]
    except importlib.metadata.PackageNotFoundError as missing:
        raise UsageError(f"the package {missing.name} is not installed, so its version cannot be pinned") from None
    return "".join(f"{line}\n" for line in sorted(pinned))


def _plain(name: str) -> str:
    """A distribution's name as package indexes compare it."""
    return name.lower().replace("_", "-")
