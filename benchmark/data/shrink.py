"""Turn a picture of any size into 32×32 RGB with integer arithmetic, so that every machine gets the same bytes.

Image libraries change their resampling between versions. So the library only decodes the PNG, which is lossless. This
module composites, pads and averages with sums of integers below 2**53. float64 represents these exactly, in any order
of summation and with any BLAS.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmark.data.dataset import UInt8Array

SIDE = 32
MAX_PIXELS = 16_000_000
"""Larger pictures are left out: a few posters, each of which needs gigabytes of memory to decode."""


def read_rgba(path: Path) -> UInt8Array | None:
    """Read the PNG at `path` as uint8 (height, width, 4), or return None if it has more than `MAX_PIXELS` pixels.

    Raises OSError (such as Pillow's UnidentifiedImageError) if the file is no picture.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            picture = Image.open(path)
        except Image.DecompressionBombError:
            return None
        with picture:
            if picture.width * picture.height > MAX_PIXELS:
                return None
            return np.asarray(picture.convert("RGBA"), dtype=np.uint8)


def area_weights(size: int, offset: int, square: int) -> npt.NDArray[np.float64]:
    """Return the integer overlaps, float64 (SIDE, size), of the output cells with `size` pixels from `offset` on.

    The padded axis has `square` pixels. In units of 1/SIDE pixel, output cell i covers [i·square, (i+1)·square) and
    input pixel j covers [SIDE·(offset+j), SIDE·(offset+j+1)). Over the whole padded axis a row sums to `square`.
    """
    cell = np.arange(SIDE, dtype=np.int64)[:, None] * square
    pixel = (np.arange(size, dtype=np.int64)[None, :] + offset) * SIDE
    overlap: npt.NDArray[np.int64] = np.minimum(cell + square, pixel + SIDE) - np.maximum(cell, pixel)
    return overlap.clip(min=0).astype(np.float64)


def shrink(rgba: UInt8Array) -> UInt8Array:
    """Put uint8 (height, width, 4) on white, pad it to a square, average it to uint8 (3, 32, 32).

    Each output value is the exact area average, rounded half up.
    """
    height, width, _ = rgba.shape
    square = max(height, width)
    rows = area_weights(height, (square - height) // 2, square)
    columns = area_weights(width, (square - width) // 2, square)
    alpha = rgba[:, :, 3].astype(np.uint16)
    unit = 255 * square * square
    out = np.empty((3, SIDE, SIDE), dtype=np.uint8)
    for channel in range(3):
        # Darkness times alpha is zero for padding and transparent pixels, which are white and need no storage.
        # It is at most 255² = 65,025, which fits uint16.
        darkness = (255 - rgba[:, :, channel]) * alpha
        total = (rows @ darkness.astype(np.float64) @ columns.T).astype(np.int64)
        white_minus = 255 * unit - total
        out[channel] = (2 * white_minus + unit) // (2 * unit)
    return out
