"""Store results by key (`results.result_key`). A file that does not match its key or its checksum is not used."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from benchmark.files import read_plain, write_plain
from benchmark.results import EvaluationResult

_MAX_BYTES = 16 * 2**20
"""Largest file to read. A result has a few kilobytes: one point of its curve for each epoch."""
_KEEP_SECONDS = 30 * 86400.0
"""How long the checkpoints of a run that was given up stay."""
ISOLATED = frozenset({"bubblewrap", "landlock"})
"""Isolation levels whose results other runs of the user may use."""


class ResultStore:
    """A folder with one JSON file per result, each with a checksum. Neither the folder nor a file may be a link."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seconds = 0.0
        """Seconds that storing has taken so far."""

    def path(self, key: str) -> Path:
        """Return the path of the result with this key, which need not exist."""
        return self.folder / f"{key}.json"

    def refusal(self) -> OSError | None:
        """Why nothing can be stored here, or None. Makes the folder."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not os.access(self.folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self.folder))
        except OSError as error:
            return error
        return None

    def get(self, key: str) -> EvaluationResult | None:
        """Return the stored result, or None if there is none or the file does not match its key or checksum."""
        try:
            envelope = json.loads(read_plain(*self._place(key), limit=_MAX_BYTES))
            payload = envelope["result"]
            if envelope["sha256"] != _checksum(payload):
                return None
            result = EvaluationResult.model_validate(payload)
        except (OSError, ValueError, KeyError, TypeError, RecursionError, ValidationError):
            return None
        return result if result.key == key else None

    def containing(self, text: str) -> Iterator[EvaluationResult]:
        """Yield the valid results whose file contains `text` (ASCII), in the order of their keys."""
        try:
            names = sorted(path.name for path in self.folder.iterdir() if path.suffix == ".json")
        except OSError:
            return
        for name in names:
            try:
                found = text.encode() in read_plain(self.folder.parent, self.folder.name, name, limit=_MAX_BYTES)
            except OSError:
                continue
            if found and (result := self.get(name.removesuffix(".json"))) is not None:
                yield result

    def put(self, result: EvaluationResult) -> None:
        """Store a result durably. Raises OSError if the disk refuses."""
        started = time.monotonic()
        self.folder.mkdir(parents=True, exist_ok=True)
        payload = result.model_dump(mode="json")
        envelope = {"sha256": _checksum(payload), "result": payload}
        write_plain(*self._place(result.key), data=(json.dumps(envelope, indent=1) + "\n").encode())
        self.seconds += time.monotonic() - started

    def _place(self, key: str) -> tuple[Path, str, str]:
        return self.folder.parent, self.folder.name, f"{key}.json"


@dataclass(frozen=True)
class LayeredStore:
    """The run's own store in front of the user's store. Evaluations read and write both.

    The user's store has only results of isolated candidates, because all other runs of the user trust them.
    Hidden results have no user's store.
    """

    own: ResultStore
    user: ResultStore | None = None

    def find(self, key: str, *, weights_sha256: str | None = None) -> EvaluationResult | None:
        """Return the stored result, or None. A result from the user's store is copied to the run's own store.

        A result in the user's store is not used if its candidate ran without isolation, or if its initial parameters
        have another hash than the given one. Raises OSError if it cannot be copied.
        """
        if (result := self.own.get(key)) is not None:
            return result
        result = None if self.user is None else self.user.get(key)
        if result is None or result.isolation_level not in ISOLATED:
            return None
        if weights_sha256 is not None and result.weights_sha256 not in (None, weights_sha256):
            return None
        self.own.put(result)
        return result

    def put(self, result: EvaluationResult) -> None:
        """Store a new result durably in each store that may have it. Raises OSError if the disk of `own` refuses.

        The user's store only saves time, so a search does not end because a home folder is full or cannot be written.
        """
        self.own.put(result)
        if self.user is not None and result.isolation_level in ISOLATED:
            with contextlib.suppress(OSError):
                self.user.put(result)

    @property
    def seconds(self) -> float:
        """Seconds that storing has taken so far."""
        return self.own.seconds + (0.0 if self.user is None else self.user.seconds)


def user_store() -> ResultStore:
    """Return the store that all runs of this user share, in the user's cache directory."""
    from platformdirs import user_cache_path

    override = os.environ.get("INITSEARCH_CACHE_DIR")
    folder = (Path(override) if override else user_cache_path("initsearch")) / "results"
    return ResultStore(folder.resolve())  # follows the user's own links


def checkpoint_folder(run: Path) -> Path:
    """Return the folder in the user's cache for the checkpoints of the run directory `run`. It need not exist.

    Runs share none: a checkpoint of a hidden task belongs to its run. Folders that nobody used for a month are removed.
    """
    everything = user_store().folder.parent / "checkpoints"
    if everything.is_dir():
        for folder in everything.iterdir():
            if time.time() - folder.stat().st_mtime > _KEEP_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
    return everything / hashlib.sha256(str(run.resolve()).encode()).hexdigest()[:16]


def _checksum(payload: object) -> str:
    return hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()
