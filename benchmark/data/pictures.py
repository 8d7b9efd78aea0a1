"""A folder of pictures, one folder per class, as arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.data.arrays import HELD_OUT, Array, Arrays, require_memory
from benchmark.data.dataset import DataError
from benchmark.hardware import cpu_count

ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
_NAMED_ENDINGS = ", ".join(sorted(ENDINGS))
_MOST_PIXELS = 2**28
_LIKE_TEST = frozenset({"val", "valid", "validation", "eval", "dev", "test"})
"""What others call the folder of pictures that are not trained on; `Test` is another name than `test`."""
_LITTER = frozenset({"Thumbs.db", "desktop.ini"})
"""What Windows leaves in a folder of pictures."""


def from_folder(folder: Path, size: int | None) -> Arrays:
    """Read train/CLASS/* and test/CLASS/*, resized and cropped to `size` pixels. Raises DataError.

    The arrays are RGB if any picture has colour, else grey.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    if not (folder / "train").is_dir():
        there = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        has = f"; it has {', '.join(there[:6])}{' …' if len(there) > 6 else ''}" if there else ""
        raise DataError(f"{folder}: it has no folder train, with one folder of pictures per class in it{has}")
    train = _classes(folder / "train")
    if len(train) < 2:
        found = f"one class only, {next(iter(train))}" if train else "no folder of a class"
        raise DataError(f"{folder / 'train'}: it has {found}; at least two are needed")
    notes: tuple[str, ...] = ()
    if (folder / "test").is_dir():
        test = _classes(folder / "test")
        for name in train:
            if name not in test:
                raise DataError(f"{folder / 'test'}: class {name} has no test pictures")
        for name in test:
            if name not in train:
                raise DataError(f"{folder / 'test'}: class {name} has no training pictures")
    else:
        train, test = _held_out(folder, train)
        count = sum(map(len, test.values()))
        notes = (f"{folder.name} has no test folder: a fixed fifth of each class ({count} pictures) is held out",)
        others = [path.name for path in sorted(folder.iterdir()) if path.is_dir() and path.name.lower() in _LIKE_TEST]
        notes += tuple(f"its folder {name} is not read; call it test to test on its pictures" for name in others)
    notes += tuple(_unread(folder))
    files = [[path for name in train for path in split[name]] for split in (train, test)]
    with _opened(files[0][0]) as opened:
        first = opened.size
    side = size * size if size is not None else first[0] * first[1]
    require_memory(3 * side * sum(map(len, files)), str(folder))
    pictures = [_read(part, size) for part in files]
    colour = any(_has_colour(one) for part in pictures for one in part)
    images = [_stacked(part, paths, colour) for part, paths in zip(pictures, files, strict=True)]
    if images[0].shape[1:] != images[1].shape[1:]:
        raise DataError(f"{folder}: training and test pictures have different sizes; give image_size")
    labels = [
        np.repeat(np.arange(len(train)), [len(split[name]) for name in train]).astype(np.int64)
        for split in (train, test)
    ]
    return Arrays(images[0], labels[0], images[1], labels[1], notes)


def _classes(folder: Path) -> dict[str, list[Path]]:
    """Class name → its pictures, both in the order of their names."""
    found: dict[str, list[Path]] = {}
    for place in sorted(folder.iterdir()):
        if place.is_dir() and not place.name.startswith("."):
            pictures = [path for path in sorted(place.iterdir()) if _is_picture(path)]
            if not pictures:
                raise DataError(f"{place}: it has no pictures ({_NAMED_ENDINGS})")
            found[place.name] = pictures
    return found


def _unread(folder: Path) -> Iterator[str]:
    """A sentence for train and for test where the folders of their classes hold more than pictures."""
    for part in ("train", "test"):
        places = [place for place in sorted((folder / part).glob("*/")) if not place.name.startswith(".")]
        inside = (path for place in places for path in sorted(place.iterdir()))
        left = [path for path in inside if not (_is_picture(path) or path.name.startswith(".") or path.name in _LITTER)]
        if left:
            named = f"{left[0].relative_to(folder)}{'/' if left[0].is_dir() else ''}"
            several = f" and {len(left) - 1} more are" if len(left) > 1 else " is"
            yield f"{named}{several} not read: a class's pictures lie directly in its folder, as {_NAMED_ENDINGS}"


def _is_picture(path: Path) -> bool:
    """Whether it is to be read. A link that leads nowhere is, so that the fault is named."""
    hidden = path.name.startswith(".")  # such as macOS makes beside each file
    return path.suffix.lower() in ENDINGS and not hidden and (path.is_file() or path.is_symlink())


def _held_out(folder: Path, classes: dict[str, list[Path]]) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    train: dict[str, list[Path]] = {}
    test: dict[str, list[Path]] = {}
    for name, paths in classes.items():
        if len(paths) < 2:
            raise DataError(f"{folder / 'train' / name}: it has one picture, so none can be held out for testing")
        order = np.random.default_rng(0).permutation(len(paths))
        chosen = set(order[: max(1, round(len(paths) / HELD_OUT))].tolist())
        train[name] = [path for index, path in enumerate(paths) if index not in chosen]
        test[name] = [path for index, path in enumerate(paths) if index in chosen]
    return train, test


def _opened(path: Path) -> Any:
    """The picture, not yet decoded. Raises DataError."""
    from PIL import Image, UnidentifiedImageError

    try:
        picture = Image.open(path)
    except UnidentifiedImageError:
        raise DataError(f"{path}: it is no picture, or a corrupt one") from None
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if picture.size[0] * picture.size[1] > _MOST_PIXELS:
        raise DataError(f"{path}: it has {picture.size[0]}×{picture.size[1]} pixels, which is too many")
    return picture


def _read(paths: Sequence[Path], size: int | None) -> list[Array]:
    """Each picture as uint8 (H, W) or (H, W, 3). Pillow decodes without Python's lock, so threads help."""
    with ThreadPoolExecutor(cpu_count()) as pool:
        return list(pool.map(lambda path: _decoded(path, size), paths))


def _decoded(path: Path, size: int | None) -> Array:
    from PIL import Image, ImageOps

    with _opened(path) as picture:
        try:
            if size is not None and picture.format == "JPEG":
                picture.draft(None, (2 * size, 2 * size))  # decodes a large photograph at a smaller scale
            picture.load()
            plain = _plain(ImageOps.exif_transpose(picture))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError(f"{path}: {error}" if picture.mode == "F" else f"{path}: it is corrupt: {error}") from None
        if size is not None and plain.size != (size, size):
            plain = ImageOps.fit(plain, (size, size), Image.Resampling.BICUBIC)
        return np.asarray(plain, dtype=np.uint8)


def _plain(picture: Any) -> Any:
    """The picture as L or RGB with 8 bits: 16 bits are scaled down, CMYK is converted, transparency becomes white."""
    from PIL import Image

    if picture.mode.startswith("I") or picture.mode == "F":
        values = np.asarray(picture, dtype=np.float64)
        if picture.mode == "F" and 0 < np.nan_to_num(values).max() <= 1:
            raise ValueError("its floats go from 0 to 1 and would all become black; save it with 8 or 16 bits")
        scale = 257 if picture.mode.startswith("I") else 1
        return Image.fromarray(np.clip(np.round(np.nan_to_num(values) / scale), 0, 255).astype(np.uint8))
    if picture.mode in ("1", "L"):
        return picture.convert("L")
    if picture.mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in picture.info:
        whole = picture.convert("RGBA")
        page = Image.new("RGBA", whole.size, "white")
        return Image.alpha_composite(page, whole).convert("RGB")
    return picture.convert("RGB")


def _has_colour(picture: Array) -> bool:
    return picture.ndim == 3 and not (picture[..., :1] == picture).all()


def _stacked(pictures: Sequence[Array], paths: Sequence[Path], colour: bool) -> Array:
    """uint8 (N, C, H, W). Raises DataError if the pictures have several sizes."""
    first = pictures[0].shape[:2]
    for picture, path in zip(pictures, paths, strict=True):
        if picture.shape[:2] != first:
            sizes = [f"{shape[1]}×{shape[0]}" for shape in (first, picture.shape)]
            raise DataError(
                f"{path}: it has {sizes[1]} pixels, {paths[0].name} has {sizes[0]}; image_size gives all one size"
            )
    channels = 3 if colour else 1
    images = np.empty((len(pictures), channels, *first), dtype=np.uint8)
    for index, picture in enumerate(pictures):
        if picture.ndim == 2:
            images[index] = picture
        else:
            images[index] = np.moveaxis(picture, 2, 0)[:channels]
    return images
