"""Keeps a user's arrays in the user's cache, by their content, so that every training process maps the same files."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import platformdirs

from benchmark.data.arrays import Arrays, require_memory
from benchmark.data.dataset import ARRAY_NAMES, DataError, ImageDataset, channel_statistics
from benchmark.data.unused import mark_used, prune
from benchmark.task import Prepared


def folder() -> Path:
    """The folder of all prepared data sets."""
    override = os.environ.get("INITSEARCH_CACHE_DIR")
    return ((Path(override) if override else platformdirs.user_cache_path("initsearch")) / "task-data").resolve()


def sha256(arrays: Arrays) -> str:
    """SHA-256 of name, shape, type and bytes of the four arrays."""
    digest = hashlib.sha256()
    for name in ARRAY_NAMES:
        array = np.ascontiguousarray(getattr(arrays, name))
        digest.update(f"{name} {array.shape} {array.dtype.str}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()


def prepare(arrays: Arrays) -> Prepared:
    """Keep the arrays, unless they are there, and remove what is unused. Raises DataError if the disk refuses."""
    size = arrays.train_images.nbytes + arrays.test_images.nbytes
    require_memory(size, "the data")
    content = sha256(arrays)
    place = folder() / content
    try:
        try:
            mark_used(place)
        except FileNotFoundError:
            place.parent.mkdir(parents=True, exist_ok=True)
            made = Path(tempfile.mkdtemp(dir=place.parent, prefix=".new-"))
            try:
                for name in ARRAY_NAMES:
                    np.save(made / f"{name}.npy", getattr(arrays, name), allow_pickle=False)
                made.rename(place)
            except OSError:
                shutil.rmtree(made, ignore_errors=True)
                if not place.is_dir():  # else another process was first
                    raise
        prune(place.parent, place)
    except OSError as error:
        raise DataError(f"{place}: the prepared data cannot be written: {error}") from None
    count, channels, height, width = arrays.train_images.shape
    classes = int(arrays.train_labels.max()) + 1
    return Prepared(place, content, classes, count, len(arrays.test_labels), channels, (height, width), arrays.notes)


@functools.lru_cache(maxsize=2)
def load_prepared(prepared: Prepared) -> ImageDataset:
    """The data set, checked against its hash once per process. Raises DataError."""
    import torch

    with contextlib.suppress(OSError):  # what is wrong shows when it is read
        mark_used(prepared.folder)
    try:
        found = {name: np.load(prepared.folder / f"{name}.npy", allow_pickle=False) for name in ARRAY_NAMES}
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{prepared.folder}: the prepared data cannot be read ({error}); give the task file again on this machine"
        ) from None
    arrays = Arrays(**found)
    if sha256(arrays) != prepared.sha256:
        raise DataError(f"{prepared.folder}: the prepared data were changed; remove that folder, and begin again")
    if arrays.train_images.dtype == np.uint8:
        mean, std = channel_statistics(arrays.train_images)
        std = [value if value > 0 else 1.0 for value in std]
    else:
        channels = arrays.train_images.shape[1]
        mean, std = [0.0] * channels, [1 / 255] * channels  # already normalised: leaves the values as they are
    return ImageDataset(
        name=prepared.sha256[:12],
        train_images=torch.from_numpy(found["train_images"]),
        train_labels=torch.from_numpy(found["train_labels"]),
        test_images=torch.from_numpy(found["test_images"]),
        test_labels=torch.from_numpy(found["test_labels"]),
        num_classes=prepared.classes,
        class_names=tuple(map(str, range(prepared.classes))),
        mean=tuple(mean),
        std=tuple(std),
        provenance=f"the user's own, in {prepared.folder}",
        sha256=prepared.sha256,
    )


def load_task_data(data: Prepared | None, name: str, data_root: Path | None) -> ImageDataset:
    """The data set of a task: a user's, or ours by its name. Raises DataError."""
    if data is not None:
        return load_prepared(data)
    from benchmark.data.loading import load_dataset

    return load_dataset(name, data_root=data_root)
