"""Carries a task file into an exported environment, with the code and the data that its tasks are made of."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.errors import UsageError
from agent.profiles import baseline_region
from benchmark.recipes import recipe_names
from benchmark.task import AS_BUILT, Prepared, Profile, Task
from benchmark.task_loading import imported
from benchmark.task_schema import TaskTable, read_task_file

_BASELINE = "baseline.py"


def write_task(folder: Path, profile: Profile, *, hidden: bool, include: Sequence[Path] = ()) -> None:
    """Write the profile's task file with all that it names into `folder`; with its hidden tasks only if `hidden`.

    Loaded there, the tasks have the same identity. `include` are files and folders that the trainers read. Raises
    UsageError for what does not lie in the task file's folder.
    """
    assert profile.file is not None
    written, home = read_task_file(profile.file), profile.file.resolve().parent
    kinds = {"visible": (written.visible, profile.visible)}
    if hidden:
        kinds["hidden"] = (written.hidden, profile.hidden)
    folder.mkdir(parents=True)
    for path in include:
        _copy(path, folder / _inside(path.resolve(), home))
    tables = {kind: [_carried(*pair, home, folder) for pair in zip(*both, strict=True)] for kind, both in kinds.items()}
    fields: dict[str, Any] = {"name": profile.name, "caveat": profile.caveat, "fidelities": list(profile.fidelities)}
    fields["baseline"] = profile.baseline_name
    if profile.baseline_name not in (AS_BUILT, *recipe_names()):
        fields["baseline"] = _BASELINE
        (folder / _BASELINE).write_text(baseline_region(profile), encoding="utf-8")
    names = {task.name for _, tasks in kinds.values() for task in tasks}
    noise = {name: sd for name, sd in profile.noise if name in names}
    (folder / f"{profile.name}.toml").write_text(_toml(fields, tables, noise), encoding="utf-8")


def imports(profile: Profile) -> set[str]:
    """The names of the packages that networks and trainers import."""
    assert profile.file is not None
    home = profile.file.resolve().parent
    networks = [task.network for task in profile.tasks if task.network is not None]
    texts = [source.text for network in networks for source in network.sources]
    texts += [_text(home / file) for task in profile.tasks if task.trainer for file, _ in task.trainer.sources]
    return imported(texts) | {name for network in networks for name in network.packages}


def _carried(table: TaskTable, task: Task, home: Path, folder: Path) -> dict[str, Any]:
    """The table of a task, whose files are then in `folder`."""
    fields = {**table.model_dump(mode="json", exclude_unset=True), "name": task.name}
    sources = {source.file: source.text for source in task.network.sources} if task.network else {}
    if task.trainer is not None:
        sources |= {file: _text(home / file) for file, _ in task.trainer.sources}
    for spec in (table.network, table.train):
        file = (spec or "").rpartition(":")[0]
        if file.endswith(".py"):
            _inside(home / os.path.normpath(file), home)
    for file, text in sources.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text, encoding="utf-8")
    if task.data is not None:
        fields.pop("image_size", None)
        fields["data"] = _data(task.data, task.dataset, folder)
    return fields


def _data(data: Prepared, name: str, folder: Path) -> str:
    """Write the arrays as FILE.npz, in an order that loading makes the present one, and return its path in `folder`."""
    import numpy as np

    from benchmark.data.arrays import in_file_order

    file = f"data/{data.sha256[:12]}/{name}.npz"
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {}
    for split in ("train", "test"):
        kept = [np.load(data.folder / f"{split}_{what}.npy", allow_pickle=False) for what in ("images", "labels")]
        arrays |= dict(zip((f"{split}_images", f"{split}_labels"), in_file_order(*kept), strict=True))
    np.savez(folder / file, **arrays)
    return file


def _inside(path: Path, home: Path) -> Path:
    """The path relative to the task file's folder. Raises UsageError where it lies elsewhere."""
    if not path.is_relative_to(home):
        raise UsageError(f"{path} is not in {home}, the task file's folder, so an image cannot carry it")
    return path.relative_to(home)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copy(source, target)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _toml(
    fields: Mapping[str, Any], tables: Mapping[str, Iterable[Mapping[str, Any]]], noise: Mapping[str, Any]
) -> str:
    """A task file. A string of JSON is one of TOML, too, but for DEL."""

    def lines(table: Mapping[str, Any]) -> list[str]:
        values = {key: json.dumps(value, ensure_ascii=False) for key, value in table.items()}
        return [f"{json.dumps(key)} = {value}".replace("\x7f", "\\u007f") for key, value in values.items()]

    found = lines(fields)
    for kind, rows in tables.items():
        for row in rows:
            found += ["", f"[[{kind}]]", *lines(row)]
    return "\n".join([*found, *(["", "[noise]", *lines(noise)] if noise else [])]) + "\n"
