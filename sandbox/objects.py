"""Read a workspace's git history without git: no program runs, and no configuration of the repository is used.

git obeys the configuration of the repository it reads. A few lines in `.git` make it run programs (to fetch a missing
object, to check a signature) or read objects from elsewhere (alternates, grafts, a `.git` that is a link). A run
directory from another person must not do that. So this module reads loose objects, and checks each against its name,
and references that are files. `Repository` writes nothing else.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmark.files import NotPlain, open_folder, read_plain

BRANCH = "refs/heads/main"
MAX_BYTES = 1 << 20
"""Largest size of an object, compressed or not. A scaffold has 2 kB and a region at most 16 kB."""
_MAX_COMMITS = 100_000
_MAX_ENTRIES = 1_000_000
_MAX_DEPTH = 8
_SHA = re.compile(r"[0-9a-f]{40}")
_REF = re.compile(r"refs/(heads|tags)(/[A-Za-z0-9][A-Za-z0-9._-]*)+")
_ANCESTOR = re.compile(r"(?P<version>.+?)(?P<generations>\^|~[0-9]{1,6})", re.DOTALL)
_SECTION = "[core]"
_SETTING = re.compile(
    r"\t(repositoryformatversion = 0|bare = false|logallrefupdates = true"
    r"|(filemode|ignorecase|precomposeunicode|symlinks) = (true|false))"
)
"""The lines that `git init` writes to `config` on the systems we know. No other line is accepted."""
_OURS = (
    r"HEAD|config|index",
    r"objects(/info|/pack|/[0-9a-f]{2}(/[0-9a-f]{38}|/tmp_obj_\w+)?)?",
    r"refs|refs/(heads|tags)(/[A-Za-z0-9][A-Za-z0-9._-]*)*",
    r"logs(/HEAD|/refs(/(heads|tags)(/[A-Za-z0-9][A-Za-z0-9._-]*)*)?)?",
    r"(HEAD|index|refs/.*)\.lock",  # left by a crash
)
_KNOWN = re.compile("|".join(_OURS))


class WorkspaceError(Exception):
    """A workspace cannot be used as requested. The message says why."""


class Unreadable(WorkspaceError):
    """An object or reference is missing, damaged, or of a kind that workspaces do not have."""


@dataclass(frozen=True)
class Commit:
    """One commit: its 40 hexadecimal digits and the trailers of its message."""

    sha: str
    trailers: dict[str, str]


class Objects:
    """Reads the objects and references in `path`/.git. It keeps no file open."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def history(self, *keys: str) -> list[Commit]:
        """Return all commits of the branch, oldest first, with the trailers named `keys` ("" if absent)."""
        found: list[Commit] = []
        sha: str | None = self._ref(BRANCH)
        while sha is not None:
            if len(found) == _MAX_COMMITS:
                raise Unreadable(f"{self.path}: more than {_MAX_COMMITS:,} commits")
            _, parents, message = self._commit(sha)
            trailers = _trailers(message)
            found.append(Commit(sha, {key: trailers.get(key, "") for key in keys}))
            sha = parents[0] if parents else None
        return found[::-1]

    def resolve(self, version: str) -> str:
        """Return the commit of `version`: HEAD, a tag, a reference, or 40 digits; `^` and `~N` select ancestors."""
        if back := _ANCESTOR.fullmatch(version):
            sha, count = self.resolve(back["version"]), back["generations"]
            for _ in range(1 if count == "^" else int(count[1:])):
                parents = self._commit(sha)[1]
                if not parents:
                    raise Unreadable(f"{self.path} has no version {version!r}")
                sha = parents[0]
            return sha
        if version == "HEAD":
            return self._head()
        if _SHA.fullmatch(version):
            return self._peel(version)
        for name in (version, f"refs/tags/{version}", f"refs/heads/{version}"):
            if _REF.fullmatch(name):
                try:
                    return self._peel(self._ref(name))
                except FileNotFoundError:
                    continue
        raise Unreadable(f"{self.path} has no version {version!r}")

    def tags(self) -> dict[str, str]:
        """Map the name of each tag, such as `test/1`, to its commit."""
        tags = (name.removeprefix("refs/tags/") for name, kind in self._entries("refs", "tags") if kind == "file")
        return {name: self.resolve(f"refs/tags/{name}") for name in sorted(tags) if not name.endswith(".lock")}

    def blob(self, commit: str, name: str) -> bytes:
        """Return the content of the file `name` (a path with slashes) in a commit."""
        sha = self._commit(commit)[0]
        *folders, last = name.split("/")
        for folder in folders:
            sha = self._entry(sha, folder, "40000")
        return self._read(self._entry(sha, last, "100644"), "blob")

    def strangers(self) -> Iterator[str]:
        """Yield what workspaces do not have in `.git`: settings, links, hooks, packs, alternates, other references.

        This module uses none of it. But git would obey it if somebody called git in this folder.
        """
        try:
            config = self._file("config").decode()
        except (OSError, Unreadable, UnicodeDecodeError) as error:
            yield f".git/config: {error}"
        else:
            for line in config.splitlines():
                if line != _SECTION and not _SETTING.fullmatch(line):
                    yield f".git/config has the setting {line.strip()[:80]!r}, which no workspace has"
        try:
            if (head := self._file("HEAD")) != f"ref: {BRANCH}\n".encode():
                yield f".git/HEAD is {head[:80]!r} and not on the branch {BRANCH}"
        except (OSError, Unreadable) as error:
            yield f".git/HEAD: {error}"
        for name, kind in self._entries():
            if kind == "other":
                yield f".git/{name} is a link, pipe, socket or device"
            elif not _KNOWN.fullmatch(name):
                yield f".git/{name} is nothing that a workspace has"

    # -- implementation ---------------------------------------------------------------------------------------------

    def _file(self, name: str) -> bytes:
        """Read a file of `.git`. Raises FileNotFoundError, or Unreadable if it is no regular file."""
        try:
            return read_plain(self.path, ".git", *name.split("/"), limit=MAX_BYTES)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise Unreadable(str(error)) from None

    def _head(self) -> str:
        text = self._file("HEAD").decode("ascii", "replace").strip()
        return self._ref(text.removeprefix("ref: ")) if text.startswith("ref: ") else self._peel(text)

    def _ref(self, name: str) -> str:
        """Return the object that the reference `name` holds. Raises FileNotFoundError."""
        if not _REF.fullmatch(name):
            raise Unreadable(f"{self.path}: {name[:80]!r} is no reference")
        text = self._file(name).decode("ascii", "replace").strip()
        if not _SHA.fullmatch(text):
            raise Unreadable(f"{self.path}: {name} holds {text[:80]!r} and not the name of an object")
        return text

    def _peel(self, sha: str) -> str:
        """Return the commit itself, or the commit at the end of a chain of tags."""
        for _ in range(10):
            kind, body = self._object(sha)
            if kind == "commit":
                return sha
            if kind != "tag" or not (target := re.match(rb"object ([0-9a-f]{40})\n", body)):
                break
            sha = target[1].decode()
        raise Unreadable(f"{self.path}: object {sha[:10]} leads to no commit")

    def _commit(self, sha: str) -> tuple[str, list[str], str]:
        """Return tree, parents and message of a commit."""
        head, _, message = self._read(sha, "commit").partition(b"\n\n")
        found = re.match(rb"tree ([0-9a-f]{40})\n((?:parent [0-9a-f]{40}\n)*)", head)
        if found is None:
            raise Unreadable(f"{self.path}: commit {sha[:10]} has no tree")
        return found[1].decode(), found[2].decode().split()[1::2], message.decode(errors="replace")

    def _entry(self, tree: str, name: str, mode: str) -> str:
        """Return the object called `name` in a tree. Raises Unreadable unless it has this mode."""
        for entry in re.finditer(rb"([0-7]+) ([^\0]+)\0(.{20})", self._read(tree, "tree"), re.DOTALL):
            if entry[2] == name.encode():
                if entry[1] != mode.encode():
                    raise Unreadable(f"{self.path}: {name} has the mode {entry[1].decode()} in tree {tree[:10]}")
                return entry[3].hex()
        raise Unreadable(f"{self.path}: there is no {name} in tree {tree[:10]}")

    def _read(self, sha: str, kind: str) -> bytes:
        found, body = self._object(sha)
        if found != kind:
            raise Unreadable(f"{self.path}: object {sha[:10]} is a {found} and not a {kind}")
        return body

    def _object(self, sha: str) -> tuple[str, bytes]:
        """Return kind and content of a loose object. Its name must be the SHA-1 of both."""
        where = f"{self.path}: object {sha[:10]}"
        try:
            packed = self._file(f"objects/{sha[:2]}/{sha[2:]}")
        except FileNotFoundError:
            packs = any(name.endswith(".pack") for name, _ in self._entries("objects", "pack"))
            hint = "; the history is packed (by git gc?): git unpack-objects makes it readable" if packs else ""
            raise Unreadable(f"{where} is missing{hint}") from None
        unpack = zlib.decompressobj()
        try:
            data = unpack.decompress(packed, MAX_BYTES)
        except zlib.error:
            raise Unreadable(f"{where} is damaged") from None
        if not unpack.eof:
            raise Unreadable(f"{where} is cut short, or has more than {MAX_BYTES:,} bytes")
        head, _, body = data.partition(b"\0")
        kind = re.fullmatch(rb"(blob|tree|commit|tag) ([0-9]{1,10})", head)
        if kind is None or int(kind[2]) != len(body) or hashlib.sha1(data, usedforsecurity=False).hexdigest() != sha:
            raise Unreadable(f"{where} is damaged: its content has another name")
        return kind[1].decode(), body

    def _entries(self, *inside: str) -> Iterator[tuple[str, str]]:
        """Yield each entry below a folder of `.git`: its path there, and `file`, `folder` or `other` (a link)."""
        pending, count = [inside], 0
        while pending:
            names = pending.pop()
            try:
                folder = open_folder(self.path, ".git", *names)
            except (NotPlain, FileNotFoundError):
                continue
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if (count := count + 1) > _MAX_ENTRIES:
                            raise Unreadable(f"{self.path}: more than {_MAX_ENTRIES:,} files in .git")
                        mode = entry.stat(follow_symlinks=False).st_mode
                        if stat.S_ISDIR(mode) and len(names) < _MAX_DEPTH:
                            pending.append((*names, entry.name))
                        kind = "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "other"
                        yield "/".join((*names, entry.name)), kind
            finally:
                os.close(folder)


def _trailers(message: str) -> dict[str, str]:
    """Return the `Key: value` lines of the last paragraph. The first paragraph, the subject, does not count."""
    _, *paragraphs = message.rstrip("\n").split("\n\n")
    pairs = (line.partition(": ") for line in (paragraphs[-1] if paragraphs else "").split("\n"))
    return {key: value for key, colon, value in pairs if colon}
