"""Read-only access to a workspace that may be hostile: git is not run on it, and nothing in it is written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from benchmark.files import open_folder, read_plain
from sandbox.objects import MAX_BYTES, Commit, Objects, Unreadable, WorkspaceError
from sandbox.region import SCAFFOLD_NAME, RegionError, split
from sandbox.repository import NotAWorkspace, WorkspaceTampered


class History:
    """The commits, tags and texts of one workspace, first commit first."""

    def __init__(self, path: Path) -> None:
        """Read the history in `path`, which must be a folder and not a link.

        Raises NotAWorkspace if there is no history, WorkspaceTampered if `.git` holds anything that no search makes.
        """
        self.path = path
        self._objects = Objects(path)
        try:
            os.close(open_folder(path.parent, path.name, ".git"))
        except OSError as error:
            raise NotAWorkspace(f"{path} is not a workspace: it has no .git folder ({error.strerror})") from None
        if stranger := next(self._objects.strangers(), None):
            raise WorkspaceTampered(f"{path}: {stranger}; it was not made by a search and is not read")
        try:
            self.commits: list[Commit] = self._objects.history("Kind", "Count")
            self._scaffold = split(self._text(self.commits[0].sha))
        except (WorkspaceError, RegionError, OSError) as error:
            raise NotAWorkspace(f"{path} holds no history of a scaffold: {error}") from None

    def tags(self) -> dict[str, str]:
        """Map each tag, such as `baseline` or `test/1`, to its commit. Raises WorkspaceError."""
        return self._objects.tags()

    def region_at(self, ref: str) -> str:
        """Return the region in version `ref`, a tag or commit. Raises WorkspaceError, RegionError."""
        return self._scaffold.region_in(self._text(ref))

    def faults(self) -> Iterator[str]:
        """Yield what no search leaves: a file that is not the last version, commits or tags outside the history."""
        last = self.commits[-1].sha
        try:
            text = read_plain(self.path.parent, self.path.name, *SCAFFOLD_NAME.split("/"), limit=MAX_BYTES)
        except OSError as error:
            yield str(error)
        else:
            # A crash between a commit and the write of its file leaves the file one version behind.
            versions = [self._text(commit.sha).encode() for commit in self.commits[-2:]]
            if text not in versions:
                yield f"{self.path / SCAFFOLD_NAME} was changed by something else than edit and undo"
        if self._objects.resolve("HEAD") != last:
            yield f"{self.path}: HEAD is not the last commit of the branch"
        line = {commit.sha for commit in self.commits}
        for name, sha in self.tags().items():
            if sha not in line:
                yield f"{self.path}: tag {name} is on a commit that is not in the history"
        for commit in self.commits:
            try:
                self.region_at(commit.sha)
            except RegionError as error:
                yield f"{self.path}, version {commit.sha[:10]}: {error}"

    def _text(self, ref: str) -> str:
        try:
            return self._objects.blob(self._objects.resolve(ref), SCAFFOLD_NAME).decode()
        except (OSError, UnicodeDecodeError) as error:
            raise Unreadable(f"{self.path}: {error}") from None
