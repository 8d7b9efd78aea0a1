"""`agent review`: shows the diff, the numbers and the flags of a submission, and records a person's verdict."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli.app import JsonFlag, RunArgument, RunsOption, app
from agent.cli.output import make_console, print_json, print_next, run_words
from agent.errors import UsageError
from agent.safe_text import spelt

if TYPE_CHECKING:
    from agent.runs.directory import RunDirectory
    from agent.runs.reviews import Kind
    from agent.studies.reviewing import Subject


@app.command()
def review(
    run: RunArgument = "latest",
    runs: RunsOption = Path("runs"),
    approve: Annotated[bool, typer.Option("--approve", help="Approve the patch as it is now.")] = False,
    reject: Annotated[bool, typer.Option("--reject", help="Reject it; -m says why.")] = False,
    request_changes: Annotated[
        bool, typer.Option("--request-changes", help="Ask for something else; -m says what.")
    ] = False,
    comment: Annotated[
        str | None, typer.Option("--comment", metavar="FILE:LINE", help="Remark on a line; -m has the remark.")
    ] = None,
    message: Annotated[str | None, typer.Option("-m", "--message", help="The reason or remark.")] = None,
    sign: Annotated[
        Path | None, typer.Option("--sign", metavar="KEYFILE", help="Sign the verdict with this ssh key.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Review a submission: diff, numbers, flags. Approves or rejects it; on a terminal it asks.

    \b
    Examples:
      agent review
      agent review latest --approve --sign ~/.ssh/id_ed25519
      agent review 20260101-120000 --reject -m "depends on the architecture's name"
      agent review latest --comment sandbox/custom_init.py:40 -m "why 0.3?"

    The exit code is 3 while a rejection or a request for changes is in force for the patch, else 0.
    """
    verdicts: dict[Kind, str | bool] = {
        "approve": approve,
        "reject": reject,
        "request_changes": request_changes,
        "comment": comment or "",
    }
    raise typer.Exit(_review(run, runs, verdicts, message, sign=sign, as_json=as_json))


def _review(
    run: str,
    runs: Path,
    verdicts: dict[Kind, str | bool],
    message: str | None,
    *,
    sign: Path | None = None,
    as_json: bool,
) -> int:
    """Show, record or ask for a verdict. Exit code: 3 for rejected or changes requested, else 0.

    Raises UsageError, RunDamaged, and Rejected for an approval of files that differ from the log.
    """
    from agent.cli.review_text import as_json as as_object
    from agent.cli.review_text import show
    from agent.runs.artifacts import PATCH
    from agent.runs.directory import RunDirectory
    from agent.runs.reviews import standing
    from agent.studies.reviewing import look_at

    directory = RunDirectory.find(run, runs)
    given = [kind for kind, value in verdicts.items() if value]
    if len(given) > 1:
        flags = " and ".join(f"--{kind.replace('_', '-')}" for kind in given)
        raise UsageError(f"{flags} exclude each other: give one")
    if message is not None and not given:
        raise UsageError("-m says why: give --approve, --reject, --request-changes or --comment FILE:LINE with it")
    if sign is not None and not given:
        raise UsageError("--sign signs a verdict: give --approve, --reject, --request-changes or --comment with it")
    subject = look_at(directory)
    if given:
        value = str(verdicts[given[0]])
        return _record(directory, subject, given[0], value, message or "", sign=sign, as_json=as_json)
    if as_json:
        print_json(as_object(directory, subject))
        return standing(directory).exit_code
    console = make_console()
    genuine, name = show(console, subject, standing(directory)), run_words(directory.path)
    if not directory.has(PATCH):
        print_next(f"agent show {name}")
    elif sys.stdin.isatty() and sys.stdout.isatty() and subject.record.submitted is not None:
        _ask(directory, subject)
    elif genuine:
        print_next(f"agent review {name} --approve, or --reject -m 'why'")
    else:
        print_next(f"agent verify {name}, or agent review {name} --reject -m 'why'")
    return standing(directory).exit_code


def _record(
    directory: RunDirectory,
    subject: Subject,
    kind: Kind,
    value: str,
    message: str,
    *,
    sign: Path | None = None,
    as_json: bool,
) -> int:
    from agent.cli.review_text import in_force
    from agent.runs.artifacts import MODULE, PATCH
    from agent.runs.reviews import WORDS, standing
    from agent.runs.status import RunStatus
    from agent.studies.reviewing import place, record_review

    where = place(value, subject) if kind == "comment" else None
    review = record_review(directory, subject, kind, message, where=where, key=sign)
    now = standing(directory)
    if as_json:
        print_json({"run": str(directory.path), "recorded": review.as_json(), "in_force": in_force(now)})
        return now.exit_code
    print(f"{WORDS[kind]}: {directory.path.name}, patch {review.patch_sha256[:12]}, by {spelt(review.author)}")
    serious = [flag for flag in subject.flags if flag.weight == "stop"]
    if kind == "approve" and serious:
        print(f"note: approved with {len(serious)} flag(s) that should be explained first", file=sys.stderr)
    name = run_words(directory.path)
    module, patch = (shlex.quote(str(directory.path / file)) for file in (MODULE, PATCH))
    approved = f"use {module} (torch alone); in a clone of initsearch: git am {patch}"
    if RunStatus.of(subject.record.summary).waiting:
        approved = f"agent submit {name} --require-approval"
    follow = {
        "approve": approved,
        "reject": _again(subject),
        "request_changes": _again(subject),
        "comment": f"agent review {name}",
    }
    print_next(follow[kind])
    return now.exit_code


def _again(subject: Subject) -> str:
    """A search as the reviewed one was, as far as budget, profile, proposer and folder go."""
    from agent.runs.untrusted import mapping

    record = subject.record
    config, folder = mapping(record.summary.get("config")), record.directory.path.parent
    given = {"budget": str(config.get("budget", 3))}
    given |= {name: str(config[name]) for name in ("profile", "proposer") if config.get(name) not in (None, "auto")}
    if given.get("proposer", "").startswith("command:"):  # a program that the run names is not what to type next
        del given["proposer"]
    if folder != Path("runs").resolve():
        given["runs"] = str(folder)
    return " ".join(["agent search", *(f"--{name} {shlex.quote(value)}" for name, value in given.items())])


def _ask(directory: RunDirectory, subject: Subject) -> None:
    """Ask on a terminal for a verdict (one letter), and for a reason if it needs one."""
    from sandbox.region import SCAFFOLD_NAME

    kinds: dict[str, Kind] = {"a": "approve", "r": "reject", "c": "request_changes", "m": "comment"}
    while True:
        try:
            answer = input("\n[a]pprove, [r]eject, request [c]hanges, co[m]ment, [q]uit? ").strip().lower()[:1]
            if answer in ("q", ""):
                return
            if (kind := kinds.get(answer)) is None:
                continue
            value = input(f"line of {SCAFFOLD_NAME}? ") if kind == "comment" else ""
            message = input("why? " if kind != "approve" else "remark (or nothing)? ")
        except EOFError:
            print()
            return
        try:
            _record(directory, subject, kind, f"{SCAFFOLD_NAME}:{value}", message, as_json=False)
        except UsageError as error:
            print(f"error: {error}", file=sys.stderr)
            continue
        if kind != "comment":
            return
