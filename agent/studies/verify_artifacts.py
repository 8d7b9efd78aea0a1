"""Makes a run's summary, patch and module again from its log, and compares them with the run directory."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from agent.analysis.confirming import pooled
from agent.analysis.look_scores import look_scores
from agent.config import SearchConfig
from agent.engine.loop import End
from agent.engine.outcome import conclude, tests_as_json
from agent.errors import Rejected, RunDamaged, in_one_sentence
from agent.profiles import recorded_profile
from agent.protocol import Accuracies, TestOutcome
from agent.runs.artifacts import MODULE, PATCH, VERSION, artifacts, trailers_of
from agent.runs.directory import RunDirectory
from agent.runs.events import (
    Confirmed,
    Ended,
    Event,
    Launch,
    Screened,
    Submitted,
    TestFinished,
    TestStarted,
    accuracies_by_role,
)
from agent.runs.files import read_bytes
from agent.runs.log import read_events
from agent.runs.patch_effect import effect_fault
from agent.runs.recorded_noise import Noise, of_log
from agent.runs.stand_alone import stand_alone
from agent.runs.status import RunStatus
from benchmark.results import region_sha256
from benchmark.tasks import Profile
from sandbox.history import History
from sandbox.region import RegionError, split
from sandbox.workspace import WorkspaceError

ONGOING = (RunStatus.RUNNING, RunStatus.SESSION, RunStatus.INTERRUPTED, RunStatus.FAILED)
"""In these states the log may be ahead of run.json, and the artifacts may not be written yet."""


@dataclass(frozen=True)
class FromLog:
    """The results of a search at its end (see `agent.engine.outcome.Evidence`), read from its log."""

    baseline: Accuracies
    tests: tuple[TestOutcome, ...]
    ran: tuple[int, ...]
    submitted: int | None
    confirmed: tuple[int, ...]
    look_scores: Mapping[str, float] = field(default_factory=dict)
    noise: Noise | None = None


@dataclass(frozen=True)
class Mismatch:
    """Faults of a patch or a module, and sentences about what could not be checked (`unproven`)."""

    faults: tuple[str, ...] = ()
    unproven: tuple[str, ...] = ()


def submission(events: Sequence[Event]) -> Submitted | None:
    """The event that submitted a test, if there is one."""
    return next((event for event in events if isinstance(event, Submitted)), None)


def from_log(events: Sequence[Event], config: SearchConfig, profile: Profile) -> FromLog:
    """Read the results from the log. A test has its fresh seeds only if its confirmation finished."""
    roles, fresh = accuracies_by_role(events), set(config.confirmation_seeds)
    confirmations = [event for event in events if isinstance(event, Confirmed)]
    confirmed = tuple(confirmations[-1].tests) if confirmations else ()
    digests = {event.number: event.region_sha256 for event in events if isinstance(event, TestStarted)}
    finished = [event for event in events if isinstance(event, TestFinished)]
    looks = [(event.region_sha256, event.rung, event.loss) for event in events if isinstance(event, Screened)]
    final = submission(events)
    lower = frozenset(task.name for task in profile.visible if task.metric.sign < 0)

    def known(role: str, *, with_fresh: bool) -> Accuracies:
        by_task = roles.get(role, {})
        first = {t: {s: v for s, v in by.items() if s not in fresh} for t, by in by_task.items()}
        return pooled(first, by_task) if with_fresh else first

    return FromLog(
        baseline=known("baseline", with_fresh=bool(confirmations)),
        tests=tuple(
            TestOutcome(
                event.number,
                known(f"test/{event.number}", with_fresh=event.number in confirmed),
                digests[event.number],
                lower,
            )
            for event in finished
        ),
        ran=tuple(event.number for event in finished if event.status == "ok"),
        submitted=None if final is None else final.number,
        confirmed=confirmed,
        look_scores=look_scores(looks) if config.screen else {},
        noise=of_log(next((event.noise for event in events if isinstance(event, Launch)), None), profile),
    )


def summary_of(run: RunDirectory, events: Sequence[Event], *, waiting: bool = False) -> dict[str, Any]:
    """The part of run.json that the log determines, as JSON values. `waiting`: as before the hidden task ran.

    Raises RunDamaged for a log that does not begin with a launch, ValueError for numbers that cannot be compared.
    """
    if not events or not isinstance(events[0], Launch):
        raise RunDamaged(f"{run.events} does not begin with a launch")
    launch = events[0]
    config, profile = SearchConfig.model_validate(launch.config), recorded_profile(launch.profile, launch.tasks)
    evidence = from_log(events, config, profile)
    ends = [event for event in events if isinstance(event, Ended)]
    roles = accuracies_by_role(events)
    hidden: dict[str, Accuracies] = {}
    if ends and evidence.submitted is not None and not waiting:
        hidden = {role: roles.get(role, {}) for role in ("hidden/baseline", "hidden/submission")}
    status = ends[-1].status if ends and not waiting else RunStatus.WAITING
    end = End(status, ends[-1].message if ends else "")  # type: ignore[arg-type]
    done, words = conclude(config, profile, run.path, end, evidence, hidden, {})
    outcome = {name: value for name, value in done.items() if name not in ("event", "run", "seconds")}
    whole: dict[str, Any] = json.loads(json.dumps({**outcome, "words": words, "tests": tests_as_json(evidence)}))
    return whole


def is_ours(run: RunDirectory) -> bool:
    """Whether run.json or the patch names this version of the package. Then all files must be byte-equal to ours."""
    return version("initsearch") in (
        trailers_of(run).get(VERSION),
        dict(run.read_summary().get("versions") or {}).get("initsearch"),
    )


def run_name(run: RunDirectory) -> str:
    """The original name of the run. run.json keeps it when the folder is moved."""
    return Path(str(run.read_summary().get("run") or run.path)).name


def submitted_region(run: RunDirectory, events: Sequence[Event]) -> str:
    """The submitted region from git, if it has the hash that is in the log. Raises RunDamaged, WorkspaceError."""
    final = submission(events)
    if final is None:
        raise RunDamaged(f"{run.path}: nothing was submitted")
    history = History(run.workspace)
    for tag in (f"test/{final.number}", f"submit/{final.number}"):
        region = history.region_at(tag)
        if region_sha256(region) == final.region_sha256:
            return region
    raise RunDamaged(f"{run.workspace}: test/{final.number} is another region than the log says was submitted")


def artifact_mismatch(
    run: RunDirectory, events: Sequence[Event] | None = None, *, trust_words: bool = False
) -> Mismatch:
    """Compare patch and module with those made from the log. Raises RunDamaged, WorkspaceError if that is impossible.

    With `trust_words` the module may have the sentences of run.json; then the caller checks these sentences.

    Files of this version must be byte-equal. For another version, the patch must give the submitted file by `git am`,
    and the module must have the same code and the same numbers in its docstring.
    """
    events = [record.event for record in read_events(run.events)] if events is None else events
    final = submission(events)
    if final is None:
        return Mismatch(unproven=("nothing submitted yet",))
    missing = [name for name in (PATCH, MODULE) if not run.has(name)]
    if len(missing) == 2 and run.read_summary().get("status") in ONGOING:
        return Mismatch(unproven=("not written yet: the search has not ended",))
    if missing:
        return Mismatch((f"{' and '.join(missing)} missing",))
    region, ours = submitted_region(run, events), is_ours(run)
    stages = [summary_of(run, events)]
    if run.read_summary().get("status") in ONGOING:
        stages.append(summary_of(run, events, waiting=True))
    if trust_words:
        stages.append({"words": [str(sentence) for sentence in run.read_summary().get("words") or [""]]})
    made = [artifacts(run, run_name(run), region, final.number, stage["words"][1:]) for stage in stages]
    found = {name: read_bytes(run.path, name) for name in (PATCH, MODULE)}
    faults, unproven = [], []
    for name, content in found.items():
        if any(content == files[name] for files in made):
            continue
        fault = None if ours else _other_version(run, events, name, content, made[0][name], region)
        if ours or fault:
            faults.append(fault or f"{name} is not what the log gives ({_first_difference(content, made[0][name])})")
        else:
            what = "what git am makes of it is right" if name == PATCH else "region and gains are right"
            unproven.append(f"{name} was written by another version: {what}, the rest is not verifiable")
    return Mismatch(tuple(faults), tuple(unproven))


def require_genuine(run: RunDirectory) -> None:
    """Raise Rejected when patch or module differs from the log, so that nobody approves changed files.

    Returns without a check when neither file exists. Raises RunDamaged.
    """
    if not run.has(PATCH) and not run.has(MODULE):
        return
    try:
        found = artifact_mismatch(run)
    except (WorkspaceError, RegionError, LookupError, TypeError, ValueError) as error:
        raise RunDamaged(
            f"{run.path}: what was submitted cannot be made again from the log: {in_one_sentence(error)}"
        ) from error
    if found.faults:
        raise Rejected(
            f"{run.path}: {'; '.join(found.faults)}; it was changed by hand. Restore it, or delete {PATCH} and {MODULE}"
        )


def _other_version(
    run: RunDirectory, events: Sequence[Event], name: str, content: bytes, expected: bytes, region: str
) -> str | None:
    if name == PATCH:
        assert isinstance(events[0], Launch)
        try:
            before = split(events[0].scaffold)
        except RegionError as error:
            return f"the log's scaffold has no region: {error}"
        fault = effect_fault(content, before.text, before.with_region(region).text)
        return None if fault is None else f"{PATCH}: {fault}"
    # All code must be equal to one of the forms. Only the sentences of the docstring may be worded differently.
    earlier = stand_alone(region, run_name(run), 0, adapted=False).encode()
    code = [text.partition(b'\n"""\n') for text in (content, expected, earlier)]
    if code[0][2] not in (code[1][2], code[2][2]):
        return f"{MODULE} is not the submitted function ({_first_difference(code[0][2], code[1][2])})"
    if not content.startswith(b'"""') or content.index(b'"""', 3) != len(code[0][0]) + 1 or b"\\" in code[0][0]:
        return f"{MODULE} does not begin with a docstring"
    assert isinstance(events[0], Launch)
    own = recorded_profile(events[0].profile, events[0].tasks).tasks if events[0].tasks is not None else ()
    units = ("%", *{task.metric.points for task in own}, "points")
    stated = [set(_numbers(text[0], units)) for text in code]
    if missing := sorted(stated[1] - stated[0]):
        return f"{MODULE} does not state {', '.join(missing)}, which the log gives"
    return None


def _numbers(text: bytes, units: Sequence[str]) -> Iterator[str]:
    """The gains and scores of a docstring: a number before one of the units, or after it (`val_loss 1.234`)."""
    words = text.decode(errors="replace").split()
    for word, after in itertools.pairwise(words):
        if after in units:
            yield f"{word} {after}"
        elif word in units[1:] and after.rstrip(",;").replace(".", "").isdigit():
            yield f"{word} {after.rstrip(',;')}"


def _first_difference(found: bytes, expected: bytes) -> str:
    """The first line that differs."""
    ours, theirs = expected.decode(errors="replace").split("\n"), found.decode(errors="replace").split("\n")
    for number, (line, wanted) in enumerate(zip(theirs, ours, strict=False), start=1):
        if line != wanted:
            return f"line {number} says {line[:80]!r}, not {wanted[:80]!r}"
    return f"it has {len(theirs)} lines, not {len(ours)}"
