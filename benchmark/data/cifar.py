"""CIFAR-10 and CIFAR-100 through torchvision, whose classes know the file names and their md5.

The files are pickles, so they are checked before anything unpickles them; here once more than in torchvision, because
torchvision says "not found or corrupted" without saying which, or which file. (Krizhevsky 2009, technical report.)
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.data.dataset import DataError, UInt8Array

FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
FILES = {
    "cifar10": (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"),
    "cifar100": ("train", "test", "meta"),
}
ARCHIVES = {"cifar10": "cifar-10-python.tar.gz", "cifar100": "cifar-100-python.tar.gz"}


def torchvision_datasets() -> Any:
    """The module torchvision.datasets; raises DataError when torchvision does not fit the torch that is installed."""
    try:
        from torchvision import datasets
    except (ImportError, RuntimeError) as error:
        raise DataError(
            f"torchvision cannot be imported ({error}): it must be built for the torch that is installed, so install "
            "both from the same package index"
        ) from error
    return datasets


def _torchvision_class(name: str) -> Any:
    return getattr(torchvision_datasets(), {"cifar10": "CIFAR10", "cifar100": "CIFAR100"}[name])


CLASSES: dict[str, Callable[[], Any]] = {name: partial(_torchvision_class, name) for name in FOLDERS}
"""Gives the torchvision class of a set, imported when called. A test with small files of its own puts a subclass with
other checksums (`train_list`, `test_list`, `meta`) here."""


def check_files(folder: Path, dataset_class: Any) -> None:
    """Compare every file of `dataset_class` in `folder` with its md5; raises DataError naming the first bad one."""
    meta = (dataset_class.meta["filename"], dataset_class.meta["md5"])
    for filename, md5 in (*dataset_class.train_list, *dataset_class.test_list, meta):
        path = folder / filename
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror or error}; check its permissions") from error
        if found != md5:
            raise DataError(f"{path} is corrupt: its md5 is {found}, expected {md5}; delete it and fetch it again")


def read_cifar(root: Path, dataset_class: Any) -> tuple[dict[str, UInt8Array], tuple[str, ...]]:
    """Arrays (images (N, 3, 32, 32), labels (N,), uint8) and class names from `root`, torchvision's root folder.

    Raises DataError when a file cannot be read, is not the one whose md5 `dataset_class` lists, or holds something
    else than pictures.
    """
    check_files(root / dataset_class.base_folder, dataset_class)
    arrays: dict[str, UInt8Array] = {}
    class_names: tuple[str, ...] = ()
    for split in ("train", "test"):
        try:
            half = dataset_class(root, train=split == "train")
            # torchvision hands out (N, 32, 32, 3), a transposed view of what the file holds.
            arrays[f"{split}_images"] = np.ascontiguousarray(half.data.transpose(0, 3, 1, 2))
            arrays[f"{split}_labels"] = np.asarray(half.targets, dtype=np.uint8)
            class_names = tuple(half.classes)
        except (RuntimeError, ValueError, KeyError, OverflowError, EOFError, pickle.UnpicklingError) as error:
            raise DataError(f"{root / dataset_class.base_folder} is no {dataset_class.__name__}: {error!r}") from error
    return arrays, class_names
