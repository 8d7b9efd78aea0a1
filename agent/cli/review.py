"""`agent review`: the diff, the numbers and the flags on a terminal, and what a person says of them."""

from __future__ import annotations

import difflib
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.analysis.comparison import as_json as tasks_json
from agent.cli.output import make_console, print_json
from agent.engine.loop import WAITING
from agent.errors import AgentError, UsageError
from agent.report import measured_network
from agent.report.findings import Comparisons, Findings, find, overall_of, signed
from agent.report.flags import Flag, raise_flags
from agent.runs.directory import RunDirectory
from agent.runs.record import RunRecord, read_run
from agent.runs.reviews import WORDS, Kind, Review, Standing, add_review, standing
from agent.safe_text import spelt
from agent.studies.rebuilt import require_genuine
from benchmark.statistics import Comparison, Overall
from sandbox.region import SCAFFOLD_NAME, RegionError, Scaffold, scaffold, split

if TYPE_CHECKING:
    from rich.console import Console

_MARKS = {"stop": "EXPLAIN FIRST", "look": "look", "note": "note"}


@dataclass(frozen=True)
class Subject:
    """What is under review: the record, its numbers, flags and texts before and after (None: no tested code)."""

    record: RunRecord
    findings: Findings
    flags: Sequence[Flag]
    before: str
    after: str | None

    @property
    def diff(self) -> list[str]:
        """The unified diff of the whole file, without line ends."""
        if self.after is None:
            return []
        names = f"a/{SCAFFOLD_NAME}", f"b/{SCAFFOLD_NAME}"
        return list(difflib.unified_diff(self.before.split("\n"), self.after.split("\n"), *names, lineterm=""))


def run_review(
    run: str,
    runs: Path,
    verdicts: dict[Kind, str | bool],
    message: str | None,
    *,
    sign: Path | None = None,
    as_json: bool,
) -> int:
    """Show, record, or ask. The exit code tells which verdict is in force: 3 rejected or changes requested, else 0.

    Raises UsageError, RunDamaged, and Rejected for an approval of files that are not what the log gives.
    """
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
        print_json(_as_json(directory, subject))
        return standing(directory).exit_code
    console = make_console()
    _show(console, subject, standing(directory))
    if sys.stdin.isatty() and sys.stdout.isatty() and subject.record.submitted is not None:
        _ask(directory, subject)
    else:
        print(f"next: agent review {directory.path.name} --approve, or --reject -m 'why'", file=sys.stderr)
    return standing(directory).exit_code


def look_at(directory: RunDirectory) -> Subject:
    """Read a run for review. Nothing is run: the networks are shown as the report measured them."""
    record = read_run(directory)
    findings = find(record)
    network, _ = measured_network(record, findings, measure=False)
    frame = _frame(record)
    region = record.regions.get(findings.subject or 0)
    return Subject(
        record,
        findings,
        raise_flags(record, findings, network),
        frame.with_region(record.baseline_region).text,
        None if region is None else frame.with_region(region).text,
    )


def _frame(record: RunRecord) -> Scaffold:
    """The file around the region, as the run had it."""
    launch = next(record.of_kind("launch"), {})
    try:
        return split(str(launch.get("scaffold")))
    except RegionError:
        return scaffold()


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
    file, line = _place(value, subject) if kind == "comment" else (None, None)
    if kind == "approve":
        require_genuine(directory)
    review = add_review(directory, kind, message, test=subject.findings.subject, file=file, line=line, key=sign)
    now = standing(directory)
    if as_json:
        print_json({"run": str(directory.path), "recorded": review.as_json(), "in_force": _in_force(now)})
        return now.exit_code
    print(f"{WORDS[kind]}: {directory.path.name}, patch {review.patch_sha256[:12]}, by {spelt(review.author)}")
    grave = [flag for flag in subject.flags if flag.weight == "stop"]
    if kind == "approve" and grave:
        print(f"note: approved with {len(grave)} flag(s) that ask to be explained first", file=sys.stderr)
    name = directory.path.name
    approved = f"git am {directory.path / 'submission.patch'}"
    if subject.record.status == WAITING:
        approved = f"agent submit {name} --require-approval"
    follow = {
        "approve": approved,
        "reject": "agent search --budget 3",
        "request_changes": "agent search --budget 3",
        "comment": f"agent review {name}",
    }
    print(f"next: {follow[kind]}", file=sys.stderr)
    return now.exit_code


def _place(value: str, subject: Subject) -> tuple[str, int]:
    """FILE:LINE of a comment; the line must exist in the submitted file."""
    file, _, line = value.rpartition(":")
    if not re.fullmatch(r"[0-9]{1,6}", line) or not file:
        raise UsageError(f"--comment {value}: expected FILE:LINE, such as {SCAFFOLD_NAME}:40")
    if file not in (SCAFFOLD_NAME, Path(SCAFFOLD_NAME).name):
        raise UsageError(f"--comment {value}: the patch changes {SCAFFOLD_NAME} only")
    last = len((subject.after or "").rstrip("\n").split("\n"))
    if not 1 <= int(line) <= last:
        raise UsageError(f"--comment {value}: {SCAFFOLD_NAME} has lines 1 to {last}")
    return SCAFFOLD_NAME, int(line)


# -- what is shown ------------------------------------------------------------------------------------------------


def _show(console: Console, subject: Subject, now: Standing) -> None:
    record, findings = subject.record, subject.findings
    tone = {"good": "bold green", "bad": "bold red", "open": "bold yellow"}[findings.tone]
    console.print(spelt(record.name), style="dim")
    console.print(findings.headline, style=tone)
    console.print(spelt(findings.verdict))
    if caveat := record.summary.get("caveat"):
        console.print(spelt(str(caveat)), style="italic")
    try:
        require_genuine(record.directory)
    except AgentError as error:
        console.print(f"Cannot be approved: {spelt(str(error))}", style="bold red")
    _print_gains(console, findings)
    console.print()
    console.print("Flags" if subject.flags else "No flags.", style="bold")
    for flag in subject.flags:
        where = f" (region line {flag.line})" if flag.line else ""
        style = {"stop": "bold red", "look": "yellow", "note": ""}[flag.weight]
        console.print(f"  {_MARKS[flag.weight]}: {flag.kind}: {spelt(flag.message)[:500]}{where}", style=style)
    console.print()
    console.print("Diff" if subject.diff else "No tested code to show.", style="bold")
    for line in subject.diff:
        console.print(spelt(line), style=_diff_style(line), soft_wrap=True)
    _print_reviews(console, now)


def _print_gains(console: Console, findings: Findings) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("task", "baseline", "submitted", "gain", "interval", "visible from"):
        table.add_column(heading, justify="left" if heading == "task" else "right", no_wrap=True)
    for kind, comparisons in (("visible", findings.visible), ("hidden", findings.hidden)):
        if comparisons:
            table.add_row(Text(kind, style="bold"))
        for task, one in _with_mean(comparisons):
            if one is None:
                table.add_row(Text(f"  {spelt(task)}"), "", "", "failed", "", "")
                continue
            low, high = (signed(bound, 2) for bound in one.ci)
            means = (
                (f"{one.baseline_mean:.2f}", f"{one.candidate_mean:.2f}") if isinstance(one, Comparison) else ("", "")
            )
            visible_from = f"{one.smallest_visible_effect:.2f}"
            table.add_row(Text(f"  {spelt(task)}"), *means, signed(one.gain, 2), f"{low} … {high}", visible_from)
    if table.row_count:
        console.print()
        console.print(table)


def _with_mean(comparisons: Comparisons) -> list[tuple[str, Comparison | Overall | None]]:
    rows: list[tuple[str, Comparison | Overall | None]] = list(comparisons.items())
    overall = overall_of(comparisons)
    if overall is not None and len(comparisons) > 1 and not overall.failed:
        rows.append(("mean", overall))
    return rows


def _diff_style(line: str) -> str:
    if line.startswith(("+++", "---")):
        return "bold"
    return {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")


def _print_reviews(console: Console, now: Standing) -> None:
    if now.reviews:
        console.print()
        console.print("Reviews", style="bold")
    for review in now.reviews:
        old = "" if now.concerns(review) else " (of another patch or log: no longer in force)"
        place = f" {review.file}:{review.line}" if review.file else ""
        when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(review.time))
        words = f"  {when} {spelt(review.author)}: {WORDS[review.kind]}{place}{old}"
        console.print(f"{words}{f': {spelt(review.message)}' if review.message else ''}")
    if now.dropped is not None:
        console.print("The patch or the log has changed since the last verdict: review it again.", style="bold yellow")


def _ask(directory: RunDirectory, subject: Subject) -> None:
    """The prompt on a terminal: one letter, and a reason where one is needed."""
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


def _as_json(directory: RunDirectory, subject: Subject) -> dict[str, Any]:
    now = standing(directory)
    return {
        "run": str(directory.path),
        "status": subject.record.status,
        "verdict": subject.findings.verdict,
        "headline": subject.findings.headline,
        "submitted_test": subject.record.submitted,
        "visible": tasks_json(subject.findings.visible),
        "hidden": tasks_json(subject.findings.hidden),
        "flags": [
            {"weight": flag.weight, "kind": flag.kind, "message": flag.message, "line": flag.line}
            for flag in subject.flags
        ],
        "diff": "\n".join(subject.diff),
        "patch_sha256": now.patch_sha256,
        "in_force": _in_force(now),
        "reviews": [review.as_json() for review in now.reviews],
    }


def _in_force(now: Standing) -> dict[str, Any] | None:
    verdict: Review | None = now.verdict
    return None if verdict is None else verdict.as_json()
