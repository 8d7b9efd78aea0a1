"""Which arrays of a user's are pictures and labels: by the documented names, or by others that are in use."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

from benchmark.data.dataset import ARRAY_NAMES, DataError

IMAGES, LABELS = "images", "labels"
"""What an array is called that is not yet divided into training and test."""
_WORDS = {IMAGES: ("images", "image", "x", "data"), LABELS: ("labels", "label", "y", "targets", "target")}


def our_names(names: Iterable[str], what: str) -> dict[str, str]:
    """Our name of an array → its name in the file: the four, or those of training only, or `images` and `labels`.

    Case does not matter. Raises DataError where one of these is missing.
    """
    given = list(names)
    lower = {name.lower(): name for name in reversed(given)} | {name: name for name in given}
    found: dict[str, str] = {}
    for (kind, words), split in product(_WORDS.items(), ("train", "test")):
        spelt = [
            form
            for word in words
            for form in (f"{split}_{word}", f"{word}_{split}", f"{split}{word}", f"{word}{split}")
        ]
        found |= {f"{split}_{kind}": lower[form] for form in reversed(spelt) if form in lower}
    if not found:
        found = {kind: lower[word] for kind, words in _WORDS.items() for word in reversed(words) if word in lower}
    test = any(name.startswith("test") for name in found)
    needed = (IMAGES, LABELS) if {IMAGES, LABELS} & found.keys() else ARRAY_NAMES if test else ARRAY_NAMES[:2]
    if missing := [name for name in needed if name not in found]:
        has = f"; it has {', '.join(given)[:200] or 'nothing'}"
        raise DataError(f"{what} has no {' and no '.join(missing)}; it needs {', '.join(ARRAY_NAMES)}{has}")
    return found
