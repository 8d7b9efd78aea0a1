"""What the values of a data set's training pictures are, in words, for `agent task check`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from benchmark.data.dataset import ImageDataset

_LARGEST = 20.0
"""A normalised value is a few SDs from zero; whatever is further out was not normalised."""
_BLOCK = 1000


def pixel_lines(dataset: ImageDataset) -> list[str]:
    """Mean and SD of each channel, and a warning where float32 pictures do not look normalised."""
    images = dataset.train_images
    if not images.is_floating_point():
        scaled = ([255 * value for value in values] for values in (dataset.mean, dataset.std))
        return [f"pixels 0…255: {_in_words(*scaled)}; training normalises each channel by these"]
    low, high = float(images.min()), float(images.max())
    lines = [f"pixels {low:.3g}…{high:.3g}: {_in_words(*_statistics(images.numpy()))}; training takes them as they are"]
    if max(abs(low), abs(high)) > _LARGEST:
        whole = low >= 0 and high <= 255
        remedy = 'save them with .astype("uint8"), or subtract' if whole else "subtract"
        lines.append(f"warning: these float32 pictures are not normalised: {remedy} the mean and divide by the SD")
    return lines


def _statistics(images: npt.NDArray[np.float32]) -> tuple[list[float], list[float]]:
    """Mean and population SD of each channel; a block at a time, because float64 takes twice the memory."""
    mean = images.mean(axis=(0, 2, 3), dtype=np.float64)
    squares = np.zeros_like(mean)
    for start in range(0, len(images), _BLOCK):
        squares += np.square(images[start : start + _BLOCK] - mean[:, None, None]).sum(axis=(0, 2, 3))
    return mean.tolist(), np.sqrt(squares * len(mean) / images.size).tolist()


def _in_words(means: Sequence[float], sds: Sequence[float]) -> str:
    one = len({f"{mean} {sd}" for mean, sd in zip(means, sds, strict=True)}) == 1
    shown = [" / ".join(f"{value:.3g}" for value in (values[:1] if one else values)) for values in (means, sds)]
    return f"mean {shown[0]}, SD {shown[1]}"
