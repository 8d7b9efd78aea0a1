"""A run directory: its name, its paths, its lock and its summary `run.json`."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import re
import secrets
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from agent.errors import RunBusy, RunDamaged, UsageError
from agent.runs import files
from benchmark.files import open_plain, read_plain, write_atomically, write_in_place

_LOCK = ".lock"
_LONGEST_COMMAND = 300
_MAX_HOLDER = 2000


@dataclass(frozen=True)
class RunDirectory:
    """The paths of one run. DESIGN: runs/<YYYYMMDD-HHMMSS>-<slug>-<4 hex>/."""

    path: Path

    @property
    def summary(self) -> Path:
        """`run.json`: status, configuration, versions, results in brief."""
        return self.path / "run.json"

    @property
    def events(self) -> Path:
        """`events.jsonl`: the log."""
        return self.path / "events.jsonl"

    @property
    def workspace(self) -> Path:
        """The git repository in which the region is edited."""
        return self.path / "workspace"

    @property
    def results(self) -> Path:
        """One JSON file per visible evaluation."""
        return self.path / "results"

    @property
    def hidden(self) -> Path:
        """Evaluations of the hidden task; does not exist before submit."""
        return self.path / "hidden"

    @property
    def study(self) -> Path:
        """Optuna's journal."""
        return self.path / "study.journal"

    @classmethod
    def create(cls, runs: Path, slug: str) -> RunDirectory:
        """Make a new run directory under `runs` and point `runs/latest` at it. Raises UsageError where it can't be."""
        slug = re.sub(r"[^a-z0-9]+", "-", slug.lower()).strip("-")[:40] or "run"
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{slug}-{secrets.token_hex(2)}"
        path = runs.absolute() / name
        try:
            path.mkdir(parents=True)
            (path / "results").mkdir()
            _point_latest(runs.absolute(), name)
        except OSError as error:
            raise UsageError(f"--runs {runs}: cannot make a run directory there: {error.strerror}") from None
        return cls(path)

    @classmethod
    def find(cls, run: str | Path, runs: Path = Path("runs")) -> RunDirectory:
        """The run given by path, by name under `runs`, by an unambiguous part of its name, or as `latest`."""
        for candidate in (Path(run), runs / run):
            if os.path.lexists(candidate / "run.json"):
                return cls(candidate.resolve())
        names = [path.name for path in list_runs(runs)]
        matches = [name for name in names if str(run) in name]
        if len(matches) == 1:
            return cls((runs / matches[0]).resolve())
        if matches:
            raise UsageError(f"{run!s} is ambiguous: {', '.join(matches)}")
        raise UsageError(f"no run {str(run)!r} in {runs.absolute()}; `agent runs` lists what is there")

    def read_summary(self) -> dict[str, Any]:
        """`run.json` as a dictionary. Raises RunDamaged when it is missing, not JSON, or a field has a wrong type."""
        return files.check_summary(self.summary, self.read_raw_summary())

    def read_raw_summary(self) -> dict[str, Any]:
        """`run.json` without a check of its fields' types. Raises RunDamaged."""
        try:
            return files.read_object(self.path, self.summary.name)
        except FileNotFoundError as error:
            raise RunDamaged(f"{self.summary}: {error.strerror}") from None

    def has(self, name: str) -> bool:
        """Whether there is an entry of this name, even a broken link."""
        return os.path.lexists(self.path / name)

    def require_plain(self) -> None:
        """Raise RunDamaged when the run contains anything but files and folders. Call this before writing."""
        if found := list(itertools.islice(files.strangers(self.path), 3)):
            raise RunDamaged(f"{self.path}: {'; '.join(found)}: nothing is written there")

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Replace `run.json` in one step. A reader sees the old or the new file, never a part."""
        write_atomically(self.summary, (json.dumps(summary, indent=2, ensure_ascii=False) + "\n").encode())

    @contextmanager
    def held(self) -> Iterator[None]:
        """Lock the run for this process, and remove what a killed process left. The lock ends with the process.

        Raises RunBusy when another process has the lock, OSError when the folder cannot be written, RunDamaged when the
        run contains links, because writing could then change files elsewhere.
        """
        self.require_plain()
        lock = FileLock(self.path / _LOCK)
        try:
            lock.acquire(timeout=0.1)  # `is_held` of a reader takes it for an instant
        except Timeout:
            holder = self.holder
            who = f" ({holder})" if holder else ""
            raise RunBusy(f"{self.path}: another process is working on this run{who}; wait for it or stop it") from None
        try:
            with suppress(OSError):  # on a full disk the lock holds without a name
                write_in_place(self.path, _LOCK, data=f"process {os.getpid()}: {_command()}\n".encode())
            self._sweep()
            yield
        finally:
            lock.release()

    @property
    def holder(self) -> str:
        """The process that locked the run last, and its command, such as `process 7: agent session test`; "" before.

        The text is untrusted where the run is.
        """
        try:
            return read_plain(self.path, _LOCK, limit=_MAX_HOLDER).decode(errors="replace").strip()
        except OSError:
            return ""

    @property
    def is_held(self) -> bool:
        """Whether a process works on this run at this moment; False where that cannot be found out."""
        try:
            descriptor = open_plain(self.path, _LOCK)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(descriptor)
        return False

    def _sweep(self) -> None:
        """Remove half-written files, and the links that Optuna's lock left in runs of earlier versions."""
        for folder in (self.path, self.results, self.hidden):
            for leftover in folder.glob(".*.tmp"):
                leftover.unlink()
        for lock in self.path.glob(f"{self.study.name}.lock*"):
            lock.unlink()


def _command() -> str:
    """The command line of this process, for whoever finds its run locked."""
    name, *words = sys.argv
    return shlex.join([Path(name).name or "python", *words])[:_LONGEST_COMMAND]


def list_runs(runs: Path) -> list[Path]:
    """All run directories under `runs`, oldest first."""
    if not runs.is_dir():
        return []
    return sorted(path for path in runs.iterdir() if not path.is_symlink() and os.path.lexists(path / "run.json"))


def _point_latest(runs: Path, name: str) -> None:
    temporary = runs / f".latest-{secrets.token_hex(4)}"
    temporary.symlink_to(name)
    temporary.replace(runs / "latest")
