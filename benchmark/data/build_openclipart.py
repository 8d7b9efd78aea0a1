"""Build OpenClipart-100 from Debian's package openclipart-png, byte for byte the same on every machine.

python -m benchmark.data.build_openclipart                  write the embedded files anew
python -m benchmark.data.build_openclipart --check          only say whether they are what the sources give
"""

from __future__ import annotations

import hashlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmark.data.build import run_builder
from benchmark.data.container import Packed, pack
from benchmark.data.dataset import UInt8Array
from benchmark.data.shrink import read_rgba, shrink

NAME = "openclipart100"
SOURCE = Path("/usr/share/openclipart/png")
PACKAGE = "openclipart-png 1:0.18+dfsg-19"
PROVENANCE = f"OpenClipart-100: clip art at 32×32 (not CIFAR-100), made from Debian's {PACKAGE}; public domain"

EXCLUDED = {
    "unsorted": "no category",
    "signs_and_symbols/flags/historic": "emblems that nobody needs in a benchmark",
}
SMALLEST_CLASS, LARGEST_CLASS = 10, 60
INK_PIXELS, INK_CONTRAST = 20, 32
"""A picture is blank (mostly white on transparent) or a speck if fewer than INK_PIXELS of its 1,024 pixels differ from
its first pixel by INK_CONTRAST in any channel."""
NEAR_RMS = 6
"""Two pictures, or one and the other's mirror image, count as equal if the root mean square difference of their 16×16
averages is at most this, in units of 1/255. Few are, outside `shapes/stars` with its 1,200 variations of a star."""


def read_pictures(source: Path) -> tuple[list[str], UInt8Array]:
    """Return the sorted paths below `source` and their pictures (N, 3, 32, 32).

    Links, blanks, specks, pictures too large to decode, excluded folders, and folders too small for a class are left
    out.
    """
    by_folder: dict[str, list[Path]] = {}
    for path in source.rglob("*.png"):
        folder = path.parent.relative_to(source).as_posix()
        if folder not in EXCLUDED and not path.is_symlink():
            by_folder.setdefault(folder, []).append(path)
    paths = sorted(path for paths in by_folder.values() if len(paths) >= SMALLEST_CLASS for path in paths)
    with ThreadPoolExecutor() as pool:
        pictures = list(pool.map(read_picture, paths))
    kept = {path: picture for path, picture in zip(paths, pictures, strict=True) if picture is not None}
    return [path.relative_to(source).as_posix() for path in kept], np.stack(list(kept.values()))


def read_picture(path: Path) -> UInt8Array | None:
    """Read the PNG at `path` as (3, 32, 32). Return None if it is too large to decode, blank, or a speck."""
    rgba = read_rgba(path)
    if rgba is None:
        return None
    picture = shrink(rgba)
    return picture if ink(picture) >= INK_PIXELS else None


def ink(picture: UInt8Array) -> int:
    """Count the pixels of `picture` (3, 32, 32) that differ clearly from its first pixel."""
    contrast = np.abs(picture.astype(np.int16) - picture[:, :1, :1]).max(axis=0)
    return int((contrast >= INK_CONTRAST).sum())


def distinct(pictures: UInt8Array) -> npt.NDArray[np.bool_]:
    """Mark the pictures (N, 3, 32, 32) to keep: the first of each group of near-duplicates (`NEAR_RMS`).

    Near-duplicates are dropped in all classes. So the test set has no copies of training pictures, and no picture has
    two labels.
    """

    def features(images: UInt8Array) -> npt.NDArray[np.float64]:
        blocks = images.reshape(len(images), 3, 16, 2, 16, 2)
        sums: npt.NDArray[np.float64] = blocks.sum(axis=(3, 5), dtype=np.float64)
        return sums.reshape(len(images), -1)

    # All numbers are integers below 2**53, so the comparison is exact and the same on every machine.
    plain, mirrored = features(pictures), features(pictures[..., ::-1])
    norms = (plain * plain).sum(axis=1)
    limit = (4 * NEAR_RMS) ** 2 * plain.shape[1]
    keep = np.ones(len(pictures), dtype=bool)
    for start in range(0, len(pictures), 256):
        stop = min(start + 256, len(pictures))
        closest = np.maximum(plain[start:stop] @ plain[:stop].T, plain[start:stop] @ mirrored[:stop].T)
        near = norms[start:stop, None] + norms[None, :stop] - 2 * closest <= limit
        for index in range(start, stop):
            keep[index] = not (near[index - start, :index] & keep[:index]).any()
    return keep


def build(source: Path = SOURCE) -> Packed:
    """Build the whole set from the PNG files below `source`. Takes about a minute."""
    names, pictures = read_pictures(source)
    keep = distinct(pictures)
    names, pictures = [name for name, kept in zip(names, keep, strict=True) if kept], pictures[keep]
    folders = [name.rpartition("/")[0] for name in names]
    sizes = Counter(folders)
    classes = sorted(folder for folder, size in sizes.items() if size >= SMALLEST_CLASS)

    # The order of the pictures' checksums replaces a random order, and needs no generator.
    digests = [hashlib.sha256(picture.tobytes()).digest() for picture in pictures]
    train: list[int] = []
    test: list[int] = []
    for folder in classes:
        members = sorted((i for i, name in enumerate(folders) if name == folder), key=lambda i: digests[i])
        members = members[:LARGEST_CLASS]
        tests = (len(members) + 1) // 3
        test += members[:tests]
        train += members[tests:]
    arrays, sources = {}, {}
    for split, chosen in (("train", train), ("test", test)):
        chosen.sort(key=lambda i: hashlib.sha256(digests[i]).digest())
        arrays[f"{split}_images"] = pictures[chosen]
        arrays[f"{split}_labels"] = np.array([classes.index(folders[i]) for i in chosen], dtype=np.uint8)
        sources[split] = [names[i] for i in chosen]
    return pack(
        arrays,
        name=NAME,
        provenance=PROVENANCE,
        licence="public domain: LICENSE-openclipart.txt",
        source_package=PACKAGE,
        class_names=classes,
        sources=sources,
    )


if __name__ == "__main__":
    run_builder(__doc__ or "", build, SOURCE, "openclipart-png")
