"""Compares result files with the log: every field that the log, the profile or the key of the result determines."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from agent.config import SearchConfig
from agent.profiles import recorded_profile
from agent.runs.events import (
    Evaluated,
    Event,
    Launch,
    Screened,
    Submitted,
    TestFinished,
    TestStarted,
    accuracies_by_role,
)
from agent.runs.record import RunRecord
from agent.studies.verify_artifacts import is_ours, submission
from agent.studies.verify_files import Finding, Unproven
from benchmark.results import EvaluationResult, region_sha256, result_key
from benchmark.store import ResultStore
from benchmark.tasks import Profile
from sandbox.region import split


def result_findings(record: RunRecord, launch: Launch, events: Sequence[Event]) -> Iterator[Finding]:
    """Compare each `evaluated` event with its file, its key and its position in the run."""
    visible, hidden = ResultStore(record.directory.results), ResultStore(record.directory.hidden)
    profile, ours = recorded_profile(launch.profile, launch.tasks), is_ours(record.directory)
    regions, digests = _regions(record, launch, events), _digests(launch, events)
    submitted, other_keys = False, 0
    for event in events:
        submitted = submitted or isinstance(event, Submitted)
        if not isinstance(event, Evaluated):
            continue
        name, is_hidden = f"{event.role} {event.task} seed {event.seed}", event.role.startswith("hidden/")
        if is_hidden and not submitted:
            yield f"{name} was run before the submission"
        if event.task not in {task.name for task in (profile.hidden if is_hidden else profile.visible)}:
            yield f"{name}: the profile {launch.profile} has no such task"
            continue
        region = regions.get(event.role)
        if region is not None and not _key_fits(event, region, profile, launch):
            if ours:
                yield f"{name}: its key belongs to other code, another task, seed or machine"
            other_keys += 1
        if event.accuracy is None:
            if event.failure is None:
                yield f"{name}: neither an accuracy nor a failure"
            continue
        result = (hidden if is_hidden else visible).get(event.key)
        if result is None:
            yield f"{name}: no valid result file {event.key[:12]}….json"
            continue
        role = "/".join(event.role.split("/")[:2])
        for fault in _file_faults(event, result, launch, digests.get(role, set())):
            yield f"{name}: {fault}"
        if event.cached and result.isolation_level != launch.isolation_level:
            yield Unproven(f"{name}: from the store, and made at isolation level {result.isolation_level}")
    yield from _finished_faults(events, launch)
    if other_keys and not ours:
        yield Unproven(f"{other_keys} results have keys of another version")


def _regions(record: RunRecord, launch: Launch, events: Sequence[Event]) -> dict[str, str]:
    """Role → region, for roles whose region is known."""
    baseline = split(launch.scaffold).region
    found = {"baseline": baseline, "hidden/baseline": baseline}
    found |= {f"test/{number}": region for number, region in record.regions.items()}
    final = submission(events)
    if final is not None and final.number in record.regions:
        found["hidden/submission"] = record.regions[final.number]
    return found


def _digests(launch: Launch, events: Sequence[Event]) -> dict[str, set[str]]:
    """Role, or `screen/ROUND`, → hashes of its regions in the log. An interrupted round of looks has none."""
    baseline = region_sha256(split(launch.scaffold).region)
    found = {"baseline": {baseline}, "hidden/baseline": {baseline}}
    for event in events:
        if isinstance(event, Screened):
            found.setdefault(f"screen/{event.round}", set()).add(event.region_sha256)
        elif isinstance(event, TestStarted):
            found[f"test/{event.number}"] = {event.region_sha256}
        elif isinstance(event, Submitted):
            found["hidden/submission"] = {event.region_sha256}
    return found


def _key_fits(event: Evaluated, region: str, profile: Profile, launch: Launch) -> bool:
    key = result_key(region, profile.task(event.task), event.seed, environment=launch.environment)
    return key == event.key


def _file_faults(event: Evaluated, result: EvaluationResult, launch: Launch, digests: set[str]) -> Iterator[str]:
    accuracies = [epoch.test_acc for epoch in result.curve]
    tail = accuracies[-10:]
    if result.score is not None:  # of the user's own trainer, whose curve need not have it
        if result.score != event.accuracy:
            yield f"the log says {event.accuracy}, the result file {result.score}"
    elif result.best_test_acc != event.accuracy or result.best_test_acc != max(accuracies):
        yield f"the log says {event.accuracy}, the result file {result.best_test_acc}"
    elif not math.isclose(result.last_test_acc, sum(tail) / len(tail), abs_tol=1e-9):
        yield f"the result file says {result.last_test_acc} for the last epochs, its curve {sum(tail) / len(tail)}"
    stated: Mapping[str, tuple[object, object]] = {
        "task": (result.task, event.task),
        "seed": (result.seed, event.seed),
        "isolation level": (result.isolation_level, result.isolation_level if event.cached else launch.isolation_level),
        "device": (result.device, launch.environment.get("device", result.device)),
        "precision": (result.precision, launch.environment.get("precision", result.precision)),
        "torch": (result.versions.get("torch"), launch.environment.get("torch", result.versions.get("torch"))),
    }
    for what, (found, wanted) in stated.items():
        if found != wanted:
            yield f"the result file says {what} {found}, the log {wanted}"
    if digests and result.region_sha256 not in digests:
        yield "the result file is about another region"
    if result.step_zero.suspicious:
        yield "the untrained network was not at chance, and the result counts all the same"


def _finished_faults(events: Sequence[Event], launch: Launch) -> Iterator[str]:
    """Compare each finished test with the trainings before it."""
    seeds, roles = SearchConfig.model_validate(launch.config).evaluation_seeds, accuracies_by_role(events)
    for event in events:
        if not isinstance(event, TestFinished):
            continue
        measured = {
            task: {seed: value for seed, value in by_seed.items() if seed in seeds}
            for task, by_seed in roles.get(f"test/{event.number}", {}).items()
        }
        failed = any(value is None for by_seed in measured.values() for value in by_seed.values())
        if event.accuracies != measured or (event.status == "failed") != failed:
            yield f"test {event.number} ended with other accuracies than its trainings gave"
