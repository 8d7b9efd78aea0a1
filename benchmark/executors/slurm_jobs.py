"""Slurm's programs: options of jobs, submission by submitit, states of jobs, and what `agent doctor` says."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmark.executors.seam import EngineError
from benchmark.executors.slurm_worker import main

OPTIONS = frozenset(
    {"account", "comment", "constraint", "cpus_per_task", "exclude", "exclusive", "gpus_per_node", "gres", "mem"}
    | {"lanes", "nodelist", "partition", "qos", "time"}
)
"""Options of --slurm, as submitit spells them; `lanes` is ours: evaluations that share a job and its GPUs."""

_EXPORTED = "PATH,HOME,USER,LANG,TMPDIR,XDG_CACHE_HOME,LD_LIBRARY_PATH,INITSEARCH_CACHE_DIR,SUBMITIT_EXECUTOR"
"""Slurm gives jobs the whole environment unless told which variables: these hold no keys."""
_COMMA = re.compile(r",(?![^\[]*\])")
"""A comma that is not between brackets."""
_VALUE = re.compile(r"[\w.:/@+\[\],-]{1,200}", re.ASCII)
_NEVER = re.compile(r"invalid|not available|not permitted|not valid|no such|unknown|unrecognized", re.IGNORECASE)


def parse_options(text: str | None) -> dict[str, str | int]:
    """`partition=gpu,gpus_per_node=1,time=120` as options. Raises EngineError for anything else.

    The nodes of `exclude` may be a list as Slurm writes it, such as `exclude=a1,a[3-5,9]`.
    """
    found: dict[str, str | int] = {}
    last = ""
    for part in filter(None, (piece.strip() for piece in _COMMA.split(text or ""))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals and last in ("exclude", "nodelist") and name not in OPTIONS:
            if last == "nodelist":
                raise EngineError(
                    f"--slurm nodelist={found[last]},{part}: a job here has one node; name one, or name those that "
                    "must not be used: exclude=…"
                )
            value = f"{found.pop(last)},{name}"
            name = last
        if name not in OPTIONS or not _VALUE.fullmatch(value):
            raise EngineError(f"--slurm {part}: expected NAME=VALUE with one of {', '.join(sorted(OPTIONS))}")
        if name in found:
            raise EngineError(f"--slurm {part}: {name}={found[name]} stands there, too: give one")
        found[name], last = int(value) if value.isdigit() else value, name
    for name in ("cpus_per_task", "gpus_per_node", "lanes", "time"):
        if found.get(name) == 0:
            raise EngineError(f"--slurm {name}=0: must be at least 1")
    for name in ("cpus_per_task", "lanes"):
        if not isinstance(found.get(name, 1), int):
            raise EngineError(f"--slurm {name}={found[name]}: must be a number")
    return found


def require_programs() -> None:
    """Raise EngineError when submitit or a program of Slurm is missing."""
    if importlib.util.find_spec("submitit") is None:
        raise EngineError("--executor slurm needs submitit: pip install 'initsearch[slurm]'")
    for program in ("sbatch", "squeue", "scancel"):
        if shutil.which(program) is None:
            raise EngineError(f"--executor slurm: the program {program} is not here; run this where Slurm is")


class Known(NamedTuple):
    """What Slurm knows of a job; nothing of one that it has forgotten."""

    state: str = ""
    nodes: str = ""
    name: str = ""


def jobs(ids: Sequence[str]) -> dict[str, Known]:
    """What Slurm knows now of each job, by its id."""
    command = ["squeue", "--noheader", "--states=all", "--format=%i|%T|%N|%j", "--jobs", ",".join(ids)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode and "Invalid job id" not in done.stderr:
        raise OSError(done.stderr.strip() or f"squeue ended with {done.returncode}")
    rows = (line.split("|") for line in done.stdout.splitlines())
    return {row[0]: Known(*row[1:]) for row in rows if len(row) == 4}


class QueueFull(Exception):
    """Slurm takes no job now."""


class Submitter:
    """Submits jobs that carry out the calls of some folders. `folder` is for submitit's own files.

    A job has `lanes` calls at most, of `threads` CPUs each. Raises EngineError for options that submitit refuses.
    """

    def __init__(self, folder: Path, options: Mapping[str, str | int], modules: tuple[str, ...]) -> None:
        import submitit

        self._folder = folder
        self.job_name = f"initsearch-{hashlib.sha256(str(folder).encode()).hexdigest()[:16]}"
        """Each folder's jobs have a name of their own."""
        self._modules = modules
        self._options = {name: value for name, value in options.items() if name != "lanes"}
        self.lanes = int(options.get("lanes", 1))
        self._cpus = int(options.get("cpus_per_task", self.lanes))
        self.threads = max(1, self._cpus // self.lanes)
        self._engine = submitit.SlurmExecutor(folder=folder)
        self._set_options("")

    def submit(self, folders: Sequence[Path], avoid: str) -> str:
        """The number of the new job, which does not run on the nodes `avoid`. Raises EngineError, QueueFull."""
        self._set_options(avoid)
        try:
            sent = self._engine.submit(main, [str(folder) for folder in folders], self.threads, self._modules)
        except Exception as error:  # noqa: BLE001 - submitit has several types, and none of them public
            words = " ".join(str(error).split())[-400:]
            if _NEVER.search(words):
                raise EngineError(f"Slurm refuses the job: {words}") from None
            raise QueueFull(words) from None
        return str(sent.job_id)

    def state_of(self, job: str) -> str:
        """The state of the job; empty where it is none of this folder, as the files of a copied run name them."""
        known = jobs([job]).get(job, Known())
        return known.state if known.name == self.job_name else ""

    def log_of(self, job: str) -> str:
        """The last line that the job wrote, for a message."""
        for path in sorted(self._folder.glob(f"{job}_*_log.err")):
            with contextlib.suppress(OSError):
                lines = path.read_text(errors="replace").strip().splitlines()
                if lines:
                    return f" ({lines[-1][:300]})"
        return ""

    def _set_options(self, avoid: str) -> None:
        options = {"job_name": self.job_name, "time": None, **self._options, "cpus_per_task": self._cpus}
        if avoid:
            options["exclude"] = ",".join(filter(None, (str(options.get("exclude", "")), avoid)))
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
        exported = f"{_EXPORTED},PYTHONPATH={path}" if "," not in path else _EXPORTED
        nodelist = options.pop("nodelist", None)
        more = {"export": exported, "requeue": True, **({"nodelist": nodelist} if nodelist else {})}
        self._engine.update_parameters(**options, additional_parameters=more, stderr_to_stdout=False)


def cancel(job: str) -> None:
    """Cancel a job, if Slurm answers."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        subprocess.run(["scancel", job], capture_output=True, timeout=30, check=False)


def reachable() -> dict[str, Any]:
    """What `agent doctor` says of Slurm here: its version, partitions and nodes, and submitit's version."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        found: dict[str, Any] = {"submitit": version("submitit")}
    except PackageNotFoundError:
        found = {"submitit": None}
    if shutil.which("sinfo") is None:
        return {**found, "slurm": None, "partitions": []}
    listed = _run("sinfo", "--noheader", "--format=%P|%a|%D|%c|%G|%l")
    rows = [line.split("|") for line in listed.stdout.splitlines()]
    names = ("partition", "state", "nodes", "cpus", "gres", "time")
    return {
        **found,
        "slurm": _run("sinfo", "--version").stdout.strip() or None,
        "error": " ".join(listed.stderr.split()) or None,
        "partitions": [dict(zip(names, row, strict=True)) for row in rows if len(row) == len(names)],
        "python": sys.executable,
    }


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
