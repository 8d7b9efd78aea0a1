"""Writes the artifacts of a submission: the patch, and the function as a stand-alone module."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from agent.runs.directory import RunDirectory
from agent.runs.events import Launch, Submitted
from agent.runs.files import read_bytes
from agent.runs.log import chain, read_events
from agent.runs.stand_alone import stand_alone
from benchmark.files import write_atomically
from sandbox.diff import unified_diff
from sandbox.region import scaffold, split

PATCH, MODULE = "submission.patch", "initialize_weights.py"
VERSION, LOG = "Initsearch-Version", "Initsearch-Log"
"""Trailers of the patch: the version of this package; the SHA-256 of the log line with the submission."""
_NO_TRAILERS: Mapping[str, str] = {}


def write_artifacts(run: RunDirectory, region: str, number: int, measured: Sequence[str] = ()) -> None:
    """Write `submission.patch` and `initialize_weights.py` into the run directory.

    `measured` are the sentences about the gains. Writing again gives the same bytes, so a review stays valid.
    """
    for name, content in artifacts(run, run.path.name, region, number, measured).items():
        write_atomically(run.path / name, content)


def artifacts(run: RunDirectory, name: str, region: str, number: int, measured: Sequence[str] = ()) -> dict[str, bytes]:
    """File name → content. It depends only on the log, the region and the sentences; `name` is the run's."""
    return {
        PATCH: patch_text(run, name, region, number).encode(),
        MODULE: stand_alone(region, name, number, measured, **_against(run)).encode(),
    }


def _against(run: RunDirectory) -> dict[str, Any]:
    """What a user's own tasks were measured in and against; {} for our own, of which the defaults are true."""
    records = read_events(run.events) if run.has(run.events.name) else []
    launch = next((record.event for record in records if isinstance(record.event, Launch)), None)
    if launch is None or launch.tasks is None:
        return {}
    own = any(task.get("metric") for kind in ("visible", "hidden") for task in launch.tasks[kind])
    name = str(launch.tasks["baseline_name"])
    known = {"as_built": "the network as its own constructors make it", "kaiming_normal": "Kaiming initialisation"}
    units = {"units": "scores and gains in the metric of each task"} if own else {}
    return {**units, "baseline": known.get(name, f"the baseline {name}")}


def patch_text(run: RunDirectory, name: str, region: str, number: int) -> str:
    """The content of submission.patch. It contains no numbers, because the hidden ones come after its review.

    Its trailers are the version of this package and the hash of the log line that records the submission.
    """
    records = read_events(run.events) if run.has(run.events.name) else []
    hashes = chain(run.events)
    before = next((split(r.event.scaffold) for r in records if isinstance(r.event, Launch)), scaffold())
    at = next((record for record in reversed(records) if isinstance(record.event, Submitted)), None)
    trailers = {VERSION: version("initsearch")} | ({} if at is None else {LOG: hashes[at.seq]})
    diff = unified_diff(before.text, before.with_region(region).text)
    return mail(diff, name, number, when=time.time() if at is None else at.ts, trailers=trailers)


def mail(diff: str, run: str, number: int, *, when: float, trailers: Mapping[str, str] = _NO_TRAILERS) -> str:
    """The diff as a mail for `git am`, dated `when` (seconds since the epoch), with git trailers."""
    last = "".join(f"{key}: {value}\n" for key, value in trailers.items())
    return (
        f"From {'0' * 40} Mon Sep 17 00:00:00 2001\n"
        "From: initsearch <initsearch@localhost>\n"
        f"Date: {email.utils.formatdate(when)}\n"
        f"Subject: [PATCH] Initialise weights as submitted by {run}, test {number}\n"
        "MIME-Version: 1.0\nContent-Type: text/plain; charset=UTF-8\nContent-Transfer-Encoding: 8bit\n\n"
        "What was measured, and what was not resolved: report.html and run.json of that run.\n"
        + (f"\n{last}" if last else "")
        + f"---\n{diff.rstrip(chr(10))}\n-- \ninitsearch\n"
    )


def trailers_of(run: RunDirectory) -> dict[str, str]:
    """The trailers VERSION and LOG of the patch on the disk; {} without a patch or for a patch of an old version."""
    try:
        head = read_bytes(run.path, PATCH).decode(errors="replace").partition("\n---\n")[0]
    except FileNotFoundError:
        return {}
    pairs = (line.partition(": ") for line in head.split("\n\n")[-1].split("\n"))
    return {key: value for key, _, value in pairs if key in (VERSION, LOG)}
