"""Write small data sets in the genuine file formats: CIFAR's pickles and FashionMNIST's idx files."""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.data.cifar import CIFAR, CifarFiles


def write_cifar(root: Path, name: str = "cifar100", *, train: int = 40, test: int = 20) -> CifarFiles:
    """Write random pictures as the files of `name` below `root`, under their genuine names.

    Returns the description with their checksums: after `monkeypatch.setitem(cifar.CIFAR, name, description)`,
    `load_dataset(name, data_root=root)` reads them.
    """
    files = CIFAR[name]
    classes = 10 if name == "cifar10" else 100
    folder = root / files.folder
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)

    def put(filename: str, content: dict[str, Any]) -> str:
        raw = pickle.dumps(content, protocol=2)
        (folder / filename).write_bytes(raw)
        return hashlib.md5(raw).hexdigest()

    def batch(count: int) -> dict[str, Any]:
        pictures = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
        return {"data": pictures, files.labels_key: [i % classes for i in range(count)], "batch_label": "small"}

    return dataclasses.replace(
        files,
        train={filename: put(filename, batch(train // len(files.train))) for filename in files.train},
        test={filename: put(filename, batch(test)) for filename in files.test},
        meta={
            filename: put(filename, {files.names_key: [f"class {i}" for i in range(classes)]})
            for filename in files.meta
        },
    )


def idx_bytes(array: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    """`array` (uint8) as an idx file."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.tobytes()
