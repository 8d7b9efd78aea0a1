"""Load data sets as tensors from the package or the disk, and check every byte against a checksum."""

from __future__ import annotations

from benchmark.data.dataset import NUM_CLASSES, DataError, DataNotFound, ImageDataset, hold_out
from benchmark.data.loading import Availability, available, load_dataset

__all__ = [
    "NUM_CLASSES",
    "Availability",
    "DataError",
    "DataNotFound",
    "ImageDataset",
    "available",
    "hold_out",
    "load_dataset",
]
