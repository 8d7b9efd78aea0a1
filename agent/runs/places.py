"""Where the evaluations of a search run at this moment: a small file of the run, replaced at each change."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Mapping

from agent.runs.directory import RunDirectory
from agent.runs.files import parse_json
from benchmark.files import read_plain, write_plain

FILE = "places.json"
_MAX_BYTES = 2**20


class Places:
    """The places of running evaluations. May be used by several threads. A full disk loses them, and no more."""

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._now: dict[str, str] = {}

    def started(self, evaluation: str, place: str) -> None:
        """This evaluation runs there."""
        with self._lock:
            self._now[evaluation] = place
            self._write()

    def ended(self, evaluation: str) -> None:
        """It does not run any more."""
        with self._lock:
            if self._now.pop(evaluation, None) is not None:
                self._write()

    def close(self) -> None:
        """Nothing runs any more."""
        (self._run.path / FILE).unlink(missing_ok=True)

    def _write(self) -> None:
        with contextlib.suppress(OSError):
            write_plain(self._run.path, FILE, data=json.dumps(self._now).encode())


def read_places(run: RunDirectory) -> Mapping[str, str]:
    """Evaluation → place, for a run that is being worked on; {} where nothing is known."""
    if not run.is_held:
        return {}
    try:
        found = parse_json(read_plain(run.path, FILE, limit=_MAX_BYTES))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {str(name)[:200]: str(place)[:200] for name, place in list(found.items())[:1000]}
