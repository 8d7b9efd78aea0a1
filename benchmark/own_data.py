"""The data that a task file names, in any of its forms, as a prepared data set."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from benchmark.data import DataError, load_dataset
from benchmark.data.arrays import Arrays, from_file, from_torchvision, resized, returned, shuffled
from benchmark.data.loading import DATA_ROOT_VARIABLE, cache_folder
from benchmark.data.pictures import from_folder
from benchmark.data.prepared import prepare
from benchmark.networks import described
from benchmark.sources import import_file
from benchmark.task import NUM_CLASSES, Prepared
from benchmark.user_code import contained

FILES = (".npz", ".safetensors")


def is_ours(data: str, image_size: int | None) -> bool:
    """Whether `data` is one of our sets as it is."""
    return data in NUM_CLASSES and image_size in (None, 32)


def prepared_data(
    data: str, image_size: int | None, folder: Path, *, data_root: Path | None = None, download: bool = False
) -> Prepared:
    """Load the data that `data` names, relative to `folder`, and keep them in the cache. Raises DataError."""
    first, _, second = data.partition(":")
    path = folder / data
    if data in NUM_CLASSES:
        ours = load_dataset(data, data_root=data_root, download=download)
        arrays = Arrays(
            ours.train_images.contiguous().numpy(),
            ours.train_labels.numpy(),
            ours.test_images.contiguous().numpy(),
            ours.test_labels.numpy(),
        )
        return prepare(resized(arrays, image_size))
    if first == "torchvision":
        arrays = from_torchvision(second, root=_root(data_root), download=download)
    elif first.endswith(".py") and second:
        arrays = _called(first, second, folder)
    elif path.suffix.lower() in FILES:
        arrays = from_file(path)
    elif path.is_dir():
        return prepare(shuffled(from_folder(path, image_size)))
    elif path.exists():
        own = 'data = "data.py:load", a function of yours, can read it'
        raise DataError(f"{path} is neither a folder nor {' nor '.join(FILES)}; {own}")
    else:
        raise DataError(
            f"{path}: no such file or folder, and none of our data sets is called {data!r}: {', '.join(NUM_CLASSES)}"
        )
    return prepare(shuffled(resized(arrays, image_size)))


def _root(data_root: Path | None) -> Path:
    variable = os.environ.get(DATA_ROOT_VARIABLE)
    return data_root.expanduser() if data_root else Path(variable).expanduser() if variable else cache_folder()


def _called(file: str, function: str, folder: Path) -> Arrays:
    what = f"{file}:{function}"
    if not (folder / file).is_file():
        raise DataError(f"{folder / file}: no such file")
    try:
        with contained():
            os.chdir(folder)  # as for a trainer; `contained` goes back
            made = getattr(import_file(file, folder), function, None)
            if made is None or not callable(made):
                raise DataError(f"{what}: {file} has no function {function!r}")
            arrays = returned(made(), what)
    except DataError:
        raise
    except BaseException as error:  # noqa: BLE001 - the user's code may raise anything
        raise DataError(f"{what}: {described(error)}") from None
    return dataclasses.replace(arrays, notes=(*arrays.notes, f"{what} ran in the trusted process"))
