"""Read FashionMNIST from its four idx files, plain or gzipped, and check each against its known sha256.

torchvision is not used: it requires unpacked files in one particular folder and does not check them. (Xiao, Rasul and
Vollgraf 2017, arXiv:1708.07747; MIT licence.)
"""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections.abc import Mapping
from pathlib import Path

from benchmark.data.dataset import DataError, UInt8Array
from benchmark.data.idx import parse_idx
from benchmark.files import read_regular

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")

MAX_BYTES = 64 * 2**20
"""Largest size of an unpacked file. The largest of the four has 47 MB."""
CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

FILES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}

SHA256: Mapping[str, str] = {
    "train_images": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train_labels": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "test_images": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "test_labels": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
"""Checksums of the unpacked files, so that the gzip header does not matter."""


def find_files(folder: Path) -> dict[str, Path] | None:
    """Return the path of each of the four files in `folder` (plain before .gz), or None if one is missing."""
    found = {}
    for key, filename in FILES.items():
        candidates = [folder / filename, folder / f"{filename}.gz"]
        present = [path for path in candidates if path.is_file()]
        if not present:
            return None
        found[key] = present[0]
    return found


def read_fashion_mnist(folder: Path) -> dict[str, UInt8Array]:
    """Read images (N, 28, 28) and labels (N,), uint8, from `folder`.

    Raises DataError if a file is missing, cannot be read, or does not match `SHA256`.
    """
    files = find_files(folder)
    if files is None:
        raise DataError(f"{folder} does not hold all of {', '.join(FILES.values())} (plain or .gz)")
    arrays = {}
    for key, path in files.items():
        try:
            content = read_regular(path, limit=MAX_BYTES)
            if path.suffix == ".gz":
                with gzip.open(io.BytesIO(content)) as unpacked:
                    content = unpacked.read(MAX_BYTES)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(f"{path} is corrupt: it does not unpack ({error}); fetch it again") from error
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror or error}; check its permissions") from error
        found = hashlib.sha256(content).hexdigest()
        if found != SHA256[key]:
            raise DataError(f"{path} is corrupt: its sha256 is {found}, expected {SHA256[key]}; fetch it again")
        try:
            arrays[key] = parse_idx(content)
        except ValueError as error:
            raise DataError(f"{path}: {error}") from error
    return arrays
