"""Stored results by key. A file that does not match its key or its checksum is not used."""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from benchmark.files import read_plain, write_plain
from benchmark.results import EvaluationResult

_MAX_BYTES = 16 * 2**20
"""A result has a few kilobytes: one line of its curve for each epoch."""
ISOLATED = frozenset({"bubblewrap", "landlock"})
"""The isolation levels whose results other runs of the user may take."""


class ResultStore:
    """A folder of results, one JSON file per key, each with a checksum of its content. It is no link, nor are they."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seconds = 0.0
        """How long storing has taken so far."""

    def path(self, key: str) -> Path:
        """Where the result of this key is or would be."""
        return self.folder / f"{key}.json"

    def get(self, key: str) -> EvaluationResult | None:
        """The stored result, or None when there is none or the file does not fit its key or checksum."""
        try:
            envelope = json.loads(read_plain(*self._place(key), limit=_MAX_BYTES))
            payload = envelope["result"]
            if envelope["sha256"] != _checksum(payload):
                return None
            result = EvaluationResult.model_validate(payload)
        except (OSError, ValueError, KeyError, TypeError, RecursionError, ValidationError):
            return None
        return result if result.key == key else None

    def put(self, result: EvaluationResult) -> None:
        """Store a result durably. Raises OSError when the disk refuses."""
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
    """Where an evaluation looks for a result, and where it leaves one: a store of the run's own, over the user's.

    The user's store holds only results whose candidate ran in isolation, because every other run would believe them.
    Hidden results have no user's store.
    """

    own: ResultStore
    user: ResultStore | None = None

    def find(self, key: str, *, weights_sha256: str | None = None) -> EvaluationResult | None:
        """The stored result, from then on in the own store too; None when there is none to be used.

        A result in the user's store is not used if it was made without isolation, or from other initial parameters than
        those with the given hash. Raises OSError when it cannot be copied.
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
        """Store a new result durably wherever it may be. Raises OSError when a disk refuses."""
        self.own.put(result)
        if self.user is not None and result.isolation_level in ISOLATED:
            self.user.put(result)

    @property
    def seconds(self) -> float:
        """How long storing has taken so far."""
        return self.own.seconds + (0.0 if self.user is None else self.user.seconds)


def user_store() -> ResultStore:
    """The store that all runs of this user share, in the user's cache directory."""
    from platformdirs import user_cache_path

    override = os.environ.get("INITSEARCH_CACHE_DIR")
    folder = (Path(override) if override else user_cache_path("initsearch")) / "results"
    return ResultStore(folder.resolve())  # the user's own links are followed


def _checksum(payload: object) -> str:
    return hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()
