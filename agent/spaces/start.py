"""The region that a search starts from: a recipe, a region text, a whole scaffold, or the untouched region."""

from __future__ import annotations

from pathlib import Path

from agent.errors import UsageError
from benchmark.recipes import UnknownRecipeError, get_recipe
from sandbox.region import RegionError, region_of, scaffold


def starting_region(start: str | None) -> str:
    """The region that `start` means. Raises UsageError when it is neither a recipe nor a readable file."""
    if start is None:
        return scaffold().region
    if Path(start).is_file():
        return read_region(Path(start), "--start ")
    try:
        return get_recipe(start).region
    except UnknownRecipeError as error:
        raise UsageError(f"--start {start}: no such file, and {error}") from None


def read_region(path: Path, prefix: str = "") -> str:
    """The region in a file: a region text or a whole scaffold. Raises UsageError; its message begins with `prefix`."""
    try:
        return region_of(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{prefix}{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{prefix}{path}: cannot be read: {error}") from None
    except RegionError as error:
        raise UsageError(f"{prefix}{path}: {error}") from None
