"""One file under git, without the machine's hooks, fsmonitor, and system or user configuration.

git only writes, and only in repositories that we made; `sandbox.objects` reads. Commits use git's plumbing commands, so
that a commit and the write of its file either both happen or change nothing.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.files import staged
from sandbox.objects import BRANCH, Commit, Objects, Unreadable, WorkspaceError

if TYPE_CHECKING:
    import git

_STALE_SECONDS = 60
_NAME, _EMAIL = "initsearch", "initsearch@localhost"


class GitMissing(WorkspaceError):
    """This machine has no usable git."""


class NotAWorkspace(WorkspaceError):
    """The folder has no repository with a scaffold, or already contains other files."""


class WorkspaceTampered(WorkspaceError):
    """The file on disk differs from the history, or its fixed part has changed."""


class WorkspaceWriteFailed(WorkspaceError):
    """The disk or git refused to write. The workspace is unchanged."""


class Repository:
    """A git repository in `path` that contains one file, `name`."""

    def __init__(self, path: Path, name: str) -> None:
        """Raises GitMissing without git. Reads and writes nothing yet."""
        self.path = path
        self.file = path / name
        self._name = name
        self.seconds = 0.0
        """Seconds that git and the disk have taken so far."""
        self._git = _git(path)
        self._objects = Objects(path)

    def close(self) -> None:
        """End git's helper processes. May be called twice."""
        self._git.clear_cache()

    def initialise(self) -> None:
        """Make an empty repository."""
        with self._write_errors():
            self.file.parent.mkdir(parents=True, exist_ok=True)
            # No template: the machine's template folder may contain hooks.
            self._git.init("--quiet", "--template=", "--initial-branch=main")

    def commit(self, text: str, *, parent: str | None, subject: str, trailers: dict[str, str]) -> str:
        """Commit `text`, replace the file by it and return the commit. Raises WorkspaceWriteFailed."""
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S+00:00")
        message = "\n".join([subject, "", *(f"{key}: {value}" for key, value in trailers.items())])
        parents = () if parent is None else ("-p", parent)
        with (
            self._write_errors(),
            staged(self.file, text.encode()) as temporary,
            self._git.custom_environment(GIT_AUTHOR_DATE=now, GIT_COMMITTER_DATE=now),
        ):
            blob = self._git.hash_object("-w", "--no-filters", "--", str(temporary.resolve()))
            self._git.update_index("--add", "--cacheinfo", f"100644,{blob},{self._name}")
            commit = str(self._git.commit_tree(self._git.write_tree(), *parents, "-m", message))
            self._git.update_ref(BRANCH, commit, parent or "0" * 40)
            try:
                temporary.replace(self.file)
            except OSError:
                if parent is not None:
                    self._git.update_ref(BRANCH, parent, commit)
                raise
        return commit

    def tag(self, name: str, commit: str, message: str) -> None:
        """Set an annotated tag. Raises WorkspaceWriteFailed if it exists."""
        with self._write_errors():
            self._git.tag("--annotate", "--no-sign", "-m", message, name, commit)

    def history(self, *keys: str) -> list[Commit]:
        """Return all commits, oldest first, with the trailers named `keys`."""
        with self._reading():
            return self._objects.history(*keys)

    def resolve(self, ref: str) -> str:
        """Return the commit that `ref` names. Raises WorkspaceError if there is none."""
        with self._reading():
            return self._objects.resolve(ref)

    def text_at(self, commit: str) -> str:
        """Return the file's text in a commit."""
        with self._reading():
            return self._objects.blob(self._objects.resolve(commit), self._name).decode()

    def strangers(self) -> list[str]:
        """Return what is in `.git` and this class did not make: settings, hooks, links, packs."""
        with self._reading():
            return list(self._objects.strangers())

    def replace_file(self, text: str) -> None:
        """Replace the file by `text` without a commit."""
        with self._write_errors(), staged(self.file, text.encode()) as temporary:
            temporary.replace(self.file)

    def sweep(self) -> None:
        """Remove temporary files and git's locks that a crash left: those older than any commit takes."""
        locks = (self.path / ".git").glob("*.lock"), (self.path / ".git" / "refs").glob("**/*.lock")
        for leftover in (*self.file.parent.glob(f".{self.file.name}.*.tmp"), *locks[0], *locks[1]):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - leftover.stat().st_mtime > _STALE_SECONDS:
                    leftover.unlink()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        except (OSError, UnicodeDecodeError) as error:
            raise Unreadable(f"{self.path}: {error}") from None
        finally:
            self.seconds += time.monotonic() - started

    @contextlib.contextmanager
    def _write_errors(self) -> Iterator[None]:
        import git

        started = time.monotonic()
        try:
            yield
        except git.GitCommandNotFound as error:
            raise _missing() from error
        except git.GitCommandError as error:
            raise WorkspaceWriteFailed(f"git could not write in {self.path}: {_reason(error)}") from error
        except OSError as error:
            raise WorkspaceWriteFailed(f"could not write in {self.path}: {error.strerror or error}") from error
        finally:
            self.seconds += time.monotonic() - started


def _missing() -> GitMissing:
    return GitMissing("git was not found: install it (Debian: apt install git) and make sure that it is on the PATH")


def _reason(error: git.GitCommandError) -> str:
    return str(error.stderr).strip().removeprefix("stderr: ").strip("'") or f"exit status {error.status}"


def _git(path: Path) -> git.Git:
    """Return a git command that uses this repository and no other configuration of the machine."""
    try:
        import git
    except ImportError as error:
        raise _missing() from error
    command = git.Git(path)
    folder = path.resolve()
    command.update_environment(
        # The caller's environment may name another repository, for example inside a git hook.
        GIT_DIR=str(folder / ".git"),
        GIT_WORK_TREE=str(folder),
        GIT_INDEX_FILE=str(folder / ".git" / "index"),
        GIT_OBJECT_DIRECTORY=str(folder / ".git" / "objects"),
        GIT_COMMON_DIR=str(folder / ".git"),
        GIT_ALTERNATE_OBJECT_DIRECTORIES="",
        # `sandbox.objects` reads only these formats. A later git may have other defaults.
        GIT_DEFAULT_HASH="sha1",
        GIT_DEFAULT_REF_FORMAT="files",
        GIT_NAMESPACE="",
        GIT_CONFIG_NOSYSTEM="1",
        GIT_CONFIG_SYSTEM=os.devnull,
        GIT_CONFIG_GLOBAL=os.devnull,
        GIT_CONFIG_PARAMETERS="",
        GIT_CONFIG_COUNT="3",
        GIT_CONFIG_KEY_0="core.hooksPath",
        GIT_CONFIG_VALUE_0=os.devnull,
        GIT_CONFIG_KEY_1="core.fsmonitor",
        GIT_CONFIG_VALUE_1="false",
        GIT_CONFIG_KEY_2="core.autocrlf",
        GIT_CONFIG_VALUE_2="false",
        GIT_ATTR_NOSYSTEM="1",
        GIT_TERMINAL_PROMPT="0",
        GIT_OPTIONAL_LOCKS="0",
        GIT_AUTHOR_NAME=_NAME,
        GIT_AUTHOR_EMAIL=_EMAIL,
        GIT_COMMITTER_NAME=_NAME,
        GIT_COMMITTER_EMAIL=_EMAIL,
        LC_ALL="C",
    )
    return command
