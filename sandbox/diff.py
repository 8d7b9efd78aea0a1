"""The diff of the scaffold in git's form. It is made without git, so every machine gives the same bytes."""

from __future__ import annotations

import difflib
import hashlib

from sandbox.region import SCAFFOLD_NAME


def unified_diff(before: str, after: str) -> str:
    """The diff between two texts of the scaffold, in a form that `git apply` takes; "" when they are equal."""
    if before == after:
        return ""
    old, new = (_blob(text) for text in (before, after))
    names = f"a/{SCAFFOLD_NAME}", f"b/{SCAFFOLD_NAME}"
    body = difflib.unified_diff(before.splitlines(keepends=True), after.splitlines(keepends=True), *names)
    return f"diff --git {names[0]} {names[1]}\nindex {old}..{new} 100644\n{''.join(body)}"


def _blob(text: str) -> str:
    """The SHA-1 by which git names a file with this content. `git am --3way` looks for it."""
    data = text.encode()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
