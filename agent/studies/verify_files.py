"""Compares the files that people read with the log: run.json, the page, network.json, the reviews and their anchors."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.analysis.openness import caveat
from agent.config import SearchConfig
from agent.engine.summary import tasks_as_json
from agent.profiles import recorded_profile
from agent.runs.artifacts import LOG, PATCH, trailers_of
from agent.runs.directory import RunDirectory
from agent.runs.events import Ended, Event, Launch, Submitted
from agent.runs.files import read_object, read_text
from agent.runs.log_lines import Fields
from agent.runs.record import RunRecord
from agent.runs.reviews import WORDS, breaks, standing
from agent.runs.signing import examine
from agent.runs.status import RunStatus
from agent.runs.untrusted import mapping
from agent.studies.verify_artifacts import ONGOING, is_ours, run_name, submission, summary_of
from benchmark.results import region_sha256
from sandbox.region import split


@dataclass(frozen=True)
class Check:
    """The result of one check: `fault` is what differs, `unproven` what cannot be verified from the files."""

    what: str
    fault: str | None = None
    unproven: str | None = None
    note: str | None = None

    @property
    def verdict(self) -> str:
        """`ok`, `differs` or `not_verifiable`."""
        if self.fault is not None:
            return "differs"
        return "ok" if self.unproven is None else "not_verifiable"

    @property
    def detail(self) -> str:
        """Fault, unproven and note in one text; "" when there are none."""
        return "; ".join(filter(None, (self.fault, self.unproven, self.note)))


@dataclass(frozen=True)
class Unproven:
    """A finding about something that cannot be made again from the log."""

    why: str


@dataclass(frozen=True)
class Noted:
    """A finding that holds, and that a person should weigh."""

    what: str


Finding = str | Unproven | Noted
"""A sentence about what differs, what cannot be verified, or what was found to hold."""
_MOST_DIFFERENCES = 6
_STATISTICS = {"ci", "shrunk_gain", "p_better", "smallest_visible_effect", "resolved", "generalisation", "words",
               "would_have_claimed", "caveat", "tasks"}  # fmt: skip
"""Fields that another version of the package may have computed or worded differently from the same numbers."""


def differences(path: str, stated: object, expected: object, *, tolerance: float = 1e-9) -> Iterator[str]:
    """Sentences about where two JSON values differ, by path. Numbers may differ by `tolerance`, relative above 1."""
    if isinstance(stated, dict) and isinstance(expected, dict):
        for name in {**expected, **stated}:
            pair = stated.get(name), expected.get(name)
            yield from differences(f"{path}.{name}" if path else str(name), *pair, tolerance=tolerance)
    elif isinstance(stated, list) and isinstance(expected, list) and len(stated) == len(expected):
        for index, pair in enumerate(zip(stated, expected, strict=True)):
            yield from differences(f"{path}[{index}]", *pair, tolerance=tolerance)
    elif not _same(stated, expected, tolerance):
        yield f"{path} is {_brief(stated)}, not {_brief(expected)}"


def _same(stated: object, expected: object, tolerance: float) -> bool:
    numbers = [value for value in (stated, expected) if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) == 2:
        both_nan = all(math.isnan(number) for number in numbers)
        return both_nan or math.isclose(*numbers, rel_tol=tolerance, abs_tol=tolerance)
    return type(stated) is type(expected) and stated == expected


def _brief(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:80]}…"


def summary_findings(run: RunDirectory, launch: Launch, events: Sequence[Event]) -> Iterator[Finding]:
    """Compare all fields of run.json that the log determines."""
    summary, ours = run.read_summary(), is_ours(run)
    status, ends = summary.get("status"), [event for event in events if isinstance(event, Ended)]
    # When a search was stopped, its log can be ahead of its summary.
    ongoing = status in ONGOING
    found = list(_launch_differences(summary, launch))
    if ends[-1:] and status != ends[-1].status and not ongoing:
        found.append(f"status says that the search ended ({status}), the log says {ends[-1].status}")
    elif not ends and not ongoing and status not in (RunStatus.INFRA, RunStatus.WAITING):
        found.append(f"status says that the search ended ({status}), the log has no end")
    elif status == RunStatus.WAITING and submission(events) is None:
        found.append("status says that a test was chosen, the log does not")
    stages = [summary_of(run, events)]
    if ongoing and ends:
        stages.append(summary_of(run, events, waiting=True))
    by_stage = [list(_outcome_differences(summary, stage, ends, ongoing)) for stage in stages]
    nearest = min(by_stage, key=len)
    found += nearest
    older = [fault for fault in found if not ours and _STATISTICS & set(re.split(r"[.\[ ]", fault))]
    faults = [fault for fault in found if fault not in older]
    yield from faults[:_MOST_DIFFERENCES]
    if len(faults) > _MOST_DIFFERENCES:
        yield f"and {len(faults) - _MOST_DIFFERENCES} more"
    if older:
        yield Unproven(f"intervals and words of another version: {'; '.join(older[:_MOST_DIFFERENCES])}")


def _launch_differences(summary: Fields, launch: Launch) -> Iterator[str]:
    config, profile = SearchConfig.model_validate(launch.config), recorded_profile(launch.profile, launch.tasks)
    evidence = mapping(summary.get("isolation"))
    expected: Fields = {
        "profile": launch.profile,
        "config": launch.config,
        "seeds": list(config.evaluation_seeds),
        "budget": config.budget,
        "null": config.null,
        "caveat": caveat(config.proposer, profile.caveat),
        "tasks": json.loads(json.dumps(tasks_as_json(profile))),
        "environment": launch.environment,
        "isolation_level": launch.isolation_level,
    }
    if "level" in evidence:
        expected["isolation"] = {**evidence, "level": launch.isolation_level}
    stated = {name: summary.get(name) for name in expected}
    yield from differences("", stated, expected)
    torch = mapping(summary.get("versions")).get("torch")
    # What pip says of a wheel may lack the local part that torch itself says, such as +cu130.
    if torch is not None and _public(torch) != _public(launch.environment.get("torch", torch)):
        yield f"versions.torch is {torch}, not {launch.environment['torch']}"


def _public(version: object) -> str:
    return str(version).partition("+")[0]


def _outcome_differences(summary: Fields, expected: Fields, ends: Sequence[Ended], ongoing: bool) -> Iterator[str]:
    """Compare the results in run.json. An ongoing search may lack all of them, or have fewer tests than its log."""
    expected = {name: value for name, value in expected.items() if name != "status"}
    for name in ("confirmed", "would_have_claimed"):
        expected.setdefault(name, None)
    if ongoing:
        tests = summary.get("tests")
        if isinstance(tests, list):  # only the tests that run.json has
            known = [_known(*pair) for pair in zip(tests, expected["tests"], strict=False)]
            expected |= {"tests": known, "tests_used": len(tests)}
        if summary.get("submitted_test") is None:
            expected = {name: expected[name] for name in ("tests", "tests_used")}
        expected = {name: value for name, value in expected.items() if name in summary}
    elif not ends and isinstance(summary.get("words"), list) and summary["words"]:
        # The first sentence says how the search ended. Before its end, the log does not have it.
        expected["words"] = [summary["words"][0], *expected["words"][1:]]
    stated = {name: summary.get(name) for name in expected}
    if ongoing and isinstance(stated.get("words"), list) and stated["words"] and "words" in expected:
        expected["words"] = [stated["words"][0], *expected["words"][1:]]
    yield from differences("", stated, expected)


def _known(stated: Fields, expected: Fields) -> Fields:
    """A test from the log, without the seeds that run.json does not have yet."""
    seeds = {task: mapping(mapping(stated.get("accuracies")).get(task)) for task in expected["accuracies"]}
    accuracies = {
        task: {seed: value for seed, value in by_seed.items() if seed in seeds[task]}
        for task, by_seed in expected["accuracies"].items()
    }
    return {**expected, "accuracies": accuracies}


def page_findings(record: RunRecord, *, fit: bool) -> Iterator[Finding]:
    """Check that report.html, except its date, is the page made from the other files, if these `fit` each other."""
    from agent.report import measured_network
    from agent.report.findings import find
    from agent.report.page import render

    run = record.directory
    try:
        page = read_text(run.path, "report.html")
    except FileNotFoundError:
        yield Unproven("there is no report.html")
        return
    if not fit:
        yield Unproven("not compared: the files that it shows do not fit each other")
        return
    if record.status in ONGOING:
        yield Unproven("the search has not ended: report.html may be older than its log")
        return
    findings = find(record)
    network, note = measured_network(record, findings, measure=False)
    if network is None and (reason := re.search(r"The networks could not be measured: [^<]*", page)):
        note = html.unescape(reason.group())
    expected = render(record, findings, network, note)
    names = run_name(run), record.name
    found, wanted = _undated(page, names), _undated(expected, names)
    if found == wanted:
        return
    line = next((n for n, (a, b) in enumerate(zip(found, wanted, strict=False), 1) if a != b), len(wanted))
    where = f"report.html is not what run.json, log and network.json give, from line {line} on"
    again = "agent report writes it again"
    yield f"{where}; {again}" if is_ours(run) else Unproven(f"{where}: another version may have written it; {again}")


def _undated(page: str, names: Sequence[str]) -> list[str]:
    page = re.sub(r"Written \d{4}-\d\d-\d\d \d\d:\d\d UTC by", "Written by", page)
    for name in names:
        page = page.replace(html.escape(name), "\0")
    return page.split("\n")


def network_findings(record: RunRecord, launch: Launch, events: Sequence[Event]) -> Iterator[Finding]:
    """Check that network.json belongs to the baseline and the submission, and is consistent."""
    final = submission(events)
    try:
        kept = read_object(record.directory.path, "network.json")
    except FileNotFoundError:
        yield Unproven("there is no network.json")
        return
    if final is None:
        yield Unproven("nothing submitted yet")
        return
    config, profile = SearchConfig.model_validate(launch.config), recorded_profile(launch.profile, launch.tasks)
    regions = {"baseline": region_sha256(split(launch.scaffold).region), "submission": final.region_sha256}
    yield from differences("regions", kept.get("regions"), regions)
    yield from differences("seed", kept.get("seed"), config.evaluation_seeds[0])
    names = [[task.name for task in tasks] for tasks in (profile.visible, profile.tasks)]
    if list(mapping(kept.get("tasks"))) not in names:
        yield f"its tasks are {', '.join(mapping(kept.get('tasks')))}"
    for task, roles in mapping(kept.get("tasks")).items():
        for role, network in mapping(roles).items():
            rows = mapping(network).get("parameters") or []
            shapes = {str(row.get("name")): row.get("shape") or [] for row in rows}
            for row in rows:
                if not _ratio_fits(row, shapes):
                    yield f"{task}, {role}, {row.get('name')}: kaiming_ratio does not follow from std and shape"
    yield Unproven("its numbers are not checked: needs measuring (--execute)")


def _ratio_fits(row: Fields, shapes: Mapping[str, list[int]]) -> bool:
    """Whether the ratio is the std over √(2 / fan_in), by the parameter's own shape, or else its layer's weight's."""
    ratio = row.get("kaiming_ratio")
    if ratio is None:
        return True
    name = str(row.get("name"))
    shape = shapes.get(name) or []
    if len(shape) < 2:
        shape = shapes.get(f"{name.rpartition('.')[0]}.weight") or []
    return len(shape) >= 2 and math.isclose(ratio, row["std"] / math.sqrt(2 / math.prod(shape[1:])), rel_tol=1e-6)


def review_findings(run: RunDirectory, allowed: Path | None) -> Iterator[Finding]:
    """Check the hash chain of the reviews, and their signatures."""
    reviews = standing(run).reviews
    if not reviews:
        yield Unproven("nobody reviewed it, or reviews.jsonl was removed")
    yield from breaks(run)
    old = sum(review.previous is None for review in reviews)
    if old:
        yield Unproven(f"{old} of {len(reviews)} reviews are of an older version, whose lines were not chained")
    for review in reviews:
        if review.signature is not None:
            found = examine(review.signed_text, review.signature, allowed)
            name = f"{WORDS[review.kind]} by {review.author}"
            if found.fault is not None:
                yield f"{name}: {found.fault}"
            elif found.unproven is not None:
                yield Unproven(f"{name}: {found.unproven}")
            else:
                yield Noted(f"{name}: signed by {found.signer}")


def anchor_findings(run: RunDirectory, events: Sequence[Event], hashes: Sequence[str]) -> Iterator[Finding]:
    """Check that the hashes in the patch's trailer and in the reviews are hashes of this log."""
    at = next((index for index, event in enumerate(events) if isinstance(event, Submitted)), None)
    if at is None:
        yield Unproven("nothing submitted yet")
        return
    named = trailers_of(run).get(LOG)
    if named is not None and named != hashes[at]:
        yield f"{PATCH} was made from another log: it names {named[:12]}…, this one submits in {hashes[at][:12]}…"
    if named is None:
        yield Unproven(f"not anchored: {PATCH} names no log")
    for review in standing(run).reviews:
        name = f"{WORDS[review.kind]} by {review.author}"
        if review.log_sha256 is None:
            yield Unproven(f"not anchored: {name} names no log")
        elif review.log_sha256 not in hashes:
            yield f"{name}: it was about another log, whose head was {review.log_sha256[:12]}…"
