"""The data sets inside the package: OpenClipart-100, FashionMNIST-pocket, and `tiny` for tests."""

from __future__ import annotations

from pathlib import Path

from benchmark.data.container import unpack
from benchmark.data.dataset import ImageDataset, make_dataset

EMBEDDED = Path(__file__).parent / "embedded"
EMBEDDED_NAMES = ("openclipart100", "fmnist_pocket", "tiny")


def load_embedded(name: str, folder: Path = EMBEDDED) -> ImageDataset:
    """Load one of `EMBEDDED_NAMES` from `folder`. Raises DataError if the files do not match the manifest."""
    arrays, manifest = unpack(name, folder)
    return make_dataset(name, arrays, class_names=tuple(manifest["class_names"]), provenance=manifest["provenance"])
