"""A workspace that somebody else may have made, for those who only look: nothing in it is obeyed or written."""

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
        """Read the history in `path`, a folder that is no link.

        Raises NotAWorkspace where there is none, WorkspaceTampered where git's folder holds what no search leaves.
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
        """Tag, such as `baseline` or `test/1` → the commit that it is on. Raises WorkspaceError."""
        return self._objects.tags()

    def region_at(self, ref: str) -> str:
        """The region in version `ref`: a tag such as `test/1`, or a commit. Raises WorkspaceError, RegionError."""
        return self._scaffold.region_in(self._text(ref))

    def faults(self) -> Iterator[str]:
        """What a search would not have left: a file that is not the last version, commits or tags outside its line."""
        last = self.commits[-1].sha
        try:
            text = read_plain(self.path.parent, self.path.name, *SCAFFOLD_NAME.split("/"), limit=MAX_BYTES)
        except OSError as error:
            yield str(error)
        else:
            # One version behind: a crash came between a commit and its file.
            versions = [self._text(one.sha).encode() for one in self.commits[-2:]]
            if text not in versions:
                yield f"{self.path / SCAFFOLD_NAME} was changed by something else than edit and undo"
        if self._objects.resolve("HEAD") != last:
            yield f"{self.path}: HEAD is not the last commit of the branch"
        line = {one.sha for one in self.commits}
        for name, commit in self.tags().items():
            if commit not in line:
                yield f"{self.path}: tag {name} is on a commit that is not in the history"
        for one in self.commits:
            try:
                self.region_at(one.sha)
            except RegionError as error:
                yield f"{self.path}, version {one.sha[:10]}: {error}"

    def _text(self, ref: str) -> str:
        try:
            return self._objects.blob(self._objects.resolve(ref), SCAFFOLD_NAME).decode()
        except (OSError, UnicodeDecodeError) as error:
            raise Unreadable(f"{self.path}: {error}") from None
