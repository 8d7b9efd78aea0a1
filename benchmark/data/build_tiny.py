"""Cut `tiny`, the data set of tests, from the embedded OpenClipart-100.

python -m benchmark.data.build_tiny                write the embedded files anew
python -m benchmark.data.build_tiny --check        only say whether they are what OpenClipart-100 gives

It has files of its own because every process that trains unpacks them: OpenClipart-100 takes a second of computing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmark.data.build import run_builder
from benchmark.data.container import Packed, pack, unpack
from benchmark.data.pocket import EMBEDDED

TRAIN_PER_CLASS, TEST_PER_CLASS = 20, 10


def build(source: Path = EMBEDDED) -> Packed:
    """Select the ten largest classes (the earlier of equals), with their first 20 training and 10 test pictures."""
    arrays, manifest = unpack("openclipart100", source)
    names = manifest["class_names"]
    sizes = np.bincount(arrays["train_labels"], minlength=len(names))
    classes = np.sort(np.argsort(-sizes, kind="stable")[:10])
    smaller = {}
    for split, count in (("train", TRAIN_PER_CLASS), ("test", TEST_PER_CLASS)):
        labels = arrays[f"{split}_labels"]
        chosen = np.sort(np.concatenate([np.flatnonzero(labels == c)[:count] for c in classes]))
        smaller[f"{split}_images"] = arrays[f"{split}_images"][chosen]
        smaller[f"{split}_labels"] = np.searchsorted(classes, labels[chosen]).astype(np.uint8)
    return pack(
        smaller,
        name="tiny",
        provenance=f"tiny: ten classes of {manifest['provenance']}",
        licence=manifest["licence"],
        source_package=manifest["source_package"],
        class_names=[names[c] for c in classes],
    )


if __name__ == "__main__":
    run_builder(__doc__ or "", build, EMBEDDED, "openclipart-png")
