"""Chooses the profile of a search: a built-in one, a task file's, or one that a run has recorded."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.config import SearchConfig
from agent.errors import UsageError, in_one_sentence, unread
from benchmark.data import available
from benchmark.hardware import gpu_count, gpu_problem
from benchmark.tasks import FROM_PYTHON, PROFILES, Profile, get_profile, is_task_file

if TYPE_CHECKING:
    from benchmark.task import Task
    from sandbox.region import Scaffold

_MOST_VALUES = 2**31
"""Parameters that a recorded network may have: isolation makes room for them."""

_PAPER_SEEDS = 3
"""Published effects of initialisations are about as large as the scatter of single seeds."""


def with_default_seeds(config: SearchConfig, profile: Profile) -> SearchConfig:
    """Return the configuration with the profile's number of seeds, unless somebody chose one: 3 for `paper`, else 1.

    Raises UsageError if it asks for fewer seeds of the baseline.
    """
    if profile.name != "paper" or "seeds" in config.model_fields_set:
        return config
    if config.baseline_seeds is not None and config.baseline_seeds < _PAPER_SEEDS:
        raise UsageError(
            f"--baseline-seeds must be at least the seeds, of which paper has {_PAPER_SEEDS}: give --seeds too"
        )
    return config.model_copy(update={"seeds": _PAPER_SEEDS})


def resolve_profile(name: str, *, data_root: Path | None = None, download: bool = False) -> tuple[Profile, str]:
    """Return the profile, and the reason as text. `auto` is `paper` if there are a GPU and its data, else `pocket`.

    A task file's code is run: only the command line may name one. Raises UsageError for what cannot be used.
    """
    if is_task_file(name):
        return _task_file(Path(name).expanduser(), data_root=data_root, download=download), "as asked"
    if name == FROM_PYTHON:
        raise UsageError("this search got its network from Python: give it to search(network=…) again")
    if name != "auto":
        try:
            return get_profile(name), "as asked"
        except ValueError as error:
            hint = f"; {name}.toml is here: give --profile {name}.toml" if Path(f"{name}.toml").is_file() else ""
            raise UsageError(f"--profile {name}: {error}{hint}") from None
    gpus = gpu_count()
    if gpus == 0:
        why = gpu_problem() or "no GPU here"
        return PROFILES["pocket"], f"auto: {why}, so the embedded data and short trainings"
    paper = PROFILES["paper"]
    names = sorted({task.dataset for task in paper.tasks})
    missing = [] if download else [data for data in names if not available(data, data_root=data_root).ok]
    if missing:
        return PROFILES["pocket"], (
            f"auto: {gpus} GPU(s), but no {' and '.join(missing)} on the disk (--data-root DIR, or --download)"
        )
    return paper, f"auto: {gpus} GPU(s) and the full data sets"


def baseline_region(profile: Profile) -> str:
    """The region that a search on this profile starts as, and against which it is measured."""
    return scaffold_of(profile).region


def scaffold_of(profile: Profile) -> Scaffold:
    """The scaffold with the profile's baseline in it."""
    from sandbox.region import scaffold

    return scaffold() if profile.baseline is None else scaffold().with_region(profile.baseline)


def as_recorded(profile: Profile) -> dict[str, Any] | None:
    """A user's profile as the log keeps it; None for a built-in one, of which the name says all."""
    if not profile.is_own:
        return None
    return {
        "visible": [task.as_json() for task in profile.visible],
        "hidden": [task.as_json() for task in profile.hidden],
        "caveat": profile.caveat,
        "fidelities": list(profile.fidelities),
        "baseline": profile.baseline,
        "baseline_name": profile.baseline_name,
        "noise": dict(profile.noise),
    }


def recorded_profile(name: str, tasks: Mapping[str, Any] | None) -> Profile:
    """The profile of a run: a built-in one, or the user's that its log holds. Runs nothing of it.

    Raises ValueError for an unknown name and for a record that is none.
    """
    if tasks is None:
        return get_profile(name)
    from pydantic import TypeAdapter

    from benchmark.data.prepared import folder
    from benchmark.task import Task
    from benchmark.task_schema import component

    try:
        kinds = [TypeAdapter(tuple[Task, ...]).validate_python(tasks[kind]) for kind in ("visible", "hidden")]
        noise = TypeAdapter(dict[str, float]).validate_python(tasks["noise"])
        profile = Profile(
            name=component(name),
            visible=tuple(_placed(task, folder()) for task in kinds[0]),
            hidden=tuple(_placed(task, folder()) for task in kinds[1]),
            caveat=str(tasks["caveat"])[:2000],
            fidelities=TypeAdapter(tuple[float, ...]).validate_python(tasks["fidelities"]),
            baseline=None if tasks["baseline"] is None else str(tasks["baseline"]),
            baseline_name=str(tasks["baseline_name"])[:200],
            noise=tuple(sorted(noise.items())),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the log's record of its tasks is none: {error!r:.200}") from None
    if not profile.visible:
        raise ValueError("the log's record of its tasks has no visible one")
    return profile


def _placed(task: Task, cache: Path) -> Task:
    """The task with its data in this user's cache, wherever the record says they are. Raises ValueError."""
    from benchmark.task_schema import component

    component(task.name)
    if task.network is not None:
        sizes = [math.prod(shape) for _, shape in task.network.layout]
        if any(size < 0 for _, shape in task.network.layout for size in shape) or sum(sizes) > _MOST_VALUES:
            raise ValueError(f"task {task.name}: its network has impossible parameters")
    if task.data is None:
        return task
    if not re.fullmatch("[0-9a-f]{64}", task.data.sha256):
        raise ValueError(f"task {task.name}: its data have no SHA-256")
    return dataclasses.replace(task, data=dataclasses.replace(task.data, folder=cache / task.data.sha256))


def names_programs(profile: Profile) -> bool:
    """Whether the profile has code of the user's that a trusted process would import."""
    return any(task.trainer or (task.network and task.network.sources) for task in profile.tasks)


def same_tasks(one: Profile, other: Profile) -> bool:
    """Whether two profiles have the same tasks by their contents, the same baseline, and the same names."""

    def contents(profile: Profile) -> object:
        tasks = [[(task.name, task.identity()) for task in kind] for kind in (profile.visible, profile.hidden)]
        return json.loads(json.dumps([profile.name, baseline_region(profile), tasks]))

    return contents(one) == contents(other)


def _task_file(path: Path, *, data_root: Path | None, download: bool) -> Profile:
    from benchmark.task_loading import load_task_file
    from benchmark.task_schema import TaskFileError

    try:
        profile = load_task_file(path, data_root=data_root, download=download)
    except TaskFileError as error:
        raise UsageError(f"--profile {error}") from None
    return finished_profile(profile, f"--profile {path}", path.resolve().parent)


def finished_profile(profile: Profile, where: str, folder: Path) -> Profile:
    """A loaded profile with its baseline, after isolation built its networks too. Raises UsageError."""
    built_in = PROFILES.get(profile.name)
    profile = dataclasses.replace(profile, baseline=_baseline(profile, where, folder))
    if built_in is not None:
        if profile.caveat == built_in.caveat and same_tasks(profile, built_in):
            return built_in
        raise UsageError(
            f"{where}: name: {profile.name!r} is a built-in profile, whose noise is not that of these tasks; choose "
            "another name"
        )
    _require_agreement(profile, where)
    return profile


def _baseline(profile: Profile, where: str, folder: Path) -> str | None:
    """The region that the profile's baseline means; None for the scaffold's own. Raises UsageError."""
    from benchmark.recipes import get_recipe, recipe_names
    from benchmark.recipes.as_built import REGION
    from benchmark.task import AS_BUILT
    from sandbox.region import RegionError, region_of, scaffold
    from sandbox.rules import check_region

    name = profile.baseline_name
    if name == AS_BUILT:
        return REGION
    if name == "kaiming_normal" and all(task.strict for task in profile.tasks):
        return None  # the same numbers as the recipe, which also serves Linear layers without a bias
    if name in recipe_names():
        region = get_recipe(name).region
        return None if region == scaffold().region else region
    path = folder / name
    try:
        region = region_of(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(
            f"{where}: baseline: no file {path}, and no recipe {name!r}; known: {AS_BUILT}, {', '.join(recipe_names())}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{where}: baseline: {path}: {unread(error)}") from None
    except RegionError as error:
        raise UsageError(f"{where}: baseline: {path}: {in_one_sentence(error)}") from None
    if (rejection := check_region(region)) is not None:
        raise UsageError(f"{where}: baseline: {path}: {rejection.message} [{rejection.kind}]")
    return None if region == scaffold().region else region


def _require_agreement(profile: Profile, where: str) -> None:
    """Raise UsageError unless isolation builds each user's network and makes the same values as the trusted process.

    What agreed once is not built again: a file in the user's cache says so.
    """
    from benchmark.data.prepared import folder
    from benchmark.recipes.as_built import REGION
    from sandbox.isolate import Isolation, IsolationCrashed, IsolationUnavailable, Job

    cache = folder().parent / "agreed"
    waiting = []
    for task in profile.tasks:
        if task.network is not None and not task.strict:
            digest = hashlib.sha256(json.dumps(task.network.identity(), sort_keys=True).encode()).hexdigest()
            if not (cache / digest).is_file():
                waiting.append((task, cache / digest))
    if not waiting:
        return
    try:
        with Isolation() as isolation:
            for task, mark in waiting:
                made = isolation.initialise(Job(REGION, task.arch, task.num_classes, 0, None, task.network))
                fault = _disagreement(task, made.ok, made.message, made.constructed)
                if fault is not None:
                    raise UsageError(f"{where}: task {task.name}: {fault}")
                mark.parent.mkdir(parents=True, exist_ok=True)
                mark.touch()
    except IsolationUnavailable:
        return  # whoever goes on without isolation is told so later
    except (IsolationCrashed, FileNotFoundError) as error:
        raise UsageError(f"{where}: isolation cannot read what the networks import: {in_one_sentence(error)}") from None


def _disagreement(task: Task, ok: bool, message: str, constructed: str | None) -> str | None:
    from benchmark.task_loading import random_otherwise

    assert task.network is not None
    if not ok:
        missing = re.search(r"No module named '(\w+)", message)
        hint = f'; name what it imports: packages = ["{missing[1]}"]' if missing else ""
        return f"isolation cannot build it: {message}{hint}"
    if constructed != task.network.constructed:
        return random_otherwise(task.network.spec)
    return None


def allowed_profile(run: Path, of_run: Profile, given: Profile | None) -> Profile:
    """The profile to train with: the run's own if it names no code, else the one that the caller gave.

    Raises UsageError where the run is of a task file and none, or another one, was given.
    """
    if not of_run.is_own:
        if given is not None and not same_tasks(of_run, given):
            raise UsageError(f"{run}: --profile {given.name} contradicts the run's own, {of_run.name}")
        return of_run
    if given is None:
        raise UsageError(
            f"{run}: its tasks are those of a task file, whose code would run here; if it is yours, give "
            "--profile FILE.toml again"
        )
    if not same_tasks(of_run, given):
        raise UsageError(
            f"{run}: the task file {given.file or given.name} is not the one of this run: its name, baseline, network, "
            "data or recipe differ"
        )
    return dataclasses.replace(
        given,
        visible=tuple(_with_roles_of(one, of_run) for one in given.visible),
        hidden=tuple(_with_roles_of(one, of_run) for one in given.hidden),
    )


def _with_roles_of(task: Task, of_run: Profile) -> Task:
    """The task with the roles that its run began with, so that a resumed search has the same space."""
    recorded = of_run.task(task.name).network
    if task.network is None or recorded is None:
        return task
    return dataclasses.replace(task, network=dataclasses.replace(task.network, found=recorded.found))


def given_profile(name: str | None, *, data_root: Path | None = None, download: bool = False) -> Profile | None:
    """The profile that `--profile` named for work on a finished run; None without it. Raises UsageError."""
    if name is None:
        return None
    return resolve_profile(name, data_root=data_root, download=download)[0]
