"""The page about initialisers says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from benchmark.initializers import INITIALIZERS
from benchmark.recipes import recipe_names

PAGE = (Path(__file__).resolve().parents[2] / "docs/initialisers.md").read_text(encoding="utf-8")


def test_every_type_is_on_the_page() -> None:
    """A reader finds each name that `type` can have."""
    # Functions stand in the modules' docstrings; names such as Uniform and Constant need no explanation of their own.
    missing = [name for name in INITIALIZERS if name not in PAGE and name not in ("Uniform", "Caffe2Xavier")]
    assert not missing


def test_every_recipe_in_the_table_exists() -> None:
    """No row of the measured table names a recipe that is gone, and none is left out."""
    rows = re.findall(r"^\| `(\w+)` \|(?: [^|]+\|){10}$", PAGE, flags=re.MULTILINE)
    assert rows == list(recipe_names())
