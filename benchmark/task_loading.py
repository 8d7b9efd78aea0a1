"""Makes the tasks of a task file: loads the data, builds each network, and looks at what came out.

The user's code runs in a process of its own, which sees their folder. Nothing of it runs in the caller's process.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import inspect
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark import networks
from benchmark.data.dataset import DataError
from benchmark.data.unused import hold
from benchmark.executors import InfrastructureError, LocalExecutor, Parent, ProcessDied, TookTooLong
from benchmark.hardware import cpu_count
from benchmark.network_look import BUILD_SECONDS, called_by_place, require_own_memory, takes_classes, try_out
from benchmark.networks import LIBRARIES, Network, NetworkError, described
from benchmark.sources import captured, forget, import_file, module_name
from benchmark.task import OURS, Prepared, Profile, Recipe, Task, Trainer
from benchmark.task_schema import TaskFile, TaskFileError, TaskTable, default_name, read_task_file
from benchmark.user_code import contained

if TYPE_CHECKING:
    from torch import nn

_TAKE_AT_MOST = 3600.0
"""Seconds for loading data and building networks."""
_MAX_SOURCES = 2**20


@dataclass(frozen=True)
class Problem:
    """Why a task cannot be used, in one sentence."""

    text: str


def load_task_file(path: Path, *, data_root: Path | None = None, download: bool = False) -> Profile:
    """The profile of a task file. Its `baseline` is only named, not read. Raises TaskFileError."""
    written = read_task_file(path)
    return make_profile(written, path.resolve().parent, path, data_root=data_root, download=download)


def make_profile(
    written: TaskFile,
    folder: Path,
    file: Path | None,
    *,
    data_root: Path | None = None,
    download: bool = False,
    given: Callable[[TaskTable], Prepared | None] = lambda table: None,
    networks_given: Callable[[TaskTable], Network | None] = lambda table: None,
) -> Profile:
    """The profile of a parsed task file whose paths are relative to `folder`. Raises TaskFileError.

    `given` and `networks_given` give what Python has already, instead of a file.
    """
    name = written.name or (default_name(file.stem) if file is not None else written.visible[0].title)
    tables = [*written.visible, *written.hidden]
    where = str(file) if file is not None else "search"
    with LocalExecutor(1, threads=cpu_count()) as executor:
        calls = [
            PrepareTask(table, folder, data_root, download, given(table), networks_given(table)) for table in tables
        ]
        futures = [executor.submit(call, timeout=_TAKE_AT_MOST) for call in calls]
        tasks: list[Task] = []
        for table, future in zip(tables, futures, strict=True):
            try:
                made = future.result()
            except ProcessDied as error:
                raise TaskFileError(f"{where}: task {table.title}: {table.functions}: {error.how()}") from None
            except TookTooLong:
                text = f"{table.functions} did not get ready within {_TAKE_AT_MOST:g} s"
                raise TaskFileError(f"{where}: task {table.title}: {text}") from None
            except InfrastructureError as error:
                last = str(error).strip().splitlines()[-1]
                raise TaskFileError(f"{where}: task {table.title}: its code ended the process: {last}") from None
            if isinstance(made, Problem):
                raise TaskFileError(f"{where}: task {table.title}: {made.text}")
            tasks.append(made)
            if made.data is not None:
                hold(made.data.folder)
    count = len(written.visible)
    return Profile(
        name=name,
        visible=tuple(tasks[:count]),
        hidden=tuple(tasks[count:]),
        caveat=written.caveat,
        fidelities=written.fidelities,
        baseline_name=written.baseline,
        noise=tuple(sorted(written.noise.items())),
        file=file,
    )


@dataclass(frozen=True)
class PrepareTask:
    """A call for an executor that makes one task."""

    table: TaskTable
    folder: Path
    data_root: Path | None = None
    download: bool = False
    data: Prepared | None = None
    network: Network | None = None

    def __call__(self, parent: Parent) -> Task | Problem:
        """Load, build, send two pictures through the network."""
        try:
            return self._task()
        except (DataError, NetworkError) as error:
            return Problem(" ".join(str(error).split()))
        except OSError as error:
            return Problem(f"{error.filename or 'a file'}: {error.strerror or error}")

    def _task(self) -> Task:
        from benchmark.own_data import is_ours, prepared_data

        table = self.table
        forget(self.folder)
        if table.train is not None:
            trainer = find_trainer(table.train, self.folder)
            forget(self.folder)
            network = examined(self.network) if self.network else find_network(table, self.folder, None, None)
            return Task(table.arch, table.dataset, Recipe(1, 1.0), table.name, network, None, trainer, table.score)
        assert table.data is not None
        data = self.data
        if data is None and not is_ours(table.data, table.image_size):
            data = prepared_data(
                table.data, table.image_size, self.folder, data_root=self.data_root, download=self.download
            )
            forget(self.folder)
        task = Task(table.arch, table.dataset, table.recipe(), table.name, None, data)
        task = replace(task, recipe=table.recipe(task.picture[1]))
        if self.network is not None:
            network = examined(replace(self.network, num_classes=task.num_classes, picture=task.picture))
        else:
            network = find_network(table, self.folder, task.num_classes, task.picture)
        return replace(task, network=network)


def find_network(
    table: TaskTable, folder: Path, num_classes: int | None, picture: tuple[int, int, int] | None
) -> Network:
    """Build what `table.network` names and describe it. Raises NetworkError."""
    spec = table.network
    first, _, second = spec.rpartition(":")
    network = Network(spec, num_classes, picture, packages=tuple(table.packages))
    installed = importlib.metadata.packages_distributions() if table.packages else {}
    for name in table.packages:
        if name not in installed:
            raise NetworkError(
                f"packages: no installed package is imported as {name}; install it with pip, or leave it out (modules "
                "of your folder need not be named)"
            )
    if not first and spec not in OURS:
        raise NetworkError(
            f"network {spec!r} is none of ours ({', '.join(OURS)}), nor FILE:FUNCTION, torchvision:NAME or timm:NAME"
        )
    if first in LIBRARIES:
        network = replace(network, packages=tuple(dict.fromkeys((*table.packages, first))))
    elif first:
        network = from_user_file(network, first, second, folder)
    return examined(with_libraries(network))


def from_user_file(network: Network, file: str, function: str, folder: Path) -> Network:
    """The network with the text of its modules. Builds it once from the user's folder. Raises NetworkError."""
    import torch

    path = folder / file
    if not path.is_file():
        raise NetworkError(f"network {network.spec}: {path}: no such file")
    with contained(BUILD_SECONDS):
        try:
            networks.preload(LIBRARIES if "torchvision" in path.read_text(encoding="utf-8", errors="replace") else ())
            module = import_file(file, folder)
        except BaseException as error:
            raise NetworkError(f"network {network.spec}: {file} cannot be imported: {described(error)}") from error
        make = networks.caller(network, getattr(module, function, None))
        call = called_by_place(network, getattr(module, function))
        by_place = f"; it is {call}" if call else ""
        if network.num_classes is None and takes_classes(getattr(module, function)):
            by_place = f"; it is called as {function}(num_classes=None), because a task with train has no classes"
        torch.manual_seed(0)
        try:
            model = make()
        except BaseException as error:
            raise NetworkError(f"network {network.spec}: {described(error)}{by_place}") from error
    try:
        try_out(network, networks.checked(network.spec, model))
    except NetworkError as error:
        raise NetworkError(f"{error}{by_place}") from error
    return with_sources(network, file, folder)


def with_sources(network: Network, file: str, folder: Path) -> Network:
    """The network with the text of every module that was imported from its folder."""
    try:
        sources = captured(file, folder)
    except (OSError, SyntaxError) as error:
        raise NetworkError(f"network {network.spec}: a module cannot be read: {error}") from None
    if sum(len(source.text) for source in sources) > _MAX_SOURCES:
        raise NetworkError(f"network {network.spec}: its modules have more than {_MAX_SOURCES:,} characters")
    return replace(network, sources=sources)


def with_libraries(network: Network) -> Network:
    """The network with the libraries that its text imports among its packages, and with the libraries' versions."""
    used = imported(source.text for source in network.sources)
    packages = tuple(dict.fromkeys((*network.packages, *(name for name in LIBRARIES if name in used))))
    versions = tuple((name, _version(name)) for name in packages if name in LIBRARIES)
    return replace(network, packages=packages, versions=versions)


def imported(texts: Iterable[str]) -> set[str]:
    """The names of the packages that these texts import anywhere."""
    names: set[str] = set()
    for text in texts:
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    return names


def examined(network: Network) -> Network:
    """The network with its layout and roles, after it was built twice and tried with pictures. Raises NetworkError."""
    from benchmark.roles import found_roles

    first = _built_from_memory(network)
    again = _built_from_memory(network)
    if first is again:
        raise NetworkError(f"network {network.spec} returns the same module at each call; it has to make a new one")
    constructed = networks.constructed_sha256(again)
    if networks.constructed_sha256(first) != constructed:
        raise NetworkError(random_otherwise(network.spec))
    require_own_memory(network.spec, first)
    try_out(network, first)
    layout = tuple((name, tuple(parameter.shape)) for name, parameter in again.named_parameters())
    return replace(network, layout=layout, constructed=constructed, found=found_roles(first))


def random_otherwise(spec: str) -> str:
    """The sentence for constructors that differ under the same seed."""
    return (
        f"network {spec}: its constructor is random otherwise: two builds with one seed differ, though torch, numpy "
        "and random are seeded; use these and nothing else (no clock, no os.urandom, no hash())"
    )


def _built_from_memory(network: Network) -> nn.Module:
    try:
        return networks.build(network, 0)
    except NetworkError as error:
        word = networks.what_it_does(error)
        if word is None:
            raise
        raise NetworkError(f"{error}; its constructor {word}, which isolation does not allow") from error


def find_trainer(spec: str, folder: Path) -> Trainer:
    """Import FILE:FUNCTION and look at its signature. Raises NetworkError."""
    file, _, function = spec.rpartition(":")
    if not file:
        raise NetworkError(f"train {spec!r} is not FILE:FUNCTION")
    if not (folder / file).is_file():
        raise NetworkError(f"train {spec}: {folder / file}: no such file")
    try:
        with contained(BUILD_SECONDS):
            made = getattr(import_file(file, folder), function, None)
    except BaseException as error:
        raise NetworkError(f"train {spec}: {file} cannot be imported: {described(error)}") from error
    if made is None or not callable(made):
        raise NetworkError(f"train {spec}: {file} has no function {function!r}")
    try:
        inspect.signature(made).bind(None, seed=0, device="cpu", report=print)
    except TypeError as error:
        raise NetworkError(
            f"train {spec} is called as {function}(model, seed=…, device=…, report=…), "
            f"but takes {inspect.signature(made)}: {error}"
        ) from None
    try:
        texts = captured(file, folder)
    except (OSError, SyntaxError) as error:
        raise NetworkError(f"train {spec}: a module cannot be read: {error}") from None
    sources = [(source.file, hashlib.sha256(source.text.encode()).hexdigest()) for source in texts]
    own = module_name(file)
    sources.sort(key=lambda one: (Path(one[0]).stem != own, one[0]))
    return Trainer(spec, folder, tuple(sources))


def _version(name: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


def trainer_sees(task: Task) -> Sequence[str]:
    """Files of the trainer that the candidate can read, because the network's modules include them."""
    if task.trainer is None or task.network is None:
        return ()
    file = os.path.normpath(task.trainer.spec.rpartition(":")[0])
    return [source.file for source in task.network.sources if source.file == file]
