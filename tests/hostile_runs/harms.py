"""What somebody may do to a run directory before handing it to you. Each function harms one copy of a finished run."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import subprocess
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.runs.log_lines import GENESIS

SECRET = "CANARY-OUT-OF-THE-RUN"
STEERING = "\x1b[2J\x1b]0;title\x07\x9b31m\x9d8;;x\u202e\u2066\u2028\r\x08"
"""Clears a screen, sets its title, makes a link, turns the writing direction, and hides what stood before."""


@dataclass(frozen=True)
class Target:
    """The run to harm, a folder outside of it that holds SECRET, and a file that exists once a program ran."""

    run: Path
    outside: Path
    marker: Path

    @property
    def git(self) -> Path:
        """The folder `.git` of the workspace."""
        return self.run / "workspace" / ".git"

    @property
    def program(self) -> str:
        """A command that leaves the marker."""
        return f"echo ran >> {self.marker}; false"


@dataclass(frozen=True)
class Harm:
    """`blind`: verify does not look at what was harmed. `links`: whoever writes in the run must refuse at once."""

    do: Callable[[Target], None]
    name: str
    blind: bool = False
    links: bool = False


HARMS: list[Harm] = []


def harm(*, blind: bool = False, links: bool = False) -> Callable[[Callable[[Target], None]], Callable[[Target], None]]:
    """Put a function on the list."""

    def add(function: Callable[[Target], None]) -> Callable[[Target], None]:
        HARMS.append(Harm(function, function.__name__, blind, links))
        return function

    return add


# -- git obeys the repository that it reads -------------------------------------------------------------------------


@harm()
def promisor_remote_for_a_deleted_blob(target: Target) -> None:
    """git asks the remote's program for the missing object."""
    _config(
        target,
        f'[remote "x"]\n url = .\n promisor = true\n uploadpack = "{target.program}"\n'
        "[extensions]\n partialClone = x\n",
    )
    _config(target, "[core]\n repositoryformatversion = 1\n")
    blob = _git(target, "rev-parse", "HEAD:sandbox/custom_init.py")
    _object(target, blob).unlink()


@harm()
def signature_program(target: Target) -> None:
    """git log checks signatures with the program that the repository names."""
    script = target.run / "gpg"
    script.write_text(f"#!/bin/sh\n{target.program}\n")
    script.chmod(0o755)
    head = _git(target, "cat-file", "commit", "HEAD")
    first, _, message = head.partition("\n\n")
    signed = f"{first}\ngpgsig -----BEGIN PGP SIGNATURE-----\n \n -----END PGP SIGNATURE-----\n\n{message}\n"
    made = _store(target, "commit", signed.encode())
    (target.git / "refs" / "heads" / "main").write_text(f"{made}\n")
    _config(target, f"[log]\n showSignature = true\n[gpg]\n program = {script}\n")


@harm()
def hooks_and_monitor(target: Target) -> None:
    """Hooks, a file system monitor, a pager, an editor and an SSH program."""
    hooks = target.git / "hooks"
    hooks.mkdir()
    for name in ("post-checkout", "reference-transaction", "pre-commit", "post-index-change"):
        (hooks / name).write_text(f"#!/bin/sh\n{target.program}\n")
        (hooks / name).chmod(0o755)
    _config(target, f'[core]\n fsmonitor = "{target.program}"\n pager = "{target.program}"\n sshCommand = x\n')


@harm()
def settings_from_elsewhere(target: Target) -> None:
    """The configuration includes another file."""
    other = target.run / "more.conf"
    other.write_text(f'[core]\n fsmonitor = "{target.program}"\n')
    _config(target, f"[include]\n path = {other}\n")


@harm()
def filters_and_text_converters(target: Target) -> None:
    """Attributes send the file through programs, in .git and beside the file."""
    (target.git / "info").mkdir()
    for place in (target.git / "info" / "attributes", target.run / "workspace" / ".gitattributes"):
        place.write_text("* filter=x diff=x\n")
    _config(
        target,
        f'[filter "x"]\n smudge = "{target.program}"\n clean = "{target.program}"\n'
        f'[diff "x"]\n textconv = "{target.program}"\n command = "{target.program}"\n'
        f'[diff]\n external = "{target.program}"\n',
    )


@harm()
def other_config_for_worktrees(target: Target) -> None:
    """A second configuration that git reads beside the first."""
    (target.git / "config.worktree").write_text(f'[core]\n fsmonitor = "{target.program}"\n')


@harm()
def configuration_is_a_link(target: Target) -> None:
    """The configuration lies outside of the run."""
    _link(target.git / "config", target.outside / "secret")


@harm()
def alternates(target: Target) -> None:
    """Objects come from a folder outside of the run."""
    (target.git / "objects" / "info" / "alternates").write_text(f"{target.outside}\n")


@harm()
def git_folder_is_a_file(target: Target) -> None:
    """.git names a folder elsewhere."""
    target.git.rename(target.run / "elsewhere")
    target.git.write_text(f"gitdir: {target.run / 'elsewhere'}\n")


@harm(links=True)
def git_folder_is_a_link(target: Target) -> None:
    """.git is a link to a repository outside of the run."""
    target.git.rename(target.outside / "repository")
    target.git.symlink_to(target.outside / "repository")


@harm(links=True)
def workspace_is_a_link(target: Target) -> None:
    """The workspace lies outside of the run; resuming would delete it there."""
    (target.run / "workspace").rename(target.outside / "workspace")
    (target.run / "workspace").symlink_to(target.outside / "workspace")


@harm()
def common_folder(target: Target) -> None:
    """commondir: references and objects come from another folder."""
    (target.git / "commondir").write_text(f"{target.outside}\n")


@harm()
def replaced_object(target: Target) -> None:
    """A replacement reference: git shows another object in the place of one."""
    first = _git(target, "rev-list", "--max-parents=0", "HEAD")
    folder = target.git / "refs" / "replace"
    folder.mkdir()
    (folder / _git(target, "rev-parse", "HEAD")).write_text(f"{first}\n")


@harm()
def grafts(target: Target) -> None:
    """The history is bent without a commit being changed."""
    (target.git / "info").mkdir()
    (target.git / "info" / "grafts").write_text(_git(target, "rev-parse", "HEAD") + "\n")


@harm()
def packed_references(target: Target) -> None:
    """References in the file packed-refs, which would come into force where a loose one is missing."""
    (target.git / "packed-refs").write_text(f"{_git(target, 'rev-parse', 'HEAD')} refs/tags/baseline\n")
    (target.git / "refs" / "tags" / "baseline").unlink()


@harm()
def object_that_unpacks_to_a_gigabyte(target: Target) -> None:
    """A kilobyte of zeros to the power of two."""
    packer = zlib.compressobj(9)
    data = packer.compress(b"blob 104857600\0") + b"".join(packer.compress(bytes(2**20)) for _ in range(100))
    _overwrite(target, data + packer.flush())


@harm()
def object_of_another_content(target: Target) -> None:
    """The submitted file's object holds something else than its name says."""
    _overwrite(target, zlib.compress(b"blob 5\0other"))


@harm()
def object_that_does_not_unpack(target: Target) -> None:
    """Bytes that nobody compressed."""
    _overwrite(target, b"garbage")


@harm(links=True)
def object_is_a_link(target: Target) -> None:
    """An object is a link out of the run."""
    _link(_blob(target), target.outside / "secret")


@harm(links=True)
def object_is_a_pipe(target: Target) -> None:
    """Whoever opens it waits for ever."""
    _pipe(_blob(target))


@harm(links=True)
def branch_is_a_pipe(target: Target) -> None:
    """Whoever asks for the last commit waits for ever."""
    _pipe(target.git / "refs" / "heads" / "main")


@harm()
def branch_names_itself(target: Target) -> None:
    """A reference that leads to itself."""
    (target.git / "refs" / "heads" / "main").write_text("ref: refs/heads/main\n")


@harm()
def head_is_another_branch(target: Target) -> None:
    """HEAD is on a branch of its own, at another commit."""
    (target.git / "refs" / "heads" / "other").write_text(_git(target, "rev-list", "--max-parents=0", "HEAD") + "\n")
    (target.git / "HEAD").write_text("ref: refs/heads/other\n")


@harm()
def tag_outside_the_history(target: Target) -> None:
    """A tag names a commit with the same region that is not in the branch."""
    tree, parent = _git(target, "rev-parse", "test/1^{tree}"), _git(target, "rev-parse", "baseline^{commit}")
    body = f"tree {tree}\nparent {parent}\nauthor x <x> 0 +0000\ncommitter x <x> 0 +0000\n\nForeign\n\nKind: edit\n"
    (target.git / "refs" / "tags" / "test" / "1").write_text(_store(target, "commit", body.encode()) + "\n")


@harm()
def file_under_edit_is_a_link(target: Target) -> None:
    """workspace/sandbox/custom_init.py is a link to a file with the right content."""
    file = target.run / "workspace" / "sandbox" / "custom_init.py"
    file.rename(target.outside / "file.py")
    file.symlink_to(target.outside / "file.py")


# -- links, pipes and other files that are none -----------------------------------------------------------------------


def _linked(name: str, *, blind: bool = False) -> None:
    def do(target: Target) -> None:
        _link(target.run / name, target.outside / "secret")

    HARMS.append(Harm(do, f"{name}_is_a_link", blind, links=True))


def _piped(name: str, *, blind: bool = False) -> None:
    def do(target: Target) -> None:
        _pipe(target.run / name)

    HARMS.append(Harm(do, f"{name}_is_a_pipe", blind, links=True))


for _name in (
    *("run.json", "events.jsonl", "submission.patch", "initialize_weights.py", "reviews.jsonl", "network.json"),
    *("ablation.json", "report.html", "study.journal", "workers.log", ".lock"),
):
    _linked(_name)
for _name in ("run.json", "events.jsonl", "submission.patch", "initialize_weights.py", "reviews.jsonl", "network.json"):
    _piped(_name)


@harm(links=True)
def results_are_a_link(target: Target) -> None:
    """results/ lies outside of the run: sweeping up would delete there, training would write there."""
    _move_out(target, "results")


@harm(links=True)
def hidden_results_are_a_link(target: Target) -> None:
    """The same for hidden/."""
    _move_out(target, "hidden")


@harm(links=True)
def result_is_a_pipe(target: Target) -> None:
    """One result of many would be waited for."""
    _pipe(next((target.run / "results").glob("*.json")))


@harm(links=True)
def log_has_a_second_name(target: Target) -> None:
    """events.jsonl is a hard link: appending changes a file outside of the run."""
    (target.outside / "log").hardlink_to(target.run / "events.jsonl")


@harm(links=True)
def patch_is_a_socket(target: Target) -> None:
    """A socket in the place of a file."""
    (target.run / "submission.patch").unlink()
    here = Path.cwd()
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listener:
        os.chdir(target.run)  # the name of a socket has at most 108 bytes
        try:
            listener.bind("submission.patch")
        finally:
            os.chdir(here)


@harm()
def patch_is_a_folder(target: Target) -> None:
    """A folder in the place of a file."""
    (target.run / "submission.patch").unlink()
    (target.run / "submission.patch").mkdir()


# -- values that no search writes ----------------------------------------------------------------------------------


@harm()
def key_that_leads_out_of_the_run(target: Target) -> None:
    """The log names a result by a path."""
    _rewrite_log(target, lambda event: event.update(key="../../outside/secret"), "evaluated")


def _summary(name: str, change: Callable[[dict[str, Any]], None], *, blind: bool = False) -> None:
    def do(target: Target) -> None:
        path = target.run / "run.json"
        summary = json.loads(path.read_text(encoding="utf-8"))
        change(summary)
        path.write_text(json.dumps(summary))

    HARMS.append(Harm(do, f"summary_{name}", blind))


_summary("of_numbers_as_tests", lambda summary: summary.update(tests=[1, 2]))
_summary("of_a_list_as_config", lambda summary: summary.update(config=[]))
_summary("of_a_text_as_gain", lambda summary: summary.update(visible={"a": {"gain": "much"}}))
_summary(
    "of_words_as_bounds",
    lambda summary: [one.update(ci=["<b>", []]) for one in summary["visible"].values()].clear(),
    blind=True,
)
_summary("of_a_number_as_words", lambda summary: summary.update(words=5))
_summary("of_lists_as_seconds", lambda summary: summary.update(seconds={"total": []}))
_summary("of_a_time_beyond_time", lambda summary: summary.update(created=1e300), blind=True)
_summary("of_numbers_that_are_none", lambda summary: summary["seconds"].update(total=float("nan")), blind=True)
_summary("of_half_a_character", lambda summary: summary.update(words=["\ud800 half"], reason="\udfff"), blind=True)
_summary("of_a_name_that_is_a_formula", lambda summary: summary.update(profile="=HYPERLINK(1)"), blind=True)
_summary("of_tasks_that_are_none", lambda summary: summary.update(tasks={"visible": [{"name": [1]}, 5]}), blind=True)


def _whole(name: str, file: str, content: bytes, *, blind: bool = False) -> None:
    HARMS.append(Harm(lambda target: _put(target.run / file, content), name, blind))


_DEEP = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
_whole("summary_nested_deeply", "run.json", _DEEP)
_whole("summary_of_a_huge_number", "run.json", b'{"budget": ' + b"9" * 10_000 + b"}")
_whole("summary_that_is_a_list", "run.json", b"[]")
_whole("summary_that_is_no_text", "run.json", b"\xff\xfe\x00")
_whole("log_nested_deeply", "events.jsonl", _DEEP + b"\n")
_whole("log_of_a_number", "events.jsonl", b"5\n")
_whole("reviews_nested_deeply", "reviews.jsonl", _DEEP + b"\n", blind=True)
_whole("review_that_is_nothing", "reviews.jsonl", b"null\n", blind=True)
_whole("network_nested_deeply", "network.json", _DEEP, blind=True)
_whole("ablation_nested_deeply", "ablation.json", _DEEP, blind=True)
_whole("patch_that_is_no_text", "submission.patch", b"\xff\x00\xfe")


@harm()
def log_that_is_gone(target: Target) -> None:
    """A run without its log."""
    (target.run / "events.jsonl").unlink()


def _review(name: str, **changes: Any) -> None:
    fields = {"schema": 1, "kind": "comment", "message": "m", "author": "a", "time": 1.0, "patch_sha256": "0"}
    _whole(f"review_{name}", "reviews.jsonl", json.dumps({**fields, **changes}).encode() + b"\n", blind=True)


_review("at_a_time_beyond_time", time=1e300)
_review("of_a_list_as_message", message=["x"])
_review("of_a_number_as_author", author=5)
_review("before_all_time", time=-1.0)
_review("of_more_than_it_holds", other=1)


@harm()
def giant_summary(target: Target) -> None:
    """100 MB that take no space on the disk."""
    _grow(target.run / "run.json")


@harm()
def giant_log(target: Target) -> None:
    """100 MB of zeros after the last event, with a newline at their end."""
    _grow(target.run / "events.jsonl")


@harm(blind=True)
def giant_reviews(target: Target) -> None:
    """100 MB of zeros."""
    _grow(target.run / "reviews.jsonl")


def _event(name: str, change: Callable[[dict[str, Any]], Any], kind: str, *, blind: bool = False) -> None:
    HARMS.append(Harm(lambda target: _rewrite_log(target, change, kind), f"event_{name}", blind))


_event("at_a_time_beyond_time", lambda event: event.update(ts=1e300), "submitted")
_event("at_no_time", lambda event: event.update(ts="noon"), "submitted")
_event("of_a_configuration_without_budget", lambda event: event.update(config={}), "launch")
_event("of_a_configuration_of_lists", lambda event: event.update(config={"budget": [], "seeds": {}}), "launch")
_event(
    "of_a_proposal_of_numbers", lambda event: event.update(content={"sent": 5, "message": 7}), "proposal", blind=True
)
_event("of_half_a_character", lambda event: event.update(reply="\ud800"), "tool_replied", blind=True)
_event("of_a_submission_that_was_no_test", lambda event: event.update(number=0), "submitted")
_event("of_a_budget_beyond_bounds", lambda event: event["config"].update(budget=10**30), "launch")
_event("of_an_infinite_accuracy", lambda event: event.update(accuracy=float("inf")), "evaluated")
_event("of_a_scaffold_that_is_none", lambda event: event.update(scaffold="def f(): pass"), "launch")
_event("of_an_unknown_profile", lambda event: event.update(profile="\x1b[2J"), "launch", blind=True)


@harm(blind=True)
def every_text_steers_the_terminal(target: Target) -> None:
    """Of run.json, of each event's free text, and of a review."""
    path = target.run / "run.json"
    summary = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(_steering(summary)))

    def free_text(event: dict[str, Any]) -> None:
        event.update({name: _steering(event[name]) for name in ("reply", "content", "message") if name in event})

    for kind in ("tool_replied", "proposal", "ended"):
        _rewrite_log(target, free_text, kind)
    review = {"schema": 1, "kind": "comment", "message": "m", "author": "a", "time": 1.0, "patch_sha256": "0"}
    _put(target.run / "reviews.jsonl", json.dumps(_steering(review) | {"kind": "comment"}).encode() + b"\n")


# -- how it is done ------------------------------------------------------------------------------------------------


def _git(target: Target, *words: str) -> str:
    """Run git in the workspace before it is harmed."""
    command = ["git", "-C", str(target.run / "workspace"), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _config(target: Target, text: str) -> None:
    with (target.git / "config").open("a") as config:
        config.write(text)


def _object(target: Target, sha: str) -> Path:
    return target.git / "objects" / sha[:2] / sha[2:]


def _blob(target: Target) -> Path:
    return _object(target, _git(target, "rev-parse", "submit/1:sandbox/custom_init.py"))


def _store(target: Target, kind: str, body: bytes) -> str:
    data = f"{kind} {len(body)}\0".encode() + body
    sha = hashlib.sha1(data, usedforsecurity=False).hexdigest()
    path = _object(target, sha)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(zlib.compress(data))
    return sha


def _overwrite(target: Target, data: bytes) -> None:
    _put(_blob(target), data)


def _put(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def _link(path: Path, to: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(to)


def _pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def _move_out(target: Target, name: str) -> None:
    (target.run / name).rename(target.outside / name)
    (target.outside / name / ".x.tmp").write_text("mine")
    (target.run / name).symlink_to(target.outside / name)


def _grow(path: Path) -> None:
    with path.open("ab") as file:
        file.truncate(100_000_000)
        file.write(b"\n")


def _steering(value: Any) -> Any:
    """The same JSON with STEERING at the end of all of its texts, and as a further field of all objects."""
    if isinstance(value, dict):
        return {name: _steering(one) for name, one in value.items()} | {STEERING: STEERING}
    if isinstance(value, list):
        return [_steering(one) for one in value]
    return value + STEERING if isinstance(value, str) else value


def _rewrite_log(target: Target, change: Callable[[dict[str, Any]], Any], kind: str) -> None:
    """Change the events of a kind and chain the log anew, as somebody does who knows the format."""
    path = target.run / "events.jsonl"
    previous, lines = GENESIS, []
    for line in path.read_bytes().splitlines():
        event = json.loads(line)
        if event["kind"] == kind:
            change(event)
        event["previous"] = previous
        lines.append(json.dumps(event).encode())
        previous = hashlib.sha256(lines[-1]).hexdigest()
    path.write_bytes(b"\n".join(lines) + b"\n")
