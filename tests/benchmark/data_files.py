"""Write small data sets in the genuine file formats: CIFAR's pickles and FashionMNIST's idx files."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark.data import DataError
from benchmark.data.cifar import torchvision_datasets


def write_cifar(root: Path, name: str = "cifar100", *, train: int = 40, test: int = 20) -> Any:
    """Write random pictures as CIFAR files of `name` below `root`.

    Returns the subclass of torchvision's class that knows their checksums; put it into `benchmark.data.cifar.CLASSES`
    (monkeypatch.setitem, as `lambda: subclass`) and `load_dataset(name, data_root=root)` reads them. Skips the test
    where torchvision cannot be imported.
    """
    try:
        datasets = torchvision_datasets()
    except DataError as error:
        pytest.skip(str(error))
    base = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    key, classes = ("labels", 10) if name == "cifar10" else ("fine_labels", 100)
    folder = root / base.base_folder
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)

    def put(filename: str, content: dict[str, Any]) -> str:
        raw = pickle.dumps(content, protocol=2)
        (folder / filename).write_bytes(raw)
        return hashlib.md5(raw).hexdigest()

    def batch(count: int) -> dict[str, Any]:
        pictures = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
        return {"data": pictures, key: [i % classes for i in range(count)], "batch_label": "small"}

    names = {base.meta["key"]: [f"class {i}" for i in range(classes)]}
    contents: dict[str, Any] = {
        "train_list": [
            [filename, put(filename, batch(train // len(base.train_list)))] for filename, _ in base.train_list
        ],
        "test_list": [[filename, put(filename, batch(test))] for filename, _ in base.test_list],
        "meta": {**base.meta, "md5": put(base.meta["filename"], names)},
    }
    return type("SmallCIFAR", (base,), contents)


def idx_bytes(array: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    """`array` (uint8) as an idx file."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.tobytes()
