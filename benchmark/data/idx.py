"""Read the idx format of MNIST and its relatives: a magic number, the sizes, then plain bytes (big-endian).

Format: http://yann.lecun.com/exdb/mnist (two zero bytes, type code 0x08 for uint8, number of dimensions).
"""

from __future__ import annotations

import numpy as np

from benchmark.data.dataset import UInt8Array


def parse_idx(content: bytes) -> UInt8Array:
    """Return the uint8 array in `content`, of any dimension. Raises ValueError for an invalid or cut idx file."""
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise ValueError("not an idx file of bytes: it must begin with 00 00 08")
    dimensions = content[3]
    start = 4 + 4 * dimensions
    if len(content) < start:
        raise ValueError("the idx header is cut short")
    shape = tuple(int.from_bytes(content[4 + 4 * i : 8 + 4 * i], "big") for i in range(dimensions))
    expected = start + int(np.prod(shape, dtype=np.int64))
    if len(content) != expected:
        raise ValueError(f"the idx header announces {expected} bytes, the file has {len(content)}")
    # torch requires writable memory, hence the bytearray.
    return np.frombuffer(bytearray(content), dtype=np.uint8, offset=start).reshape(shape)
