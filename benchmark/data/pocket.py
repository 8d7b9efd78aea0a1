"""The data sets inside the package: OpenClipart-100, FashionMNIST-pocket, and `tiny` for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmark.data.container import unpack
from benchmark.data.dataset import ImageDataset, UInt8Array, make_dataset

EMBEDDED = Path(__file__).parent / "embedded"
EMBEDDED_NAMES = ("openclipart100", "fmnist_pocket", "tiny")

_TINY_TRAIN, _TINY_TEST = 20, 10


def load_embedded(name: str, folder: Path = EMBEDDED) -> ImageDataset:
    """Load one of `EMBEDDED_NAMES` from `folder`. Raises DataError if the files do not match the manifest."""
    arrays, manifest = unpack("openclipart100" if name == "tiny" else name, folder)
    class_names, provenance = tuple(manifest["class_names"]), manifest["provenance"]
    if name == "tiny":
        arrays, class_names = _tiny(arrays, class_names)
        provenance = f"tiny: ten classes of {provenance}"
    return make_dataset(name, arrays, class_names=class_names, provenance=provenance)


def _tiny(arrays: dict[str, UInt8Array], class_names: tuple[str, ...]) -> tuple[dict[str, UInt8Array], tuple[str, ...]]:
    """Select the ten largest classes (the earlier of equals), with their first 20 training and 10 test pictures."""
    sizes = np.bincount(arrays["train_labels"], minlength=len(class_names))
    classes = np.sort(np.argsort(-sizes, kind="stable")[:10])
    smaller: dict[str, UInt8Array] = {}
    for split, count in (("train", _TINY_TRAIN), ("test", _TINY_TEST)):
        labels = arrays[f"{split}_labels"]
        chosen = np.sort(np.concatenate([np.flatnonzero(labels == c)[:count] for c in classes]))
        smaller[f"{split}_images"] = arrays[f"{split}_images"][chosen]
        smaller[f"{split}_labels"] = np.searchsorted(classes, labels[chosen]).astype(np.uint8)
    return smaller, tuple(class_names[c] for c in classes)
