"""A result belongs to code: evaluations are kept by key, and a file that does not match its key is not believed."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

from pydantic import ValidationError

from benchmark.files import write_atomically
from benchmark.results import EvaluationResult


class ResultStore:
    """A folder of results, one JSON file per key, each with a checksum of its content."""

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
            envelope = json.loads(self.path(key).read_text(encoding="utf-8"))
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
        write_atomically(self.path(result.key), (json.dumps(envelope, indent=1) + "\n").encode())
        self.seconds += time.monotonic() - started


def user_store() -> ResultStore:
    """The store that all runs of this user share, in the user's cache directory."""
    from platformdirs import user_cache_path

    override = os.environ.get("INITSEARCH_CACHE_DIR")
    return ResultStore((Path(override) if override else user_cache_path("initsearch")) / "results")


def _checksum(payload: object) -> str:
    return hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()
