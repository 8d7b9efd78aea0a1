"""Read CIFAR-10 and CIFAR-100 from the files of the python version. Each file's md5 is checked before unpickling.

Files, folders and md5 are those of torchvision's classes, so both can read each other's downloads. Each file is read
once: the checked bytes are unpickled. (Krizhevsky 2009, "Learning multiple layers of features from tiny images";
format: https://www.cs.toronto.edu/~kriz/cifar.html.)
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.data.dataset import DataError, UInt8Array
from benchmark.files import read_regular

MAX_BYTES = 256 * 2**20
"""Largest size of a file. The largest one has 155 MB."""


@dataclass(frozen=True)
class CifarFiles:
    """The files of a set: a folder, and file names with their md5."""

    folder: str
    archive: str
    train: Mapping[str, str]
    test: Mapping[str, str]
    meta: Mapping[str, str]
    labels_key: str
    names_key: str

    @property
    def filenames(self) -> tuple[str, ...]:
        """All files that must exist."""
        return (*self.train, *self.test, *self.meta)


CIFAR: dict[str, CifarFiles] = {
    "cifar10": CifarFiles(
        folder="cifar-10-batches-py",
        archive="cifar-10-python.tar.gz",
        train={
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        },
        test={"test_batch": "40351d587109b95175f43aff81a1287e"},
        meta={"batches.meta": "5ff9c542aee3614f3951f8cda6e48888"},
        labels_key="labels",
        names_key="label_names",
    ),
    "cifar100": CifarFiles(
        folder="cifar-100-python",
        archive="cifar-100-python.tar.gz",
        train={"train": "16019d7e3df5f24257cddd939b257f8d"},
        test={"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
        meta={"meta": "7973b15100ade9c7d40fb424638fde48"},
        labels_key="fine_labels",
        names_key="fine_label_names",
    ),
}
"""Tests that write small files put their checksums here (`tests/benchmark/data_files.py`)."""


def read_cifar(folder: Path, files: CifarFiles) -> tuple[dict[str, UInt8Array], tuple[str, ...]]:
    """Read arrays (images (N, 3, 32, 32), labels (N,), uint8) and class names from `folder`.

    Raises DataError if a file cannot be read, has another md5 than in `files`, or has no pictures.
    """
    # Every file is checked before the first one is unpickled.
    content = {
        filename: _read_checked(folder / filename, md5)
        for group in (files.train, files.test, files.meta)
        for filename, md5 in group.items()
    }
    arrays: dict[str, UInt8Array] = {}
    try:
        for split, group in (("train", files.train), ("test", files.test)):
            batches = [_unpickle(content.pop(filename)) for filename in group]
            images = np.concatenate([batch["data"] for batch in batches])
            arrays[f"{split}_images"] = images.reshape(-1, 3, 32, 32)
            arrays[f"{split}_labels"] = np.concatenate(
                [np.array(batch[files.labels_key], np.uint8) for batch in batches]
            )
        (meta,) = files.meta
        return arrays, tuple(_unpickle(content[meta])[files.names_key])
    except (KeyError, ValueError, TypeError, OverflowError, EOFError, pickle.UnpicklingError) as error:
        raise DataError(f"the files in {folder} do not hold what CIFAR files hold: {error!r}") from error


def _read_checked(path: Path, md5: str) -> bytes:
    """Return the bytes of `path`. Raises DataError if they cannot be read or have another md5."""
    try:
        content = read_regular(path, limit=MAX_BYTES)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}; check its permissions") from error
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != md5:
        raise DataError(f"{path} is corrupt: its md5 is {found}, expected {md5}; delete it and fetch it again")
    return content


def _unpickle(content: bytes) -> Any:
    # Python 2 pickled the original files. latin1 turns its byte strings into str.
    return pickle.loads(content, encoding="latin1")
