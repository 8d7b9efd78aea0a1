"""Reviewing a submission: what lies before a reviewer, and how a verdict is recorded; for terminal and browser."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.errors import UsageError
from agent.report import measured_network
from agent.report.findings import Findings, find
from agent.report.flags import Flag, raise_flags
from agent.runs.directory import RunDirectory
from agent.runs.record import RunRecord, read_run
from agent.runs.reviews import Kind, Review, Seen, add_review
from agent.studies.verify_artifacts import require_genuine
from sandbox.region import SCAFFOLD_NAME, RegionError, Scaffold, scaffold, split


@dataclass(frozen=True)
class Subject:
    """The run under review: record, numbers, flags, and the file before and after (None: no tested code)."""

    record: RunRecord
    findings: Findings
    flags: Sequence[Flag]
    before: str
    after: str | None
    first_line: int = 1
    """The line of the file where the region begins."""

    @property
    def diff(self) -> list[str]:
        """The unified diff of the whole file, without line ends."""
        if self.after is None:
            return []
        names = f"a/{SCAFFOLD_NAME}", f"b/{SCAFFOLD_NAME}"
        return list(difflib.unified_diff(self.before.split("\n"), self.after.split("\n"), *names, lineterm=""))

    @property
    def last_line(self) -> int:
        """The last line of the submitted file; 1 where there is none."""
        return len((self.after or "").rstrip("\n").split("\n"))


def look_at(directory: RunDirectory) -> Subject:
    """Read a run for review. Runs nothing; the networks' measurements are those of the report. Raises RunDamaged."""
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
        frame.prefix.count("\n") + 1,
    )


def _frame(record: RunRecord) -> Scaffold:
    """The scaffold of the run; this version's if the run has none."""
    launch = record.launch
    try:
        return split(str(launch.get("scaffold")))
    except RegionError:
        return scaffold()


def place(value: str, subject: Subject) -> tuple[str, int]:
    """FILE:LINE of a comment; the line must exist in the submitted file. Raises UsageError."""
    file, _, line = value.rpartition(":")
    if not re.fullmatch(r"[0-9]{1,6}", line) or not file:
        raise UsageError(f"--comment {value}: expected FILE:LINE, such as {SCAFFOLD_NAME}:40")
    if file not in (SCAFFOLD_NAME, Path(SCAFFOLD_NAME).name):
        raise UsageError(f"--comment {value}: the patch changes {SCAFFOLD_NAME} only")
    if not 1 <= int(line) <= subject.last_line:
        raise UsageError(f"--comment {value}: {SCAFFOLD_NAME} has lines 1 to {subject.last_line}")
    return SCAFFOLD_NAME, int(line)


def record_review(
    directory: RunDirectory,
    subject: Subject,
    kind: Kind,
    message: str,
    *,
    where: tuple[str, int] | None = None,
    key: Path | None = None,
    by: str | None = None,
    seen: Seen | None = None,
) -> Review:
    """Record a verdict or a comment. An approval needs files that are what the log says.

    `by` is the reviewer, if not git's user. `seen` is what the reviewer had before them. Raises UsageError, Rejected,
    RunDamaged.
    """
    if kind == "approve":
        require_genuine(directory)
    file, line = where or (None, None)
    test = subject.findings.subject
    return add_review(directory, kind, message, test=test, file=file, line=line, key=key, by=by, seen=seen)
