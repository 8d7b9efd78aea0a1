"""Verdicts of people on what a run submitted: appended to reviews.jsonl, and tied to the patch that was read.

A verdict belongs to the bytes of submission.patch. When those change, it is still on record and no longer in force.
"""

from __future__ import annotations

import dataclasses
import getpass
import hashlib
import json
import os
import subprocess
import time
from dataclasses import dataclass
from typing import Any, Literal

from agent.errors import RunDamaged, UsageError
from agent.runs.directory import RunDirectory

SCHEMA = 1
Kind = Literal["approve", "reject", "request_changes", "comment"]
WORDS: dict[Kind, str] = {
    "approve": "approved",
    "reject": "rejected",
    "request_changes": "changes requested",
    "comment": "comment",
}


@dataclass(frozen=True)
class Review:
    """One line of reviews.jsonl. `time` is in seconds since the epoch; `file` and `line` are those of a comment."""

    kind: Kind
    message: str
    author: str
    time: float
    patch_sha256: str
    test: int | None = None
    file: str | None = None
    line: int | None = None

    def as_json(self) -> dict[str, Any]:
        """The line's fields."""
        return {"schema": SCHEMA, **dataclasses.asdict(self)}


@dataclass(frozen=True)
class Standing:
    """All reviews of a run, oldest first, and which verdict counts for the patch as it is now."""

    reviews: tuple[Review, ...]
    patch_sha256: str | None

    @property
    def verdict(self) -> Review | None:
        """The last approval, rejection or request for changes of this very patch; comments decide nothing."""
        decided = [one for one in self.reviews if one.kind != "comment" and one.patch_sha256 == self.patch_sha256]
        return decided[-1] if decided else None

    @property
    def dropped(self) -> Review | None:
        """The last verdict, where the patch has changed since and no newer one is in force."""
        decided = [one for one in self.reviews if one.kind != "comment"]
        return decided[-1] if decided and self.verdict is None else None

    @property
    def approved(self) -> bool:
        """Whether an approval is in force."""
        return self.verdict is not None and self.verdict.kind == "approve"

    @property
    def exit_code(self) -> int:
        """3 while a rejection or a request for changes is in force, else 0."""
        return 3 if self.verdict is not None and self.verdict.kind != "approve" else 0


def standing(run: RunDirectory) -> Standing:
    """What people have said of a run. Raises RunDamaged for a line of reviews.jsonl that cannot be read."""
    path = run.path / "reviews.jsonl"
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        lines = []
    except (OSError, UnicodeDecodeError) as error:
        raise RunDamaged(f"{path}: cannot be read: {error}") from None
    reviews = tuple(_parse(line, f"{path}: line {number}") for number, line in enumerate(lines, 1) if line)
    return Standing(reviews, patch_sha256(run))


def patch_sha256(run: RunDirectory) -> str | None:
    """SHA-256 of submission.patch, hexadecimal; None when there is none."""
    try:
        return hashlib.sha256((run.path / "submission.patch").read_bytes()).hexdigest()
    except FileNotFoundError:
        return None


def add_review(
    run: RunDirectory,
    kind: Kind,
    message: str,
    *,
    test: int | None = None,
    file: str | None = None,
    line: int | None = None,
) -> Review:
    """Append a review of the present patch, durably. Raises UsageError when there is no patch or no message."""
    digest = patch_sha256(run)
    if digest is None:
        raise UsageError(f"{run.path}: there is no submission.patch, so there is nothing to review yet")
    if not message.strip() and kind != "approve":
        raise UsageError(f"--{kind.replace('_', '-')} needs a reason: -m 'why'")
    review = Review(kind, message.strip(), author(), time.time(), digest, test, file, line)
    data = (json.dumps(review.as_json(), ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
    handle = os.open(run.path / "reviews.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.write(handle, data)
        os.fsync(handle)
    finally:
        os.close(handle)
    return review


def author() -> str:
    """Who reviews: git's `user.name <user.email>`, else the login name."""
    name, email = _git_config("user.name"), _git_config("user.email")
    if name:
        return f"{name} <{email}>" if email else name
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container without a user database
        return "unknown"


def _git_config(key: str) -> str:
    try:
        found = subprocess.run(["git", "config", "--get", key], capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip()


def _parse(line: str, where: str) -> Review:
    try:
        fields = json.loads(line)
        if fields.pop("schema") != SCHEMA or fields["kind"] not in WORDS:
            raise ValueError("a review of another version")
        texts = (fields["message"], fields["author"], fields["patch_sha256"])
        if not all(isinstance(one, str) for one in texts) or not isinstance(fields["time"], int | float):
            raise ValueError("a field is of the wrong type")
        return Review(**fields)
    except (RecursionError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RunDamaged(f"{where} is not a review: {error}; mend or remove the line") from None
