"""Data sets as tensors, from inside the package or from the disk, every byte checked."""

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
