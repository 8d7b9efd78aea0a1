"""The git repository in which one run edits the scaffold. Each accepted edit and each undo is a new commit.

The history is the whole state: the undo stack is computed from the commits, so a reopened workspace continues where it
stopped.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from benchmark.files import read_plain
from sandbox.editing import Editor, Reply
from sandbox.lines import EditableFile
from sandbox.objects import MAX_BYTES, WorkspaceError
from sandbox.region import SCAFFOLD_NAME, RegionError, Scaffold, scaffold, sha256, split
from sandbox.repository import (
    GitMissing,
    NotAWorkspace,
    Repository,
    WorkspaceTampered,
    WorkspaceWriteFailed,
)
from sandbox.rules import Rejection, advise, check_region

__all__ = [
    "GitMissing",
    "NotAWorkspace",
    "Workspace",
    "WorkspaceError",
    "WorkspaceTampered",
    "WorkspaceWriteFailed",
]

_TAG = re.compile(r"[a-z]+(/[0-9]+)?")


class Workspace:
    """A scaffold that is being edited. Use `create` or `open`. It is also a context manager."""

    filename = SCAFFOLD_NAME

    def __init__(self, repository: Repository) -> None:
        """Read the history of a repository. Only `create` and `open` call this."""
        self.path = repository.path
        self._repository = repository
        self._load()

    @classmethod
    def create(cls, path: Path, region: str | None = None) -> Workspace:
        """Make a repository in `path` (absent or empty). Its first commit is the scaffold, with `region` if given.

        Raises NotAWorkspace if the folder is in use, GitMissing, or WorkspaceWriteFailed.
        """
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise NotAWorkspace(f"{path} exists and is not an empty folder; choose another, or open it")
        content = scaffold() if region is None else scaffold().with_region(region)
        repository = Repository(path, SCAFFOLD_NAME)
        repository.initialise()
        repository.commit(content.text, parent=None, subject="Start from the scaffold", trailers={"Kind": "start"})
        return cls(repository)

    @classmethod
    def open(cls, path: Path) -> Workspace:
        """Open an existing workspace with its undo stack.

        After a crash during an edit the file is one commit behind; it is brought up to date. Any other difference
        between file and history raises WorkspaceTampered. So do settings, hooks and the like that this class did not
        make, because git would obey them. Raises NotAWorkspace if `path` has no workspace, or GitMissing.
        To only read, use `sandbox.history.History`, which writes nothing and does not run git.
        """
        if not (path / ".git").is_dir():
            raise NotAWorkspace(f"{path} is not a workspace: it has no .git folder; make one with Workspace.create")
        workspace = cls(Repository(path, SCAFFOLD_NAME))
        if strangers := workspace._repository.strangers():
            raise WorkspaceTampered(f"{path}: {'; '.join(strangers[:3])}; git is not run there")
        workspace._finish_interrupted_write()
        workspace.verify()
        return workspace

    def close(self) -> None:
        """End git's helper processes. May be called twice."""
        self._repository.close()

    def __enter__(self) -> Workspace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- contents --------------------------------------------------------------------------------------------------

    @property
    def text(self) -> str:
        """The whole file."""
        return self._file.text

    @property
    def region(self) -> str:
        """The editable region, normalised: "" or ending in a newline."""
        return self._file.range_text()

    @property
    def region_sha256(self) -> str:
        """SHA-256 of the region, hexadecimal."""
        return sha256(self.region)

    @property
    def editable(self) -> tuple[int, int]:
        """First and last editable line, 1-based and inclusive; last = first - 1 when the region is empty."""
        return self._file.ranges[0].start, self._file.ranges[0].end

    @property
    def head(self) -> str:
        """The commit of the present state, 40 hexadecimal digits."""
        return self._head

    @property
    def seconds(self) -> float:
        """Seconds that git and the disk have taken so far."""
        return self._repository.seconds

    @property
    def undo_depth(self) -> int:
        """How many accepted edits can be taken back."""
        return self._editor.undo_depth

    def check(self) -> Rejection | None:
        """What the free static checks have against the region; line numbers are those of the view."""
        return check_region(self.region, first_line=self.editable[0])

    # -- the tools ------------------------------------------------------------------------------------------------

    def edit(self, arguments: Mapping[str, object]) -> Reply:
        """Carry out an `edit` call; an accepted one is one commit. Raises WorkspaceWriteFailed: then it did not happen.

        The same holds for `rewrite` and `undo`.
        """
        draft = self._editor.copy()
        return self._keep(draft, draft.edit(arguments), f"Edit: {arguments.get('op')}", {"Kind": "edit"})

    def rewrite(self, content: object) -> Reply:
        """Replace the whole region."""
        draft = self._editor.copy()
        return self._keep(draft, draft.rewrite(content), "Rewrite the region", {"Kind": "edit"})

    def undo(self, n: object = 1) -> Reply:
        """Take back the last `n` accepted edits in one new commit that restores the older text."""
        draft = self._editor.copy()
        reply = draft.undo(n)
        count = self._editor.undo_depth - draft.undo_depth
        return self._keep(draft, reply, f"Undo {count} edit(s)", {"Kind": "undo", "Count": str(count)})

    def view(self) -> Reply:
        """Show the region with its surroundings."""
        return self._editor.view()

    # -- versions -------------------------------------------------------------------------------------------------

    def tag(self, name: str, *, at: str = "HEAD", message: str | None = None) -> None:
        """Set the annotated tag `name` (`baseline`, `test/1`, `submit/1`) on version `at`.

        Setting it again on the same version does nothing; on another one it raises WorkspaceError.
        """
        if not _TAG.fullmatch(name):
            raise WorkspaceError(f"{name!r} cannot be a tag; use baseline, test/N or submit/N")
        target = self._repository.resolve(at)
        try:
            existing = self._repository.resolve(f"refs/tags/{name}")
        except WorkspaceError:
            self._repository.tag(name, target, message or name)
            return
        if existing != target:
            raise WorkspaceError(f"tag {name} is already set on {existing[:10]} and cannot move to {target[:10]}")

    def region_at(self, ref: str) -> str:
        """Return the region in version `ref`, a tag such as `test/1` or a commit. Raises WorkspaceError."""
        return self._scaffold.region_in(self._repository.text_at(self._repository.resolve(ref)))

    def verify(self) -> None:
        """Check the fixed parts, and compare the file on disk with the history. Raises WorkspaceTampered."""
        file = self._repository.file
        try:
            data = self._read_file()
        except OSError as error:
            raise WorkspaceTampered(f"{file} cannot be read: {error.strerror}") from error
        if data != self._repository.text_at(self._head).encode():
            raise WorkspaceTampered(f"{file} was changed by something else than edit and undo")
        if self._repository.resolve("HEAD") != self._head or data != self.text.encode():
            raise WorkspaceTampered(f"{self.path}: the history was changed by something else than edit and undo")
        self._check_fixed_parts(data.decode())

    # -- implementation ---------------------------------------------------------------------------------------------

    @property
    def _file(self) -> EditableFile:
        return self._editor.files[SCAFFOLD_NAME]

    def _read_file(self) -> bytes:
        return read_plain(self.path, *SCAFFOLD_NAME.split("/"), limit=MAX_BYTES)

    def _load(self) -> None:
        """Compute the whole state from git's history."""
        try:
            commits = self._repository.history("Kind", "Count")
            self._scaffold = split(self._repository.text_at(commits[0].sha))
        except GitMissing:
            raise
        except (WorkspaceError, RegionError) as error:
            raise NotAWorkspace(f"{self.path} holds no history of a scaffold: {error}") from error
        undo: list[str] = []
        for before, commit in itertools.pairwise(commits):
            if commit.trailers["Kind"] == "edit":
                undo.append(before.sha)
            elif commit.trailers["Kind"] == "undo":
                del undo[len(undo) - int(commit.trailers["Count"]) :]
        self._head = commits[-1].sha
        self._editor = Editor.of(self._file_at(self._head), advise=advise)
        for sha in undo:
            former = self._file_at(sha)
            self._editor.remember(former.name, former.lines, former.ranges)

    def _file_at(self, commit: str) -> EditableFile:
        try:
            region = self._scaffold.region_in(self._repository.text_at(commit))
        except RegionError as error:
            raise WorkspaceTampered(f"{self.path}, version {commit[:10]}: {error}") from error
        return Scaffold(self._scaffold.prefix, region, self._scaffold.suffix).editable()

    def _check_fixed_parts(self, text: str) -> None:
        ours = self._scaffold
        found = (sha256(text[: len(ours.prefix)]), sha256(text[len(text) - len(ours.suffix) :]))
        if found != (ours.prefix_sha256, ours.suffix_sha256):
            raise WorkspaceTampered(f"{self._repository.file}: the text outside the editable region has changed")

    def _keep(self, draft: Editor, reply: Reply, subject: str, trailers: dict[str, str]) -> Reply:
        """Commit the text of `draft`. If that succeeds, `draft` becomes the present state."""
        if reply.ok:
            text = draft.files[SCAFFOLD_NAME].text
            self._head = self._repository.commit(text, parent=self._head, subject=subject, trailers=trailers)
            self._editor = draft
        return reply

    def _finish_interrupted_write(self) -> None:
        self._repository.sweep()
        try:
            behind = self._read_file() == self._repository.text_at(f"{self._head}^").encode()
        except (WorkspaceError, OSError):
            return  # The first commit has no parent. `verify` reports a missing file.
        if behind:
            self._repository.replace_file(self.text)
