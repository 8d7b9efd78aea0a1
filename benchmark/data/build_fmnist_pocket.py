"""Build FashionMNIST-pocket from FashionMNIST's own four files, byte for byte the same on every machine.

python -m benchmark.data.build_fmnist_pocket                write the embedded files anew
python -m benchmark.data.build_fmnist_pocket --check        only say whether they are what the sources give
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmark.data.build import run_builder
from benchmark.data.container import Packed, pack
from benchmark.data.dataset import UInt8Array
from benchmark.data.fashion import CLASS_NAMES, DEBIAN_FOLDER, read_fashion_mnist

NAME = "fmnist_pocket"
PACKAGE = "dataset-fashion-mnist 0.0~git20200523.55506a9-1"
PROVENANCE = f"FashionMNIST-pocket: 5,000 + 2,000 pictures of FashionMNIST, from Debian's {PACKAGE}; MIT, Zalando SE"
TRAIN_PER_CLASS, TEST_PER_CLASS = 500, 200


def first_of_each_class(images: UInt8Array, labels: UInt8Array, count: int) -> tuple[UInt8Array, UInt8Array]:
    """Return the first `count` pictures of every class, in the order of the file."""
    chosen = np.sort(np.concatenate([np.flatnonzero(labels == c)[:count] for c in range(len(CLASS_NAMES))]))
    return images[chosen], labels[chosen]


def build(source: Path = DEBIAN_FOLDER) -> Packed:
    """Build the whole set from the four idx files (plain or .gz) in `source`, after checking their checksums."""
    full = read_fashion_mnist(source)
    arrays = {}
    for split, count in (("train", TRAIN_PER_CLASS), ("test", TEST_PER_CLASS)):
        images, labels = first_of_each_class(full[f"{split}_images"], full[f"{split}_labels"], count)
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = images, labels
    return pack(
        arrays,
        name=NAME,
        provenance=PROVENANCE,
        licence="MIT: LICENSE-fashion-mnist.txt",
        source_package=PACKAGE,
        class_names=list(CLASS_NAMES),
    )


if __name__ == "__main__":
    run_builder(__doc__ or "", build, DEBIAN_FOLDER, "dataset-fashion-mnist")
