"""A user's four arrays: from a file, from torchvision or from a function of the user's own, in one form."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmark.data.array_names import IMAGES, LABELS, our_names
from benchmark.data.dataset import ARRAY_NAMES, DataError

Array = npt.NDArray[Any]
GREY_OR_RGB = (1, 3)
HELD_OUT = 5
"""Without a test part, one of so many pictures of each class is held out."""
_COPIES = 3
"""Memory of a training in units of its pictures: as they are, padded for crops, and with the test set as float32."""


@dataclass(frozen=True)
class Arrays:
    """Images uint8 or float32 (N, C, H, W), labels int64 (N,), and sentences for the user."""

    train_images: Array
    train_labels: Array
    test_images: Array
    test_labels: Array
    notes: tuple[str, ...] = ()


def from_file(path: Path) -> Arrays:
    """Read FILE.npz or FILE.safetensors. Nothing is unpickled. Raises DataError."""
    try:
        found = _npz(path) if path.suffix.lower() == ".npz" else _safetensors(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        raise DataError(f"{path}: cannot be read: {' '.join(str(error).split())[:200]}") from None
    return in_form(found, str(path))


def _npz(path: Path) -> dict[str, Array]:
    with zipfile.ZipFile(path) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
    require_memory(sum(sizes.values()), str(path))
    with np.load(path, allow_pickle=False) as archive:
        return {ours: archive[theirs] for ours, theirs in our_names(archive.files, str(path)).items()}


def _safetensors(path: Path) -> dict[str, Array]:
    from safetensors import SafetensorError, safe_open

    require_memory(path.stat().st_size, str(path))
    try:
        with safe_open(path, "numpy") as file:
            return {ours: file.get_tensor(theirs) for ours, theirs in our_names(file.keys(), str(path)).items()}
    except SafetensorError as error:
        raise ValueError(str(error)) from None
    except (TypeError, AttributeError) as error:  # such as bfloat16
        raise ValueError(f"a type that numpy does not have: {error}") from None


def returned(value: object, what: str, verb: str = "returns") -> Arrays:
    """What a function of the user's returned: a mapping with the four names, or the four arrays in their order."""
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == len(ARRAY_NAMES):
        value = dict(zip(ARRAY_NAMES, value, strict=True))
    if not isinstance(value, Mapping):
        many = f" of {len(value)}" if isinstance(value, list | tuple) else ""
        raise DataError(f"{what} {verb} {type(value).__name__}{many}, not the four arrays {', '.join(ARRAY_NAMES)}")
    try:
        names = our_names(map(str, value), what)
        given = {str(name): array for name, array in value.items()}
        found = {ours: _array(given[theirs]) for ours, theirs in names.items()}
    except (ValueError, TypeError, RuntimeError) as error:  # such as lists of unequal lengths, or a meta tensor
        raise DataError(f"{what}: {' '.join(str(error).split())[:200]}") from None
    require_memory(sum(array.nbytes for array in found.values()), what)  # a memmap is not in memory yet
    return in_form(found, what)


def _array(value: Any) -> Array:
    if hasattr(value, "detach"):  # a tensor
        value = value.detach().cpu().numpy()
    return np.asarray(value)


def in_form(found: Mapping[str, Array], what: str) -> Arrays:
    """Check the arrays of `our_names`, and bring them into the form of `Arrays`. Raises DataError with one sentence."""
    names = our_names(found, what)
    if "test_images" not in names:
        whole = ("train_images", "train_labels") if "train_images" in names else (IMAGES, LABELS)
        return _held_out(found[names[whole[0]]], found[names[whole[1]]], what, whole)
    images = {split: _images(found[names[f"{split}_images"]], f"{what}: {split}_images") for split in ("train", "test")}
    labels = {split: _labels(found[names[f"{split}_labels"]], f"{what}: {split}_labels") for split in ("train", "test")}
    for split in ("train", "test"):
        if len(images[split]) != len(labels[split]):
            raise DataError(
                f"{what}: {split}_images has {len(images[split])} pictures, {split}_labels {len(labels[split])} labels"
            )
    if images["train"].shape[1:] != images["test"].shape[1:] or images["train"].dtype != images["test"].dtype:
        shown = [f"{_shape(images[split])} {images[split].dtype}" for split in ("train", "test")]
        raise DataError(f"{what}: train_images are {shown[0]}, test_images {shown[1]}; both need the same form")
    require_classes(labels["train"], labels["test"], what)
    return Arrays(images["train"], labels["train"], images["test"], labels["test"])


def _held_out(images: Array, labels: Array, what: str, names: tuple[str, str]) -> Arrays:
    """The arrays with a fixed fifth of each class as test pictures. Raises DataError."""
    images, labels = _images(images, f"{what}: {names[0]}"), _labels(labels, f"{what}: {names[1]}")
    if len(images) != len(labels):
        raise DataError(f"{what}: {names[0]} has {len(images)} pictures, {names[1]} {len(labels)} labels")
    require_classes(labels, labels, what)
    random, test = np.random.default_rng(0), np.zeros(len(labels), dtype=bool)
    for label in range(int(labels.max()) + 1):
        places = np.flatnonzero(labels == label)
        if len(places) < 2:
            raise DataError(f"{what}: class {label} has one picture, so none can be held out for testing")
        test[random.permutation(places)[: max(1, round(len(places) / HELD_OUT))]] = True
    note = f"{Path(what).name} has no test part: a fixed fifth of each class ({test.sum():,} pictures) is held out"
    return Arrays(images[~test], labels[~test], images[test], labels[test], (note,))


def require_classes(train: Array, test: Array, what: str) -> None:
    """Raise DataError unless the labels are 0…C−1 with C > 1, each with training and with test pictures."""
    classes = int(max(train.max(), test.max())) + 1
    if min(train.min(), test.min()) < 0:
        raise DataError(f"{what}: a label is {min(train.min(), test.min())}; labels must be 0…C−1{_RELABEL}")
    if classes > 2**20:
        raise DataError(f"{what}: a label is {classes - 1}; labels must be 0…C−1")
    present = np.zeros(classes, dtype=bool)
    present[train] = True
    if not present[0] and present[1:].all() and test.min() > 0:
        raise DataError(f"{what}: labels must be 0…C−1, but they are 1…{classes - 1}: subtract 1")
    if not present.all():
        missing = int(np.flatnonzero(~present)[0])
        if missing > train.max():
            raise DataError(f"{what}: label {missing} has test pictures, but no training picture")
        raise DataError(
            f"{what}: labels must be 0…C−1, but no training picture has label {missing}, "
            f"and the largest label is {classes - 1}{_RELABEL}"
        )
    if classes < 2:
        raise DataError(f"{what}: there is one class only, so there is nothing to learn")
    tested = np.zeros(classes, dtype=bool)
    tested[test] = True
    if not tested.all():
        raise DataError(f"{what}: class {int(np.flatnonzero(~tested)[0])} has no test picture")


_RELABEL = "; np.unique(all_labels, return_inverse=True)[1] numbers them so"


def _shape(images: Array) -> str:
    return "×".join(map(str, images.shape[1:]))


def _images(array: Array, what: str) -> Array:
    if array.dtype not in (np.uint8, np.float32):
        fits = array.dtype.kind in "biuf" and array.size and array.min() >= 0 and 1 < array.max() <= 255
        kind = "float32" if array.dtype.kind == "f" and not (fits and (array == np.floor(array)).all()) else "uint8"
        remedy = f'; write .astype("{kind}")' if array.dtype.kind == "f" or fits else ""
        raise DataError(f"{what} is {array.dtype}; it must be uint8, or float32 that is already normalised{remedy}")
    if array.ndim in (3, 4) and 0 in array.shape:
        raise DataError(f"{what} has shape {array.shape}, so there is no picture")
    if array.ndim not in (3, 4):
        raise DataError(f"{what} has shape {array.shape}, not (N, H, W), (N, H, W, C) or (N, C, H, W)")
    if array.dtype == np.float32 and not np.isfinite(array).all():
        raise DataError(f"{what} has NaN or infinite values")
    if array.ndim == 3:
        array = array[:, None]
    elif array.shape[1] not in GREY_OR_RGB and array.shape[3] in GREY_OR_RGB:
        array = np.moveaxis(array, 3, 1)
    elif array.shape[1] not in GREY_OR_RGB:
        raise DataError(f"{what} has shape {array.shape}; the channels, first or last, must be 1 or 3")
    return np.ascontiguousarray(array)


def _labels(array: Array, what: str) -> Array:
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or not len(array):
        hint = "; one number for each picture, not one-hot" if array.ndim == 2 else ""
        raise DataError(f"{what} has shape {array.shape}, not (N,){hint}")
    if array.dtype.kind not in "iu":
        whole = array.dtype.kind == "b" or (array.dtype.kind == "f" and (array == np.floor(array)).all())
        remedy = '; write .astype("int64")' if whole else ""
        raise DataError(f"{what} is {array.dtype}; labels must be whole numbers 0…C−1{remedy}")
    if (largest := int(array.max())) >= 2**63:
        raise DataError(f"{what}: a label is {largest}; labels must be 0…C−1")
    return array.astype(np.int64)


def from_torchvision(name: str, *, root: Path, download: bool) -> Arrays:
    """Read a data set class of torchvision, such as SVHN. Raises DataError."""
    import inspect

    from benchmark.vision import VisionMissing, vision

    what = f"torchvision:{name}"
    try:
        datasets = vision("datasets")
    except VisionMissing as error:
        raise DataError(f"{what}: {error}") from None
    make: Any = getattr(datasets, name, None)
    if not inspect.isclass(make) or name not in datasets.__all__:
        raise DataError(f"{what}: torchvision has no data set {name!r}")
    known = inspect.signature(make).parameters
    parts: dict[str, tuple[Array, Array]] = {}
    for part in ("train", "test"):
        options: dict[str, Any] = {"download": download} if "download" in known else {}
        if "split" in known:
            options["split"] = part
        elif "train" in known:
            options["train"] = part == "train"
        else:
            raise DataError(f'{what} has no training and test part; data = "data.py:load" can make them')
        try:
            dataset: Any = make(root, **options)  # type: ignore[call-arg]
            parts[part] = _items(dataset, what)
        except (RuntimeError, OSError, ValueError, TypeError) as error:
            hint = "" if download else "; --download fetches it, --data-root names the folder that has it"
            raise DataError(f"{what}: {' '.join(str(error).split())[:200]}{hint}") from None
    (train, train_labels), (test, test_labels) = parts["train"], parts["test"]
    found = {"train_images": train, "train_labels": train_labels, "test_images": test, "test_labels": test_labels}
    return in_form(found, what)


def _items(dataset: Any, what: str) -> tuple[Array, Array]:
    pictures, labels = [], []
    for picture, label in dataset:
        pictures.append(np.asarray(picture))
        labels.append(label)
    if len({picture.shape for picture in pictures}) > 1:
        raise DataError(f"{what}: its pictures have several sizes; save them as a folder, and give image_size")
    return np.stack(pictures), np.asarray(labels)


def resized(arrays: Arrays, size: int | None) -> Arrays:
    """The arrays with pictures of `size` × `size` pixels; as they are without it. Too wide pictures lose both sides."""
    if size is None or arrays.train_images.shape[2:] == (size, size):
        return arrays
    train, test = (_scaled(images, size) for images in (arrays.train_images, arrays.test_images))
    return Arrays(train, arrays.train_labels, test, arrays.test_labels, arrays.notes)


def _scaled(images: Array, size: int) -> Array:
    import torch
    import torch.nn.functional as F

    height, width = images.shape[2:]
    factor = size / min(height, width)
    target = (max(size, round(height * factor)), max(size, round(width * factor)))
    top, left = (target[0] - size) // 2, (target[1] - size) // 2
    parts = []
    for start in range(0, len(images), 256):
        part = torch.from_numpy(images[start : start + 256])
        scaled = F.interpolate(part.float(), size=target, mode="bilinear", antialias=True)
        scaled = scaled[:, :, top : top + size, left : left + size]
        parts.append((scaled.round().clamp(0, 255) if part.dtype == torch.uint8 else scaled).to(part.dtype).numpy())
    return np.concatenate(parts)


def shuffled(arrays: Arrays) -> Arrays:
    """The arrays in a fixed random order: looks and limits keep a part of them, which must have all classes."""
    train, test = (
        np.random.default_rng(0).permutation(len(labels)) for labels in (arrays.train_labels, arrays.test_labels)
    )
    images, labels = arrays.train_images, arrays.train_labels
    return Arrays(images[train], labels[train], arrays.test_images[test], arrays.test_labels[test], arrays.notes)


def in_file_order(images: Array, labels: Array) -> tuple[Array, Array]:
    """The arrays that `shuffled` brings into the order of these."""
    order = np.argsort(np.random.default_rng(0).permutation(len(labels)))
    return images[order], labels[order]


def available_memory() -> int | None:
    """Bytes of memory that are free on this machine, or in this container; None where nobody says."""
    free: list[int] = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")]
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        if limit != "max":
            free.append(int(limit) - int(Path("/sys/fs/cgroup/memory.current").read_text()))
    except (OSError, ValueError, IndexError):
        pass
    if not free and hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        free.append(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(free, default=None)


def require_memory(size: int, what: str) -> None:
    """Raise DataError if a training with pictures of `size` bytes will not fit into memory, by an estimate."""
    free = available_memory()
    if free is not None and _COPIES * size > free:
        raise DataError(
            f"{what}: its pictures take {size / 2**30:.1f} GB and a training about {_COPIES} times that, but "
            f"{free / 2**30:.1f} GB of memory are free; use fewer or smaller pictures (image_size)"
        )
