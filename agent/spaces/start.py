"""The region that a search starts from: a recipe, a region text, a whole scaffold, or the untouched region."""

from __future__ import annotations

from pathlib import Path

from agent.errors import Rejected, UsageError, unread
from benchmark.recipes import UnknownRecipeError, get_recipe
from sandbox.lines import unify_newlines
from sandbox.region import RegionError, region_of, scaffold
from sandbox.rules import check_region


def starting_region(start: str | None) -> str:
    """The region that `start` means. Raises UsageError when it is neither a recipe nor a readable file, Rejected."""
    if start is None:
        return scaffold().region
    if Path(start).is_file():
        return read_region(Path(start), "--start ")
    try:
        return get_recipe(start).region
    except UnknownRecipeError as error:
        raise UsageError(f"--start {start}: no such file, and {error}") from None


def read_region(path: Path, prefix: str = "") -> str:
    """The region in a file: a region text, a whole scaffold or an exported module.

    Raises UsageError, and Rejected for a region against the rules; the message begins with `prefix`.
    """
    try:
        text = path.read_text(encoding="utf-8")
        return accepted(region_of(text), text, f"{prefix}{path}", path)
    except FileNotFoundError:
        raise UsageError(f"{prefix}{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{prefix}{path}: {unread(error)}") from None
    except RegionError as error:
        raise UsageError(f"{prefix}{path}: {error}") from None


def accepted(region: str, text: str, what: str, path: Path) -> str:
    """`region`, which the file `path` with this `text` means. Raises Rejected when it breaks a rule; runs nothing."""
    before = unify_newlines(text).partition(region)[0] if region else ""
    if (rejection := check_region(region, first_line=before.count("\n") + 1)) is not None:
        raise Rejected(
            f"{what}: refused ({rejection.kind}): {rejection.message}; nothing was started. Correct it, and "
            f"`agent check {path}` looks again"
        )
    return region
