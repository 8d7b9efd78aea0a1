"""Does a run still say what happened? Log, git history, result files, summary and patch are held against each other."""

from __future__ import annotations

import itertools
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.clock import Clock
from agent.config import SearchConfig
from agent.errors import AgentError, RunDamaged, in_one_sentence
from agent.evaluation.evaluator import Candidate
from agent.evaluation.workbench import open_laboratory
from agent.progress import Progress
from agent.protocol import Accuracies
from agent.runs.artifacts import is_module_of
from agent.runs.directory import RunDirectory
from agent.runs.files import read_text, strangers
from agent.runs.log import (
    Confirmed,
    Ended,
    Evaluated,
    Event,
    Launch,
    Submitted,
    TestFinished,
    TestStarted,
    accuracies_by_role,
    read_events,
)
from agent.runs.status import RunStatus
from benchmark.results import EvaluationResult, region_sha256
from benchmark.store import ResultStore
from benchmark.tasks import get_profile
from sandbox.history import History
from sandbox.region import RegionError, split
from sandbox.workspace import WorkspaceError


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. `fault` is what does not fit, or None."""

    what: str
    fault: str | None = None


def verify(run: RunDirectory, *, execute: bool = False, progress: Progress | None = None) -> list[Check]:
    """Re-check everything that a run left behind; with `execute`, train one recorded evaluation again.

    A fault is a finding, not an exception: all checks are made, as far as they can be.
    """
    try:
        events = [record.event for record in read_events(run.events)]
    except (RunDamaged, OSError) as error:
        return [Check("the event log is unbroken", str(error))]
    checks = [Check("the event log is unbroken")]
    if not events or not isinstance(events[0], Launch):
        return [*checks, Check("the log begins with a launch", "it does not: nothing was started")]
    launch = events[0]
    checks += [
        _judge("git holds the regions that the log names", lambda: _git_faults(run, events)),
        _judge("each recorded accuracy has its result file", lambda: _result_faults(run, events)),
        _judge("the budget was kept", lambda: _budget_faults(launch, events)),
        _judge("the finalists were confirmed", lambda: _confirmation_faults(launch, events)),
        _judge("run.json agrees with the log", lambda: _summary_faults(run, launch, events)),
        _judge("the patch and the module are the submission", lambda: _artifact_faults(run, launch, events)),
    ]
    if found := list(itertools.islice(strangers(run.path), 5)):
        checks.append(Check("the run holds files and folders only", "; ".join(found)))
    if execute:
        checks.append(
            _judge("training again gives the same", lambda: _rerun_faults(run, launch, events, progress or Progress()))
        )
    return checks


_MISFITS = (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""What comes of values that have another type or size than a search writes."""


def _judge(what: str, faults: Callable[[], Iterator[str]]) -> Check:
    try:
        found = list(faults())
    except (AgentError, WorkspaceError, RegionError, OSError, *_MISFITS) as error:
        found = [f"cannot be checked: {in_one_sentence(error)}"]
    return Check(what, "; ".join(found) or None)


def _submission(events: list[Event]) -> Submitted | None:
    return next((event for event in events if isinstance(event, Submitted)), None)


def _git_faults(run: RunDirectory, events: list[Event]) -> Iterator[str]:
    history = History(run.workspace)
    yield from history.faults()
    for event in events:
        tag = None
        if isinstance(event, TestStarted):
            tag = f"test/{event.number}"
        elif isinstance(event, Submitted):
            tag = f"submit/{event.number}"
        if tag is not None and region_sha256(history.region_at(tag)) != event.region_sha256:  # type: ignore[union-attr]
            yield f"tag {tag} is another region than the log says"


def _result_faults(run: RunDirectory, events: list[Event]) -> Iterator[str]:
    visible, hidden = ResultStore(run.results), ResultStore(run.hidden)
    submitted = False
    for event in events:
        submitted = submitted or isinstance(event, Submitted)
        if not isinstance(event, Evaluated) or event.accuracy is None:
            continue
        name = f"{event.role} {event.task} seed {event.seed}"
        is_hidden = event.role.startswith("hidden/")
        if is_hidden and not submitted:
            yield f"{name} was run before the submission"
        result = (hidden if is_hidden else visible).get(event.key)
        if result is None:
            yield f"{name}: no valid result file {event.key[:12]}….json"
        elif result.best_test_acc != event.accuracy or result.best_test_acc != max(e.test_acc for e in result.curve):
            yield f"{name}: the log says {event.accuracy}, the result file {result.best_test_acc}"


def _budget_faults(launch: Launch, events: list[Event]) -> Iterator[str]:
    numbers = [event.number for event in events if isinstance(event, TestStarted)]
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"tests are numbered {numbers}"
    if len(numbers) > int(launch.config["budget"]):
        yield f"{len(numbers)} tests with a budget of {launch.config['budget']}"


def _summary_faults(run: RunDirectory, launch: Launch, events: list[Event]) -> Iterator[str]:
    summary = run.read_summary()
    status, submission = RunStatus.of(summary), _submission(events)
    # A search that was stopped has a log that is ahead of its summary.
    ongoing = status.resumable and status is not RunStatus.INFRA
    ends = [event.status for event in events if isinstance(event, Ended)]
    if ends[-1:] != [summary.get("status")] and not status.resumable and not status.waiting:
        recorded = f"says {ends[-1]}" if ends else "has no end"
        yield f"it says that the search ended ({summary.get('status')}), the log {recorded}"
    submitted = summary.get("submitted_test")
    if submitted != (submission.number if submission else None) and not (ongoing and submitted is None):
        yield f"it says that test {submitted} was submitted"
    finished = [event.number for event in events if isinstance(event, TestFinished)]
    roles = accuracies_by_role(events)
    # The search knew nothing of finalists whose trainings were cut off.
    confirmed = {number for event in events if isinstance(event, Confirmed) for number in event.tests}
    fresh = set(_confirmation_seeds(launch))
    expected = {
        (number, task, str(seed)): value  # as JSON has it
        for number in finished
        for task, seeds in roles.get(f"test/{number}", {}).items()
        for seed, value in seeds.items()
        if number in confirmed or seed not in fresh
    }
    known = {
        (test["number"], task, seed): value
        for test in summary.get("tests", [])
        for task, seeds in test["accuracies"].items()
        for seed, value in seeds.items()
    }
    if not (known.items() <= expected.items() if ongoing else known == expected):
        yield "its accuracies are not those of the log"
    if submission is not None:
        for kind, pair in (
            ("visible", ("baseline", f"test/{submission.number}")),
            ("hidden", ("hidden/baseline", "hidden/submission")),
        ):
            yield from _gain_faults(kind, summary.get(kind, {}), [roles.get(role, {}) for role in pair])


def _confirmation_seeds(launch: Launch) -> tuple[int, ...]:
    return SearchConfig.model_validate(launch.config).confirmation_seeds


def _confirmation_faults(launch: Launch, events: list[Event]) -> Iterator[str]:
    """What was submitted is what a confirmation chose, from finalists that were all trained with the fresh seeds."""
    seeds, submission = _confirmation_seeds(launch), _submission(events)
    told = [event for event in events if isinstance(event, Confirmed)]
    if not seeds and told:
        yield "there was one, and the search had not asked for it"
    if not seeds or submission is None:
        return
    if not told or told[-1].chosen != submission.number or submission.number not in told[-1].tests:
        yield f"test {submission.number} was submitted and is not what it chose"
    roles = accuracies_by_role(events)
    for event in told:
        if tuple(event.seeds) != seeds:
            yield f"its seeds are {event.seeds}, not {list(seeds)}"
        for role in ("baseline", *(f"test/{number}" for number in event.tests)):
            if any(set(seeds) - set(by_seed) for by_seed in roles.get(role, {"": {}}).values()):
                yield f"{role} was not trained with all of them"


def _gain_faults(kind: str, stated: dict[str, Any], sides: Sequence[Accuracies]) -> Iterator[str]:
    for task, numbers in stated.items():
        if numbers.get("gain") is None:
            continue
        before, after = (_mean(side.get(task, {})) for side in sides)
        if before is None or after is None:
            yield f"{kind} {task}: it states a result that the log does not have"
        elif abs(numbers["baseline"] - before) > 1e-9 or abs(numbers["submitted"] - after) > 1e-9:
            stated_pair = (numbers["baseline"], numbers["submitted"])
            yield f"{kind} {task}: it says {stated_pair}, the log {(before, after)}"


def _mean(seeds: Mapping[int, float | None]) -> float | None:
    known = [value for value in seeds.values() if value is not None]
    return sum(known) / len(known) if known else None


def _artifact_faults(run: RunDirectory, launch: Launch, events: list[Event]) -> Iterator[str]:
    submission = _submission(events)
    if submission is None:
        return
    with tempfile.TemporaryDirectory(prefix="initsearch-verify-") as folder:
        target = Path(folder) / "sandbox" / "custom_init.py"
        target.parent.mkdir()
        target.write_text(launch.scaffold, encoding="utf-8")
        patch = read_text(run.path, "submission.patch")
        applied = subprocess.run(["git", "apply"], input=patch, cwd=folder, capture_output=True, text=True, check=False)
        if applied.returncode:
            yield f"submission.patch does not apply: {applied.stderr.strip()}"
            return
        region = split(target.read_text(encoding="utf-8")).region
    if region_sha256(region) != submission.region_sha256:
        yield "submission.patch gives another region than was submitted"
    elif not is_module_of(read_text(run.path, "initialize_weights.py"), region):
        yield "initialize_weights.py is not the submitted function"


def _rerun_faults(run: RunDirectory, launch: Launch, events: list[Event], progress: Progress) -> Iterator[str]:
    """Train the submission (or the last test) on its first task with its first seed."""
    submission = _submission(events)
    last = submission.number if submission else max(e.number for e in events if isinstance(e, TestStarted))
    recorded = next(e for e in events if isinstance(e, Evaluated) and e.role == f"test/{last}")
    region = History(run.workspace).region_at(f"test/{last}")
    config = SearchConfig.model_validate({**launch.config, "isolation": "auto", "allow_unsandboxed": False})
    task = get_profile(launch.profile).task(recorded.task)
    with (
        tempfile.TemporaryDirectory(prefix="initsearch-verify-") as folder,
        open_laboratory(config, Clock(), progress) as laboratory,
    ):
        if laboratory.environment != launch.environment:
            yield f"not comparable: this machine is {laboratory.environment}, the run's was {launch.environment}"
            return
        outcomes = laboratory.evaluator.evaluate(
            [Candidate("again", region)], [task], [recorded.seed], keep=ResultStore(Path(folder))
        )
    outcome = outcomes["again", recorded.task, recorded.seed]
    again = outcome.best_test_acc if isinstance(outcome, EvaluationResult) else None
    if again != recorded.accuracy:
        yield f"{recorded.task} seed {recorded.seed}: recorded {recorded.accuracy}, now {again}"
