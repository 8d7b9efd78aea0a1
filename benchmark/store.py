"""A result belongs to code: evaluations are kept by key, and a file that does not match its key is not believed."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

from pydantic import ValidationError

from benchmark.files import read_plain, write_plain
from benchmark.results import EvaluationResult

_MAX_BYTES = 16 * 2**20
"""A result has a few kilobytes: one line of its curve for each epoch."""


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


def user_store() -> ResultStore:
    """The store that all runs of this user share, in the user's cache directory."""
    from platformdirs import user_cache_path

    override = os.environ.get("INITSEARCH_CACHE_DIR")
    folder = (Path(override) if override else user_cache_path("initsearch")) / "results"
    return ResultStore(folder.resolve())  # the user's own links are followed


def _checksum(payload: object) -> str:
    return hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()
