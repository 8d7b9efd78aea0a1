"""Reads bytes, text and JSON from a run directory that may come from somebody else. Raises one typed error.

`benchmark.files` opens the files: it follows no link, opens only regular files, and limits their size.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from agent.errors import RunDamaged
from benchmark.files import open_folder, read_plain
from benchmark.validation_words import in_plain_words

MAX_BYTES = 16 * 2**20
"""Largest size of a file of a run, except its log. The largest one, report.html, has about one megabyte."""
_MAX_DEPTH = 100
_MAX_ENTRIES = 1_000_000
_LEFT_BY_OPTUNA = "study.journal.lock"
"""How the names of Optuna's locks begin. Earlier versions used them; a killed process left them as broken links."""

Number = float | None


class _Loose(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class _Gain(_Loose):
    gain: Number = None
    baseline: Number = None
    submitted: Number = None


class _Test(_Loose):
    number: int
    accuracies: dict[str, dict[str, Number]]


class _Overhead(_Loose):
    isolation: float
    bookkeeping: float
    share: float


class _Summary(_Loose):
    """The fields of run.json that commands use. A run that has not ended lacks most of them."""

    status: str | None = None
    message: str | None = None
    profile: str | None = None
    reason: str | None = None
    isolation_level: str | None = None
    config: dict[str, Any] = {}
    tasks: dict[str, list[dict[str, Any]]] = {}
    tests: list[_Test] = []
    tests_used: int | None = None
    budget: int | None = None
    submitted_test: int | None = None
    visible: dict[str, _Gain] = {}
    hidden: dict[str, _Gain] = {}
    seconds: dict[str, float] = {}
    overhead: _Overhead | None = None
    words: list[str] = []
    created: float | None = None


def read_text(root: Path, *names: str) -> str:
    """Read a text file of a run. Invalid UTF-8 becomes U+FFFD. Raises RunDamaged, FileNotFoundError."""
    return read_bytes(root, *names).decode(errors="replace")


def read_bytes(root: Path, *names: str) -> bytes:
    """Read a file of a run. Raises RunDamaged when it is not a regular file, FileNotFoundError."""
    try:
        return read_plain(root, *names, limit=MAX_BYTES)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RunDamaged(_where(error, root.joinpath(*names))) from None


def read_object(root: Path, *names: str) -> dict[str, Any]:
    """Read a JSON object from a file of a run. Raises RunDamaged for anything else, FileNotFoundError."""
    data = read_bytes(root, *names)
    try:
        value = parse_json(data)
        if not isinstance(value, dict):
            raise ValueError("not a JSON object")
    except json.JSONDecodeError as error:
        what = f"not JSON: {error}" if data.strip() else "the file is empty"
        raise RunDamaged(f"{root.joinpath(*names)}: {what}") from None
    except ValueError as error:
        raise RunDamaged(f"{root.joinpath(*names)}: {error!s:.300}") from None
    return value


def parse_json(data: bytes | str) -> Any:
    """Parse JSON. Raises ValueError, also when it is nested more than `_MAX_DEPTH` deep."""
    try:
        value = json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    level, depth = [value], 0
    while level := [inner for many in level for inner in _inner(many)]:
        if (depth := depth + 1) > _MAX_DEPTH:
            raise ValueError("nested too deeply")
    return value


def check_summary(path: Path, summary: dict[str, Any]) -> dict[str, Any]:
    """Return `summary` if its fields have the expected types. Raises RunDamaged that names the first wrong field."""
    try:
        _Summary.model_validate(summary)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise RunDamaged(f"{path}: {'.'.join(map(str, first['loc']))[:200]}: {in_plain_words(first['msg'])}") from None
    return summary


def strangers(root: Path) -> Iterator[str]:
    """Find links, hard links, pipes, sockets and devices, which no run contains. Yields one sentence for each."""
    pending: list[tuple[str, ...]] = [()]
    count = 0
    while pending:
        names = pending.pop()
        folder = open_folder(root, *names)
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    place = "/".join((*names, entry.name))
                    found = entry.stat(follow_symlinks=False)
                    if (count := count + 1) > _MAX_ENTRIES:
                        yield f"there are more than {_MAX_ENTRIES:,} files"
                        return
                    if stat.S_ISDIR(found.st_mode):
                        pending.append((*names, entry.name))
                    elif place.startswith(_LEFT_BY_OPTUNA) and stat.S_ISLNK(found.st_mode):
                        continue
                    elif not stat.S_ISREG(found.st_mode):
                        yield f"{place} is a link, pipe, socket or device"
                    elif found.st_nlink != 1:
                        yield f"{place} has a second name (a hard link), by which it may be somebody else's file"
        finally:
            os.close(folder)


def _inner(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _where(error: OSError, path: Path) -> str:
    return f"{error.filename or path}: {error.strerror or error}"
