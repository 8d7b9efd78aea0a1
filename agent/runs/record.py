"""Reads a run directory, even a damaged, unfinished or old one, and records what could not be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agent.errors import in_one_sentence
from agent.profiles import recorded_profile
from agent.runs.directory import RunDirectory
from agent.runs.log import MAX_LOG_BYTES
from agent.runs.log_lines import SCHEMA, Fields, exchanges, read_lines, torn
from agent.runs.metrics import task_metrics
from agent.runs.state import RunState, state_of
from agent.runs.untrusted import mapping, mappings, number, text, whole
from benchmark.files import read_plain
from benchmark.results import EvaluationResult, region_sha256
from benchmark.store import ResultStore
from benchmark.task import Metric
from benchmark.tasks import Profile
from sandbox.history import History
from sandbox.region import RegionError, scaffold, split
from sandbox.workspace import WorkspaceError

SUMMARY_SCHEMA = 1
_LONGEST_NAME = 200
"""Longest task name in characters. The name stands in every table and figure."""


@dataclass(frozen=True)
class Evaluation:
    """One `evaluated` event. Accuracy is in percent; None when the candidate failed or the number is not finite."""

    role: str
    task: str
    seed: int
    key: str
    accuracy: float | None
    failure: str | None
    cached: bool
    seconds: float
    place: str = ""
    """The machine that trained it; "" for the one on which the search ran."""
    attempts: int = 1


@dataclass(frozen=True)
class ToolStep:
    """One tool call with the proposals before it and its reply. All texts are untrusted."""

    number: int
    tool: str
    arguments: Fields
    thoughts: tuple[Fields, ...] = ()
    reply: str | None = None
    ok: bool | None = None
    error: str | None = None
    seconds: float | None = None
    """Wall time from call to reply."""


@dataclass(frozen=True)
class RunRecord:
    """A run as far as it can be read. `problems` are sentences about what could not be read."""

    directory: RunDirectory
    summary: Fields
    events: tuple[Fields, ...]
    evaluations: tuple[Evaluation, ...]
    steps: tuple[ToolStep, ...]
    results: Mapping[str, EvaluationResult]
    baseline_region: str
    regions: Mapping[int, str]
    """Test number → tested region, if the workspace still has it."""
    submitted: int | None
    metrics: Mapping[str, Metric]
    """Task → what its score is, as the log says; a task that is not in it has an accuracy."""
    problems: tuple[str, ...] = field(default=())
    held: bool = False
    """Whether a process works on the run at this moment."""

    @property
    def state(self) -> RunState:
        """How far the run is."""
        return state_of(self.summary, self.events, held=self.held)

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        return self.directory.path.name

    @property
    def profile(self) -> str:
        """The profile's name; "" when it is not known."""
        return text(self.summary.get("profile"))

    @property
    def hides(self) -> bool:
        """Whether the run has a hidden task; a task file need not have one."""
        return mapping(self.summary.get("tasks")).get("hidden") != []

    def own_profile(self) -> Profile:
        """The profile by its name or, of a user's tasks, by the log. Raises ValueError."""
        tasks = self.launch.get("tasks")
        return recorded_profile(self.profile, tasks if isinstance(tasks, dict) else None)

    @property
    def status(self) -> str:
        """The status in run.json, or `unknown`."""
        return text(self.summary.get("status")) or "unknown"

    @property
    def isolation(self) -> str:
        """The isolation level of candidates; "" when it is not known."""
        return text(self.summary.get("isolation_level") or self.launch.get("isolation_level"))

    @property
    def launch(self) -> Fields:
        """The event with which a search begins; {} for a log without one."""
        return _launch(self.events)

    def of_kind(self, kind: str) -> Iterator[Fields]:
        """The events of one kind, in order."""
        return (event for event in self.events if event.get("kind") == kind)

    def tasks(self, kind: str) -> list[Fields]:
        """The `visible` or `hidden` tasks of run.json: name, arch, dataset, recipe."""
        found = mappings(mapping(self.summary.get("tasks")).get(kind))
        return [{**task, "name": text(task["name"])[:_LONGEST_NAME]} for task in found if task.get("name")]

    def accuracies(self, role: str) -> dict[str, dict[int, float | None]]:
        """Task → seed → accuracy of one role."""
        table: dict[str, dict[int, float | None]] = {}
        for evaluation in self.evaluations:
            if evaluation.role == role:
                table.setdefault(evaluation.task, {})[evaluation.seed] = evaluation.accuracy
        return table

    def curves(self, role: str, task: str) -> list[EvaluationResult]:
        """The results of one role on one task that have a learning curve, by seed."""
        evaluations = (found for found in self.evaluations if (found.role, found.task) == (role, task))
        keys = {evaluation.seed: evaluation.key for evaluation in evaluations}
        return [self.results[key] for _, key in sorted(keys.items()) if key in self.results]


def read_run(directory: RunDirectory) -> RunRecord:
    """Read a run directory. Raises RunDamaged only when there is no readable run.json."""
    problems: list[str] = []
    held = directory.is_held  # before the rest is read: a run that ends meanwhile is shown as ended
    summary = directory.read_raw_summary()
    if summary.get("schema") != SUMMARY_SCHEMA:
        problems.append(f"run.json has schema {summary.get('schema')!r}; this version knows {SUMMARY_SCHEMA}.")
    events = _read_events(directory.events, problems)
    evaluations = tuple(_evaluation(event) for event in events if event.get("kind") == "evaluated")
    submitted = [whole(event.get("number")) for event in events if event.get("kind") == "submitted"]
    number = submitted[-1] if submitted else whole(summary.get("submitted_test"))
    baseline, regions = _read_regions(directory, events, problems)
    metrics = _metrics(summary, events, problems)
    return RunRecord(
        directory=directory,
        summary=summary,
        events=events,
        evaluations=evaluations,
        steps=tuple(_steps(events)),
        results=_read_results(directory, evaluations, problems),
        baseline_region=baseline,
        regions=regions,
        submitted=number,
        metrics=metrics,
        problems=tuple(problems),
        held=held,
    )


def _metrics(summary: Fields, events: tuple[Fields, ...], problems: list[str]) -> Mapping[str, Metric]:
    """The metrics of a user's own tasks; {} for a built-in profile. Of a log that cannot be read run.json says them."""
    tasks = _launch(events).get("tasks")
    if isinstance(tasks, dict):
        try:
            return recorded_profile(text(summary.get("profile")), tasks).metrics
        except ValueError as error:
            problems.append(f"The log's tasks cannot be read: {in_one_sentence(error)[:200]}.")
            return task_metrics(summary)
    return {} if events else task_metrics(summary)


def _read_events(path: Path, problems: list[str]) -> tuple[Fields, ...]:
    try:
        data = read_plain(path.parent, path.name, limit=MAX_LOG_BYTES)
    except FileNotFoundError:
        problems.append("There is no event log: the run was stopped before it began, or events.jsonl was removed.")
        return ()
    except OSError as error:
        problems.append(f"The event log cannot be read: {error}")
        return ()
    if torn(data):
        problems.append("The last line of the event log is cut short, as after a crash; it is left out.")
    events: list[Fields] = []
    for line in read_lines(data):
        if line.fault is not None:
            problems.append(
                f"Line {line.number} of the event log cannot be read ({line.fault}); what follows it is left out."
            )
            break
        if not line.follows:
            problems.append(f"Line {line.number} of the event log does not follow the one before: the log was edited.")
        events.append(line.fields)
    schemas = {text(event.get("schema")) for event in events}
    if others := sorted(schemas - {str(SCHEMA)}):
        problems.append(
            f"The event log has schema {', '.join(others)}; this version knows {SCHEMA}. Parts may be missing."
        )
    return tuple(events)


def _evaluation(event: Fields) -> Evaluation:
    return Evaluation(
        role=text(event.get("role")),
        task=text(event.get("task"))[:_LONGEST_NAME],
        seed=whole(event.get("seed")) or 0,
        key=text(event.get("key")),
        accuracy=number(event.get("accuracy")),
        failure=None if event.get("failure") is None else text(event["failure"]),
        cached=event.get("cached") is True,
        seconds=number(event.get("seconds")) or 0.0,
        place=text(event.get("place"))[:_LONGEST_NAME],
        attempts=whole(event.get("attempts")) or 1,
    )


def _steps(events: tuple[Fields, ...]) -> Iterator[ToolStep]:
    for exchange in exchanges(events):
        if (call := exchange.call) is None:
            continue
        reply = exchange.reply or {}
        begun, ended = number(call.get("ts")), number(reply.get("ts"))
        yield ToolStep(
            number=whole(call.get("step")) or 0,
            tool=text(call.get("tool")),
            arguments=mapping(call.get("arguments")),
            thoughts=tuple(mapping(proposal.get("content")) for proposal in exchange.proposals),
            reply=None if reply.get("reply") is None else text(reply["reply"]),
            ok=reply.get("ok"),
            error=None if reply.get("error") is None else text(reply["error"]),
            seconds=ended - begun if begun is not None and ended is not None else None,
        )


def _read_results(
    directory: RunDirectory, evaluations: tuple[Evaluation, ...], problems: list[str]
) -> dict[str, EvaluationResult]:
    stores = {False: ResultStore(directory.results), True: ResultStore(directory.hidden)}
    found: dict[str, EvaluationResult] = {}
    missing = 0
    for evaluation in evaluations:
        result = stores[evaluation.role.startswith("hidden/")].get(evaluation.key)
        if result is not None:
            found[evaluation.key] = result
        elif evaluation.failure is None:
            missing += 1
    if missing:
        problems.append(
            f"{missing} of {len(evaluations)} results are missing or damaged: their curves cannot be drawn."
        )
    return found


def _read_regions(
    directory: RunDirectory, events: tuple[Fields, ...], problems: list[str]
) -> tuple[str, dict[int, str]]:
    """The regions of the baseline and of each test, from git, compared with the hashes in the log."""
    tests = {
        whole(event.get("number")): text(event.get("region_sha256"))
        for event in events
        if event.get("kind") == "test_started"
    }
    baseline = _recorded_baseline(events)
    regions: dict[int, str] = {}
    if not directory.has("workspace"):
        problems.append("There is no workspace: the code of the tests cannot be shown.")
        return baseline or scaffold().region, regions
    try:
        history = History(directory.workspace)
        baseline = _region_at(history, "baseline") or baseline
        for test, digest in tests.items():
            region = None if test is None else _region_at(history, f"test/{test}")
            if region is None:
                problems.append(f"The code of test {test} is not in the workspace.")
            elif region_sha256(region) != digest:
                problems.append(f"The code of test {test} is not what was tested: its hash differs from the log's.")
            elif test is not None:
                regions[test] = region
    except (WorkspaceError, OSError) as error:
        problems.append(f"The workspace cannot be read: {error}")
    return baseline or scaffold().region, regions


def _region_at(history: History, tag: str) -> str | None:
    try:
        return history.region_at(f"refs/tags/{tag}")
    except (WorkspaceError, RegionError):
        return None


def _launch(events: tuple[Fields, ...]) -> Fields:
    return next((event for event in events if event.get("kind") == "launch"), {})


def _recorded_baseline(events: tuple[Fields, ...]) -> str | None:
    try:
        return split(text(_launch(events).get("scaffold"))).region
    except RegionError:
        return None
