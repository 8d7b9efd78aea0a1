"""The form of a loaded data set, and the errors of loading it."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchmark.task import NUM_CLASSES

if TYPE_CHECKING:
    import torch

UInt8Array = npt.NDArray[np.uint8]

__all__ = ["ARRAY_NAMES", "NUM_CLASSES", "DataError", "DataNotFound", "ImageDataset", "UInt8Array"]

ARRAY_NAMES = ("train_images", "train_labels", "test_images", "test_labels")


class DataError(Exception):
    """Data cannot be used: it is corrupt or unreadable, or the name is unknown. The message says what to do."""


class DataNotFound(DataError):
    """Data was not found. The message names all searched places and says how to get the data."""


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """Pictures and labels in memory, on the CPU.

    Images are uint8 (N, C, H, W), in our own sets (N, 3, 32, 32). A user's may also be float32 and already normalised;
    `mean` is then 0 and `std` 1/255. Our grey pictures are padded to 32×32 and their three channels share one memory
    (`expand`): call `.contiguous()` before writing. Labels are int64 (N,). `mean` and `std` are those of the training
    images including the padding, per channel, scaled to [0, 1]. `sha256` identifies the content, not the files: see
    `content_sha256`.
    """

    name: str
    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor
    num_classes: int
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    provenance: str
    sha256: str


def hold_out(dataset: ImageDataset, count: int) -> ImageDataset:
    """Replace the test set by the last `count` training pictures, which are no longer trained on. 0 changes nothing.

    `mean` and `std` stay those of all training pictures. Raises DataError if no training picture would remain.
    """
    if count == 0:
        return dataset
    if not 0 < count < len(dataset.train_labels):
        raise DataError(f"{dataset.name}: cannot hold {count} of {len(dataset.train_labels)} training pictures out")
    return dataclasses.replace(
        dataset,
        train_images=dataset.train_images[:-count],
        train_labels=dataset.train_labels[:-count],
        test_images=dataset.train_images[-count:],
        test_labels=dataset.train_labels[-count:],
    )


def content_sha256(arrays: Mapping[str, UInt8Array]) -> str:
    """Return the SHA-256 of name, shape and bytes of the four uint8 arrays, before padding and channel repetition."""
    digest = hashlib.sha256()
    for key in ARRAY_NAMES:
        digest.update(f"{key} {arrays[key].shape}\n".encode())
        digest.update(np.ascontiguousarray(arrays[key]).data)
    return digest.hexdigest()


def channel_statistics(images: UInt8Array) -> tuple[list[float], list[float]]:
    """Return mean and population standard deviation of uint8 (N, C, H, W) per channel, scaled to [0, 1].

    The sums are exact integers. A thousand pictures at a time keep memory small.
    """
    channels = images.shape[1]
    counts = np.zeros((channels, 256), dtype=np.int64)
    for start in range(0, len(images), 1000):
        for channel in range(channels):
            counts[channel] += np.bincount(images[start : start + 1000, channel].ravel(), minlength=256)
    values = np.arange(256, dtype=np.int64)
    total = counts.sum(axis=1)
    mean = counts @ values / total
    variance = (counts @ values**2) / total - mean**2
    return [float(m) for m in mean / 255], [float(s) for s in np.sqrt(variance) / 255]


def make_dataset(
    name: str, arrays: Mapping[str, UInt8Array], *, class_names: tuple[str, ...], provenance: str
) -> ImageDataset:
    """Build an `ImageDataset` from uint8 arrays: images (N, 3, 32, 32) or grey (N, 28, 28), labels (N,).

    Raises DataError if shapes, lengths or labels do not fit each other or the name.
    """
    # Imported here, because every command uses this module's names and should not wait two seconds for torch.
    import torch
    import torch.nn.functional as F

    num_classes = NUM_CLASSES[name]
    if len(class_names) != num_classes:
        raise DataError(f"{name} from {provenance}: {len(class_names)} class names, expected {num_classes}")
    tensors: dict[str, torch.Tensor] = {}
    for split in ("train", "test"):
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        if images.shape[1:] not in ((3, 32, 32), (28, 28)) or not len(images) or labels.shape != (len(images),):
            raise DataError(f"{name} from {provenance}: {split} has images {images.shape} and labels {labels.shape}")
        if labels.max() >= num_classes:
            raise DataError(f"{name} from {provenance}: a {split} label is {labels.max()}, not in 0…{num_classes - 1}")
        tensors[f"{split}_labels"] = torch.from_numpy(labels.astype(np.int64))
        pictures = torch.from_numpy(np.ascontiguousarray(images))
        tensors[f"{split}_images"] = F.pad(pictures, (2, 2, 2, 2)).unsqueeze(1) if pictures.ndim == 3 else pictures
    mean, std = channel_statistics(tensors["train_images"].numpy())
    if len(mean) == 1:
        mean, std = mean * 3, std * 3
        for key in ("train_images", "test_images"):
            tensors[key] = tensors[key].expand(-1, 3, -1, -1)
    fields: dict[str, Any] = {**tensors, "mean": tuple(mean), "std": tuple(std)}
    return ImageDataset(
        name=name,
        num_classes=num_classes,
        class_names=class_names,
        provenance=provenance,
        sha256=content_sha256(arrays),
        **fields,
    )
