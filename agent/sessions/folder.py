"""The folder of a session: the file that is edited, texts for whoever edits it, and a pointer to the run."""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import AgentError, Rejected, UsageError
from agent.runs.directory import RunDirectory
from benchmark.files import NotPlain, read_plain, staged, write_atomically
from benchmark.tasks import is_task_file
from sandbox.lines import unify_newlines
from sandbox.region import RegionError, scaffold

if TYPE_CHECKING:
    from agent.config import SearchConfig
    from agent.protocol import Accuracies
    from agent.runs.recorded_noise import Noise
    from benchmark.tasks import Profile

FILE = "custom_init.py"
ORIGINAL = f"{FILE}.orig"
"""What `undo` and `restore` found in place of the file."""
POINTER = ".initsearch-session.json"
TASK = "TASK.md"
AGENTS = "AGENTS.md"
POINTING_TO_AGENTS = ("CLAUDE.md", "GEMINI.md")
VARIABLE = "INITSEARCH_SESSION"
"""Names the session's folder to every process that a command as proposer starts."""
MAX_BYTES = 2**20
"""Largest size of the file. A region has at most 16 kB."""
_USUAL_BYTES = 2**15  # the scaffold and a region of 16 kB


class OutsideChanged(Rejected):
    """The file is not the scaffold with another region. The message says the line and how to get the file back."""


class FileNotWritten(AgentError):
    """The file cannot be written: a full disk, or a folder without the right to write."""

    def __init__(self, file: Path, error: OSError) -> None:
        super().__init__(
            f"{file}: cannot be written ({error.strerror}), and is as it was; once it can be, `agent session restore` "
            "writes what is recorded"
        )


@dataclass(frozen=True)
class SessionFolder:
    """A folder in which a session was started."""

    path: Path

    @classmethod
    def create(cls, path: Path, run: RunDirectory, region: str) -> SessionFolder:
        """Write the pointer and the file with `region`.

        Raises UsageError where a file of a session is in the way.
        """
        require_free(path)
        folder = cls(path.absolute())
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
            require_free(folder.path)  # of a path such as new/../work, which is another folder once `new` is there
            write_atomically(folder.file, scaffold().with_region(region).text.encode())
            folder._put(POINTER, json.dumps({"schema": 1, "run": str(run.path)}, indent=2) + "\n")
        except OSError as error:
            raise UsageError(f"{path}: the session's files cannot be written there: {error.strerror}") from None
        return folder

    @classmethod
    def find(cls, given: Path | None = None) -> SessionFolder:
        """The session in `given`, else in the working directory, else the one that INITSEARCH_SESSION names.

        Raises UsageError without one, Rejected when INITSEARCH_SESSION names another one.
        """
        within = os.environ.get(VARIABLE)
        try:
            here = Path.cwd()
        except FileNotFoundError:
            raise UsageError("this folder was deleted; --session DIR names the folder of a session") from None
        if given is None and within and not (here / POINTER).is_file():
            here = Path(within)
        folder = cls((given or here).resolve())
        if within and folder.path != Path(within).resolve():
            raise Rejected(f"{folder.path}: this process belongs to the session in {within} and may use no other one")
        if not (folder.path / POINTER).is_file():
            raise UsageError(
                f"{folder.path}: no session was started here; agent session start DIR starts one, and --session DIR "
                "names its folder"
            )
        return folder

    @property
    def run(self) -> RunDirectory:
        """The session's run. Raises UsageError where it is gone."""
        pointer = self.path / POINTER
        try:
            run = json.loads(read_plain(self.path, POINTER, limit=MAX_BYTES))["run"]
        except OSError as error:
            raise UsageError(f"{pointer}: cannot be read: {error.strerror or error}") from None
        except (ValueError, KeyError, TypeError):
            run = None
        if not isinstance(run, str) or "\0" in run:
            raise UsageError(
                f'{pointer}: names no run. It must read {{"schema": 1, "run": FOLDER}}, with the run\'s absolute path'
            )
        found = RunDirectory(Path(run))
        if not found.has("run.json"):
            raise UsageError(
                f"{pointer}: the run of this session, {found.path}, is not there any more; if it was moved, write its "
                "new path there"
            )
        return found

    @property
    def file(self) -> Path:
        """The file that is edited."""
        return self.path / FILE

    def region(self) -> str:
        """The region in the file as it is. Raises OutsideChanged."""
        back = "nothing was spent. `agent session restore` gives the file back and keeps this one as " + ORIGINAL
        try:
            text = unify_newlines(read_plain(self.path, FILE, limit=MAX_BYTES).decode("utf-8-sig"))
        except FileNotFoundError:
            raise OutsideChanged(f"{self.file} is not there; {back}") from None
        except NotPlain as error:
            raise OutsideChanged(f"{error}; {back}") from None
        except UnicodeDecodeError as error:
            raise OutsideChanged(f"{self.file}: not UTF-8 text ({error}); {back}") from None
        except OSError as error:
            raise UsageError(f"{self.file}: cannot be read: {error.strerror}") from None
        try:
            return scaffold().region_in_edited(text)
        except RegionError as error:
            raise OutsideChanged(f"{self.file}: {error}; {back}") from None

    def write(self, region: str) -> None:
        """Put the scaffold with this region into the file, and keep what is there otherwise as `ORIGINAL`.

        Raises FileNotWritten, and then the file is as it was.
        """
        data = scaffold().with_region(region).text.encode()
        try:
            found: bytes | None = self.file.read_bytes() if self.file.is_file() else None
        except OSError:
            found = None
        if found == data:
            return
        try:
            with staged(self.file, data) as new:  # on a full disk this fails, and the file is still in its place
                if os.path.lexists(self.file):
                    self.file.replace(self.path / ORIGINAL)
                new.replace(self.file)
        except OSError as error:
            raise FileNotWritten(self.file, error) from None

    def require_writable(self) -> None:
        """Raise FileNotWritten where `write` would, before a call is carried out whose result belongs into the file."""
        try:
            with staged(self.file, bytes(_USUAL_BYTES)):
                pass
        except OSError as error:
            raise FileNotWritten(self.file, error) from None

    def write_texts(
        self, config: SearchConfig, profile: Profile, baseline: Accuracies, noise: Noise | None = None
    ) -> None:
        """Write TASK.md, with the baseline and its `noise` where they are known, AGENTS.md and what points to it."""
        from agent.llm.prompting import scores_word, task_prompt
        from agent.profiles import scaffold_of
        from agent.protocol import Situation
        from prompts import environment

        again = f"--profile {shlex.quote(config.profile)}" if is_task_file(config.profile) else None
        task = task_prompt(
            profile,
            Situation.at_start(FILE, scaffold_of(profile), config.budget, baseline, noise),
            budget=config.budget,
            seeds=config.evaluation_seeds,
            screening=config.screen > 0,
            confirm=config.confirm,
            means="folder",
            again=again,
        )
        self._put(TASK, task)
        agents = environment().get_template("session_agents.md.j2")
        facts = {"budget": config.budget, "screening": config.screen > 0, "file": FILE, "task": TASK, "again": again}
        self._put(AGENTS, agents.render(facts, scores=scores_word(profile), program=_program()))
        for name in POINTING_TO_AGENTS:
            self._put(name, f"Read @{AGENTS}: it says what to do in this folder.\n")

    def _put(self, name: str, text: str) -> None:
        write_atomically(self.path / name, text.encode())


def _program() -> str:
    """This program by its full path: the shells of some coding agents read a profile that sets PATH anew."""
    beside = Path(sys.executable).with_name("agent")
    return shlex.quote(str(beside)) if beside.is_file() else f"{shlex.quote(sys.executable)} -P -m agent"


def require_no_session() -> None:
    """Raise Rejected in a process of a session: what another session trains is outside the record of this one."""
    if within := os.environ.get(VARIABLE):
        raise Rejected(f"this process belongs to the session in {within} and may start no other one")


def require_free(path: Path) -> None:
    """Raise UsageError unless a session can be started in `path`: it can be written, and no file of a session is there.

    Makes nothing, and so may be asked before there is a run.
    """
    try:
        if os.path.lexists(path) and not path.is_dir():
            raise UsageError(f"{path} is not a folder")
        above = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
        may_write = above.is_dir() and os.access(above, os.W_OK | os.X_OK)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    if not may_write:
        raise UsageError(f"{path}: a session's files cannot be written there, because {above} gives no right to write")
    written = (POINTER, FILE, TASK, AGENTS, *POINTING_TO_AGENTS)
    if taken := [name for name in written if os.path.lexists(path / name)]:
        raise UsageError(
            f"{path} has {', '.join(taken)} already, and a session would overwrite it; name another folder"
        )
