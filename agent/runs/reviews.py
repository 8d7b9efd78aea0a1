"""Reviews of a submission by people, in reviews.jsonl, and whether each still counts for the files as they are.

A verdict is valid for the bytes of submission.patch. An approval is also valid only for its log: new lines may be added
to the log, any other change ends the approval. Old verdicts stay on record. Each line has the hash of the line before,
so a removed line is detected at the next one.
"""

from __future__ import annotations

import dataclasses
import getpass
import hashlib
import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from agent.errors import RunDamaged, UsageError, in_one_sentence
from agent.runs.directory import RunDirectory
from agent.runs.files import parse_json, read_bytes
from agent.runs.log import chain
from agent.runs.log_lines import GENESIS
from agent.runs.signing import sign
from benchmark.files import open_plain

SCHEMA = 2
UNCHAINED = 1
"""The old schema, without hashes of the log and of the line before."""
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

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    kind: Kind
    message: str
    author: str
    time: Annotated[float, Field(ge=0, lt=253402300800, allow_inf_nan=False)]
    patch_sha256: str
    test: int | None = None
    file: str | None = None
    line: int | None = None
    log_sha256: str | None = None
    """The log's head when the review was written; None in an old line."""
    previous: str | None = None
    """SHA-256 of the line before, without its newline; zeros for the first; None in an old line."""
    signature: str | None = None
    """Signature by an ssh key over all other fields of this line."""

    def as_json(self) -> dict[str, Any]:
        """The line's fields."""
        fields = dataclasses.asdict(self)
        if self.previous is not None:
            return {"schema": SCHEMA, **fields}
        return {"schema": UNCHAINED, **{name: fields[name] for name in fields if name not in _NEW_FIELDS}}

    @property
    def signed_text(self) -> bytes:
        """The bytes that a signature signs."""
        return json.dumps(dataclasses.replace(self, signature=None).as_json(), sort_keys=True).encode()


_NEW_FIELDS = ("log_sha256", "previous", "signature")


_REVIEW: TypeAdapter[Review] = TypeAdapter(Review)


class Outdated(UsageError):
    """A verdict was given on something that has changed since."""


@dataclass(frozen=True)
class Standing:
    """All reviews of a run, oldest first, and the verdict that is in force for the present patch and log."""

    reviews: tuple[Review, ...]
    patch_sha256: str | None
    log: Sequence[str] = ()
    """Hashes of the log's lines."""

    @property
    def verdict(self) -> Review | None:
        """The last approval, rejection or request for changes of the present patch and log. Comments do not count."""
        decided = [review for review in self.reviews if review.kind != "comment" and self.concerns(review)]
        return decided[-1] if decided else None

    def concerns(self, review: Review) -> bool:
        """Whether the review is of the present patch and, for an approval, of the present log or its beginning."""
        if review.patch_sha256 != self.patch_sha256:
            return False
        return review.kind != "approve" or review.log_sha256 is None or review.log_sha256 in (self.log or (GENESIS,))

    @property
    def dropped(self) -> Review | None:
        """The last verdict, if the patch or the log has changed since and no verdict is in force."""
        decided = [review for review in self.reviews if review.kind != "comment"]
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
    """Read the reviews of a run. Raises RunDamaged for a line of reviews.jsonl that cannot be read."""
    return Standing(tuple(_parse(*line) for line in _lines(run)), patch_sha256(run), chain(run.events))


def breaks(run: RunDirectory) -> Iterator[str]:
    """Find lines of reviews.jsonl that were changed, moved or removed, if the next line shows it. Yields sentences."""
    previous, chained = GENESIS, False
    for line, where in _lines(run):
        review = _parse(line, where)
        where = f"line {where.rpartition(' ')[2]}"
        if review.previous is None and chained:
            yield f"{where} was put in: it names no line before, as later lines do"
        elif review.previous is not None and review.previous != previous:
            what = f"{where} ({WORDS[review.kind]} by {review.author})"
            yield f"{what} does not follow the line before: one was changed or removed"
        chained = chained or review.previous is not None
        previous = hashlib.sha256(line.encode()).hexdigest()


def _lines(run: RunDirectory) -> list[tuple[str, str]]:
    """The lines that are not empty, each with its file and line number."""
    path = run.path / "reviews.jsonl"
    try:
        lines = read_bytes(run.path, path.name).decode("utf-8").split("\n")
    except FileNotFoundError:
        lines = []
    except UnicodeDecodeError as error:
        raise RunDamaged(f"{path}: cannot be read: {error}") from None
    return [(line, f"{path}: line {number}") for number, line in enumerate(lines, 1) if line]


def patch_sha256(run: RunDirectory) -> str | None:
    """SHA-256 of submission.patch, hexadecimal; None when there is none."""
    try:
        return hashlib.sha256(read_bytes(run.path, "submission.patch")).hexdigest()
    except FileNotFoundError:
        return None


@dataclass(frozen=True)
class Seen:
    """What lay before a reviewer: the SHA-256 of the patch, and of the log's last line."""

    patch_sha256: str
    log_sha256: str


def add_review(
    run: RunDirectory,
    kind: Kind,
    message: str,
    *,
    test: int | None = None,
    file: str | None = None,
    line: int | None = None,
    key: Path | None = None,
    by: str | None = None,
    seen: Seen | None = None,
) -> Review:
    """Append a review of the present patch and sync the file. `key` (the file of an ssh key) signs it.

    `by` is the author (None: `author`). Raises UsageError when there is no patch or no message, or when the key cannot
    sign; Outdated when the patch or the log is not what was `seen`.
    """
    digest = patch_sha256(run)
    if digest is None:
        raise UsageError(f"{run.path}: there is no submission.patch, so there is nothing to review yet")
    if not message.strip() and kind != "approve":
        raise UsageError(f"--{kind.replace('_', '-')} needs a reason: -m 'why'")
    before, log = _lines(run), chain(run.events)
    previous = hashlib.sha256(before[-1][0].encode()).hexdigest() if before else GENESIS
    head = log[-1] if log else GENESIS
    if seen is not None and seen != Seen(digest, head):
        what = "patch" if seen.patch_sha256 != digest else "log"
        raise Outdated(f"{run.path}: the {what} has changed since this was shown; look again, then decide")
    review = Review(kind, message.strip(), by or author(), time.time(), digest, test, file, line, head, previous)
    if key is not None:
        review = dataclasses.replace(review, signature=sign(review.signed_text, key))
    data = (json.dumps(review.as_json(), ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
    handle = open_plain(run.path, "reviews.jsonl", flags=os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(handle, data)
        os.fsync(handle)
    finally:
        os.close(handle)
    return review


def author() -> str:
    """The reviewer's name: git's `user.name <user.email>`, else the login name."""
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
        fields = parse_json(line)
        if not isinstance(fields, dict):
            raise ValueError("no JSON object")
        schema = fields.pop("schema")
        if schema not in (SCHEMA, UNCHAINED) or fields["kind"] not in WORDS:
            raise ValueError("a review of another version")
        if (schema == SCHEMA) != (fields.get("previous") is not None) or (schema == SCHEMA) != ("log_sha256" in fields):
            raise ValueError("it lacks what ties it to the lines before")
        return _REVIEW.validate_python(fields)
    except KeyError as missing:
        raise RunDamaged(f"{where} is not a review: it has no {missing}; mend or remove the line") from None
    except (RecursionError, ValueError, TypeError, AttributeError) as error:
        raise RunDamaged(f"{where} is not a review: {in_one_sentence(error)}; mend or remove the line") from None
