"""Find and load a data set by name: from the package, or from the usual folders of torchvision's data."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import platformdirs

from benchmark.data import cifar, fashion
from benchmark.data.dataset import NUM_CLASSES, DataError, DataNotFound, ImageDataset, make_dataset
from benchmark.data.pocket import EMBEDDED, EMBEDDED_NAMES, load_embedded
from benchmark.vision import VisionMissing, vision

DATA_ROOT_VARIABLE = "INITSEARCH_DATA_ROOT"


@dataclass(frozen=True)
class Availability:
    """Whether a data set is on the disk. `where` is its folder, `reason` a sentence for the user."""

    name: str
    ok: bool
    where: Path | None
    reason: str


def cache_folder() -> Path:
    """Return the folder for downloads if no data root is given: `data` in the user's cache folder."""
    return platformdirs.user_cache_path("initsearch") / "data"


def load_dataset(name: str, *, data_root: Path | None = None, download: bool = False) -> ImageDataset:
    """Load the data set called `name`. Every file is checked against its checksum before use.

    The full sets (cifar10, cifar100, fmnist) are searched in `data_root`, then in the folder that the environment
    variable INITSEARCH_DATA_ROOT names, then in the user's cache folder, then (fmnist) in the folder of Debian's
    package dataset-fashion-mnist. With `download`, a missing set is downloaded into the first of these.
    The embedded sets need no folder.

    Raises
    ------
    DataNotFound
        The set is in none of those places, or the data root does not exist. The message names places and remedies.
    DataError
        The name is unknown, a file is corrupt or cannot be read, or the download failed.
    """
    _check_name(name)
    roots = _roots(data_root, must_exist=not download)
    if name in EMBEDDED_NAMES:
        return _embedded(name)
    folder, looked = _find(name, roots)
    if folder is None:
        if not download:
            raise DataNotFound(_not_found(name, looked))
        folder = _download(name, roots[0][1])
    class_names: tuple[str, ...] = fashion.CLASS_NAMES
    if name == "fmnist":
        arrays = fashion.read_fashion_mnist(folder)
    else:
        arrays, class_names = cifar.read_cifar(folder, cifar.CIFAR[name])
    return make_dataset(name, arrays, class_names=class_names, provenance=f"{name}: the full set, from {folder}")


@functools.cache
def _embedded(name: str) -> ImageDataset:
    """Unpack and check an embedded set once in a process: half a second, and a slot trains many networks on it."""
    return load_embedded(name)


def available(name: str, data_root: Path | None = None) -> Availability:
    """Check whether `load_dataset` can find the files. Reads none of them and never raises DataError."""
    try:
        _check_name(name)
        roots = _roots(data_root, must_exist=True)
    except DataError as error:
        return Availability(name, False, None, str(error))
    if name in EMBEDDED_NAMES:
        return Availability(name, True, EMBEDDED, "embedded in the package")
    folder, looked = _find(name, roots)
    if folder is None:
        return Availability(name, False, None, _not_found(name, looked))
    unreadable = [path for path in _files(name, folder) if not os.access(path, os.R_OK)]
    if unreadable:
        return Availability(name, False, folder, f"cannot read {unreadable[0]}: check its permissions")
    return Availability(name, True, folder, f"found in {folder}")


def _check_name(name: str) -> None:
    if name not in NUM_CLASSES:
        raise DataError(f"unknown data set {name!r}; known: {', '.join(NUM_CLASSES)}")


def _roots(data_root: Path | None, *, must_exist: bool) -> list[tuple[str, Path]]:
    """Return the roots to search, each with its origin. A root that the user named must be a readable folder."""
    named = [("--data-root", data_root)] if data_root is not None else []
    if variable := os.environ.get(DATA_ROOT_VARIABLE):
        named.append((DATA_ROOT_VARIABLE, Path(variable)))
    roots = []
    for origin, given in named:
        root = given.expanduser()
        if not os.path.lexists(root):
            if must_exist:
                raise DataNotFound(f"the data root {root} ({origin}) does not exist: create it or name another")
        elif not root.is_dir():
            raise DataError(f"the data root {root} ({origin}) is no folder: name the folder that holds the data")
        elif not os.access(root, os.R_OK | os.X_OK):
            raise DataError(f"the data root {root} ({origin}) cannot be read: check its permissions")
        roots.append((origin, root))
    return [*roots, ("the cache folder", cache_folder())]


def _candidates(name: str, root: Path) -> Iterator[Path]:
    """Yield the folders at or below `root` that may contain the files of `name`."""
    if name == "fmnist":
        yield from (root / "FashionMNIST" / "raw", root / "fashion-mnist", root)
    else:
        yield root / cifar.CIFAR[name].folder
        if root.name == cifar.CIFAR[name].folder:
            yield root


def _files(name: str, folder: Path) -> list[Path]:
    """Return the files of `name` in `folder`; empty if one is missing."""
    if name == "fmnist":
        return list((fashion.find_files(folder) or {}).values())
    paths = [folder / filename for filename in cifar.CIFAR[name].filenames]
    return paths if all(path.is_file() for path in paths) else []


def _find(name: str, roots: list[tuple[str, Path]]) -> tuple[Path | None, list[str]]:
    """Return the first folder that has all files of `name`, and a line for each place searched before."""
    looked: list[str] = []
    places = [(origin, folder) for origin, root in roots for folder in _candidates(name, root)]
    if name == "fmnist":
        places.append(("Debian's package dataset-fashion-mnist", fashion.DEBIAN_FOLDER))
    for origin, folder in places:
        try:
            if _files(name, folder):
                return folder, looked
            state = "some files are missing" if folder.is_dir() else "no such folder"
            if name in cifar.CIFAR and (archive := folder.parent / cifar.CIFAR[name].archive).is_file():
                state += f"; unpack the archive beside it: tar -xzf {archive} -C {archive.parent}"
        except PermissionError:
            state = "cannot be read: check its permissions"
        looked.append(f"{folder} ({origin}): {state}")
    return None, looked


def _not_found(name: str, looked: list[str]) -> str:
    remedies = ["download it (--download)", f"name the folder that holds it with --data-root or {DATA_ROOT_VARIABLE}"]
    if name == "fmnist":
        remedies.append("apt-get install dataset-fashion-mnist")
    places = "".join(f"\n  {line}" for line in looked)
    return f"{name} is not on this machine. Looked in:{places}\nTo get it: {'; or '.join(remedies)}."


def _download(name: str, root: Path) -> Path:
    """Download `name` into `root` with torchvision, which checks the archive's md5. Return the files' folder."""
    try:
        datasets = vision("datasets")
    except VisionMissing as error:
        raise DataError(
            f"torchvision, which downloads {name}, cannot be imported: {error}; or fetch the files by hand and name "
            f"their folder with --data-root or {DATA_ROOT_VARIABLE}"
        ) from error
    try:
        root.mkdir(parents=True, exist_ok=True)
        {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100, "fmnist": datasets.FashionMNIST}[name](
            root, download=True
        )
    except (URLError, RuntimeError, OSError) as error:
        raise DataError(f"could not download {name} into {root}: {error}; try again, or fetch it by hand") from error
    return root / ("FashionMNIST/raw" if name == "fmnist" else cifar.CIFAR[name].folder)
