"""Where a session stands: budget, tests, baseline with noise, what may be done next. Imports nothing heavy."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from agent.analysis.openness import openness
from agent.errors import Rejected
from agent.protocol import Accuracies
from agent.runs.events import Confirmed, TestFinished, TestStarted, accuracies_by_role
from agent.runs.fold import Fold
from agent.runs.metrics import read_metric
from agent.runs.recorded_noise import Noise, noticeable, score_units, seed_sd
from agent.runs.status import RunStatus
from agent.sessions.session import Session
from benchmark.task import ACCURACY, Metric
from benchmark.tasks import is_task_file
from sandbox.region import sha256


@dataclass(frozen=True)
class TaskBaseline:
    """The baseline on one task: percent, or the task's metric; `noise_sd` is the standard deviation from seed to seed.

    It is the one that the run's comparisons rely on. Differences of one test below `noticeable` (two standard errors)
    cannot be told from chance. Both are in points, or in the metric, and None where no noise is known.
    """

    mean: float
    seeds: Mapping[int, float]
    noise_sd: float | None
    noticeable: float | None
    metric: str = ACCURACY.name
    direction: Literal["maximize", "minimize"] = ACCURACY.direction

    @property
    def score(self) -> Metric:
        """What `mean` is."""
        return Metric(self.metric, self.direction)


@dataclass(frozen=True)
class TestStatus:
    """A test. `mean` over tasks and seeds in percent, `gain` over the baseline in points; both None if it failed.

    Or in the tasks' metric. Where their metrics differ, `mean` is None and `gain` in the session's unit.
    """

    __test__ = False

    number: int
    status: str
    """`ok`, `failed` or `running`."""
    accuracies: Accuracies
    mean: float | None
    gain: float | None
    region_sha256: str


@dataclass(frozen=True)
class SessionStatus:
    """What `agent session status` prints; `next` are commands that may be given now."""

    session: str | None
    run: str
    kind: str
    """`open`: whoever edits has a shell. `closed`: only tools over MCP."""
    state: str
    """`ready`, `running`, `unfinished` (the next command goes on with it), `waiting_for_review` or `ended`."""
    status: str
    """The run's status, as in run.json."""
    profile: str
    budget: int
    tests_used: int
    tests_left: int
    tests: tuple[TestStatus, ...]
    highest: int | None
    """Number of the test with the highest mean gain. The verdict may prefer another one, for its intervals."""
    baseline: Mapping[str, TaskBaseline]
    """Task → accuracies; empty before it was measured."""
    running: str | None
    file: str | None
    """`recorded`, `changed` since the last command, `refused` for a change outside the region; None without a file."""
    submitted: int | None
    next: tuple[str, ...]
    unit: str = ACCURACY.points
    """Of the gains: `points`, the tasks' metric, or where they differ `seed SD` or `× baseline`."""

    def as_json(self) -> dict[str, Any]:
        """The object that --json prints. Metrics and unit stand in it where they are not accuracy and points."""
        found = {"event": "status", **asdict(self)}
        for name, base in self.baseline.items():
            if base.score.is_accuracy:
                del found["baseline"][name]["metric"], found["baseline"][name]["direction"]
        if self.unit == ACCURACY.points:
            del found["unit"]
        return found


def session_status(session: Session) -> SessionStatus:
    """Read the log and the file. Takes no lock. Raises RunDamaged."""
    summary = session.run.read_summary()
    status = RunStatus.of(summary)
    folded = session.fold()
    config = summary.get("config", {})
    budget, seeds = int(config.get("budget", 0)), int(config.get("seeds", 1))
    profile = str(summary.get("profile"))
    measured: Accuracies = accuracies_by_role(folded.baseline).get("baseline", {})
    noise = session.noise()
    metrics = {str(one.get("name")): read_metric(one.get("metric")) for one in _visible(summary)}
    units, unit = score_units(profile, noise, {task: metrics.get(task, ACCURACY) for task in measured}, measured)
    tests = _tests(folded, measured, metrics, units)
    submission = folded.submission
    submitted = submission.number if submission is not None else summary.get("submitted_test")
    running = session.running(folded)
    state = "ended" if status.finished else "waiting_for_review" if status.waiting else "ready"
    if running is not None:
        state = "running" if session.run.is_held else "unfinished"
    ok = [test for test in tests if test.gain is not None]
    highest = max(ok, key=lambda test: test.gain or -math.inf).number if ok else None
    return SessionStatus(
        session=None if session.folder is None else str(session.folder.path),
        run=str(session.run.path),
        kind=openness(config.get("proposer")) or "open",
        state=state,
        status=str(status),
        profile=profile,
        budget=budget,
        tests_used=len(tests),
        tests_left=budget - len(tests),
        tests=tests,
        highest=highest,
        baseline={
            task: _baseline(profile, noise, task, metrics.get(task, ACCURACY), values, seeds)
            for task, values in measured.items()
        },
        running=None if running is None else running.text,
        file=_file(session, folded),
        submitted=submitted if isinstance(submitted, int) else None,
        next=_next(session, config, state, budget - len(tests), highest),
        unit=unit,
    )


def _visible(summary: Mapping[str, Any]) -> list[Any]:
    return list(summary.get("tasks", {}).get("visible", []))


def _tests(
    folded: Fold, baseline: Accuracies, metrics: Mapping[str, Metric], units: Mapping[str, float]
) -> tuple[TestStatus, ...]:
    events = [event for call in folded.calls for event in call.inner] + list(folded.inner)
    finished = {event.number: event for event in events if isinstance(event, TestFinished)}
    confirmed = accuracies_by_role(events) if any(isinstance(event, Confirmed) for event in events) else {}
    found = []
    for event in events:
        if not isinstance(event, TestStarted):
            continue
        end = finished.get(event.number)
        accuracies: Accuracies = {} if end is None else confirmed.get(f"test/{event.number}", end.accuracies)
        gains = _means(accuracies, baseline, metrics, units)
        status = "running" if end is None else end.status
        usable = status == "ok" and gains is not None
        mean, gain = gains if usable and gains is not None else (None, None)
        found.append(TestStatus(event.number, status, accuracies, mean, gain, event.region_sha256))
    return tuple(found)


def _means(
    accuracies: Accuracies, baseline: Accuracies, metrics: Mapping[str, Metric], units: Mapping[str, float]
) -> tuple[float | None, float] | None:
    """Mean score over tasks and seeds, and mean gain on seeds that the baseline has too; None if any is missing.

    With `units`, the tasks' metrics differ: there is no mean score, and gains are divided by them.
    """
    means, gains = [], []
    for task, seeds in accuracies.items():
        sign = metrics.get(task, ACCURACY).sign
        values = [value for value in seeds.values() if value is not None]
        pairs = [(value, baseline.get(task, {}).get(seed)) for seed, value in seeds.items()]
        differences = [sign * (value - base) for value, base in pairs if value is not None and base is not None]
        if len(values) < len(seeds) or not differences:
            return None
        means.append(sum(values) / len(values))
        gains.append(sum(differences) / len(differences) / units.get(task, 1.0))
    if not means:
        return None
    return None if units else sum(means) / len(means), sum(gains) / len(gains)


def _baseline(
    profile: str, noise: Noise | None, task: str, metric: Metric, values: Mapping[int, float | None], seeds: int
) -> TaskBaseline:
    known = {seed: value for seed, value in values.items() if value is not None}
    sd = seed_sd(profile, noise, task, known)
    mean = sum(known.values()) / len(known) if known else math.nan
    least = None if sd is None else _rounded(noticeable(sd, len(known), seeds))
    return TaskBaseline(mean, known, None if sd is None else _rounded(sd), least, metric.name, metric.direction)


def _rounded(value: float) -> float:
    """Three digits after the point, or three that count."""
    return round(value, 3 if value >= 0.01 or value <= 0 else 2 - math.floor(math.log10(value)))


def _file(session: Session, folded: Fold) -> str | None:
    if session.folder is None:
        return None
    recorded = folded.calls[-1].reply.region_sha256 if folded.calls else sha256(folded.start)
    try:
        return "recorded" if sha256(session.folder.region()) == recorded else "changed"
    except Rejected:
        return "refused"


def _next(session: Session, config: Mapping[str, Any], state: str, left: int, highest: int | None) -> tuple[str, ...]:
    own = session.folder is not None and is_task_file(str(config.get("profile")))
    again = f" --profile {shlex.quote(config['profile'])}" if own else ""
    if state == "ended":
        return (f"agent show {session.run.path}",)
    if state == "waiting_for_review":
        return (f"agent review {session.run.path}", f"agent submit {session.run.path}")
    if state in ("running", "unfinished"):
        return (f"agent session wait{again}",)
    words = ["agent session check", f"agent session test{again}"] if left > 0 else []
    words += [f"agent session screen FILE{again}"] if config.get("screen") and left > 0 else []
    return (*words, *([f"agent session submit {highest}{again}"] if highest is not None else []))


def status_lines(found: SessionStatus) -> list[str]:
    """The status for people."""
    lines = [
        f"session {found.session or '(no folder)'}, {found.kind}; run {found.run}",
        f"{found.state}; {found.tests_used} of {found.budget} tests used, {found.tests_left} left"
        + (f"; test #{found.submitted} was submitted" if found.submitted is not None else ""),
    ]
    lines += [found.running] if found.running else []
    if not found.baseline:
        lines.append("baseline: not measured yet")
    for task, base in found.baseline.items():
        noise = "how far another seed moves it is not known"
        if base.noise_sd is not None and base.noticeable is not None:
            noise = (
                f"another seed moves it by about {base.noise_sd:.2g} {base.score.points}, so a gain below "
                f"{base.noticeable:.2g} {base.score.points} cannot be told from chance"
            )
        lines.append(f"baseline {task}: {base.score.shown(base.mean)}; {noise}")
    for test in found.tests:
        parts = [f"{task} {_list(seeds, found.baseline[task].score)}" for task, seeds in test.accuracies.items()]
        gain = "" if test.gain is None else f", mean gain {_gain(test.gain, found.unit)}"
        lines.append(f"test #{test.number}: {test.status}{gain}{': ' if parts else ''}{'; '.join(parts)}")
    if found.file is not None:
        lines.append(
            {
                "recorded": "file: as last recorded",
                "changed": "file: changed since the last command",
                "refused": "file: changed outside the region, which is refused; agent session restore gives it back",
            }[found.file]
        )
    return lines


def _gain(gain: float, unit: str) -> str:
    """Points need no unit here, as before there were others."""
    return ACCURACY.text(gain, sign=True) if unit == ACCURACY.points else f"{Metric(unit).text(gain, sign=True)} {unit}"


def _list(seeds: Mapping[int, float | None], metric: Metric) -> str:
    return ", ".join("failed" if value is None else metric.shown(value) for value in seeds.values())
