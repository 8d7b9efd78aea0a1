"""Does a run still say what happened? Whatever can be made again from the log is made again and compared."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from agent.clock import Clock
from agent.config import SearchConfig
from agent.errors import AgentError, RunDamaged, UsageError, in_one_sentence
from agent.evaluation.evaluator import Candidate
from agent.evaluation.workbench import Laboratory, open_laboratory, recorded_threads
from agent.progress import Progress
from agent.report.network import measure_network, read_network
from agent.runs.directory import RunDirectory
from agent.runs.files import strangers
from agent.runs.log import (
    Confirmed,
    Evaluated,
    Event,
    Launch,
    Submitted,
    TestStarted,
    accuracies_by_role,
    chain,
    read_events,
)
from agent.runs.record import RunRecord, read_run
from agent.studies.rebuilt import artifact_mismatch, submission
from agent.studies.verify_files import (
    Check,
    Finding,
    Unproven,
    anchor_findings,
    differences,
    network_findings,
    page_findings,
    review_findings,
    summary_findings,
)
from agent.studies.verify_results import result_findings
from benchmark.results import EvaluationResult, region_sha256
from benchmark.store import LayeredStore, ResultStore
from benchmark.tasks import get_profile
from sandbox.history import History
from sandbox.region import RegionError, split
from sandbox.workspace import WorkspaceError


def verify(
    run: RunDirectory,
    *,
    execute: bool = False,
    progress: Progress | None = None,
    allowed_signers: Path | None = None,
) -> list[Check]:
    """Re-check everything that a run left behind; with `execute`, train one recorded evaluation again.

    A fault is a finding, not an exception: all checks are made, as far as they can be. `allowed_signers` is a list of
    ssh keys whose signatures of reviews count (`man ssh-keygen`). Raises UsageError when it does not exist.
    """
    if allowed_signers is not None and not allowed_signers.is_file():
        raise UsageError(f"--allowed-signers {allowed_signers}: no such file")
    try:
        events = [record.event for record in read_events(run.events)]
        record = read_run(run)
    except (RunDamaged, OSError) as error:
        return [Check("the event log is unbroken", str(error))]
    hashes = chain(run.events)
    checks = [Check("the event log is unbroken", note=f"its head is {hashes[-1]}" if hashes else None)]
    if not events or not isinstance(events[0], Launch):
        return [*checks, Check("the log begins with a launch", "it does not: nothing was started")]
    launch = events[0]
    checks += [
        _judge("git holds the regions that the log names", lambda: _git_faults(run, launch, events)),
        _judge("each recorded accuracy has its result file", lambda: result_findings(record, launch, events)),
        _judge("the budget was kept", lambda: _budget_faults(launch, events)),
        _judge("the finalists were confirmed", lambda: _confirmation_faults(launch, events)),
        _judge("run.json agrees with the log", lambda: summary_findings(run, launch, events)),
        _judge("the patch and the module are the submission", lambda: _artifact_findings(run, events)),
    ]
    fit = all(check.fault is None for check in checks)
    checks += [
        _judge("the page shows what the files say", lambda: page_findings(record, fit=fit)),
        _judge("network.json is about the submission", lambda: network_findings(record, launch, events)),
        _judge("no review was changed or removed", lambda: review_findings(run, allowed_signers)),
        _judge("patch and reviews name this log", lambda: anchor_findings(run, events, hashes)),
    ]
    if found := list(itertools.islice(strangers(run.path), 5)):
        checks.append(Check("the run holds files and folders only", "; ".join(found)))
    if execute:
        again = _judge(
            "training again gives the same", lambda: _rerun_faults(record, launch, events, progress or Progress())
        )
        checks.append(again)
    return [*checks, Check("what these files cannot prove", unproven=_LIMITS)]


_LIMITS = (
    "that the trainings took place (--execute repeats one), how long they took, when, and on which machine; that "
    "nobody wrote all files anew (compare the log's head with a copy kept elsewhere); that no review was removed at "
    "the end of reviews.jsonl; who wrote a review that is not signed"
)


_MISFITS = (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""What comes of values that have another type or size than a search writes."""


def _judge(what: str, look: Callable[[], Iterator[Finding]]) -> Check:
    try:
        found = list(look())
    except (AgentError, WorkspaceError, RegionError, OSError, *_MISFITS) as error:
        found = [f"cannot be checked: {in_one_sentence(error)}"]
    faults = [one for one in found if isinstance(one, str)]
    unproven = [one.why for one in found if isinstance(one, Unproven)]
    return Check(what, "; ".join(faults) or None, "; ".join(unproven) or None)


def _artifact_findings(run: RunDirectory, events: list[Event]) -> Iterator[Finding]:
    found = artifact_mismatch(run, events, trust_words=True)
    yield from found.faults
    yield from map(Unproven, found.unproven)


def _git_faults(run: RunDirectory, launch: Launch, events: list[Event]) -> Iterator[Finding]:
    told = {"baseline": region_sha256(split(launch.scaffold).region)}
    tested = {}
    for event in events:
        if isinstance(event, TestStarted):
            told[f"test/{event.number}"] = tested[event.number] = event.region_sha256
        elif isinstance(event, Submitted):
            told[f"submit/{event.number}"] = event.region_sha256
            if tested.get(event.number) != event.region_sha256:
                yield f"the log submits another region than test {event.number} had"
    history = History(run.workspace)
    yield from history.faults()
    for tag, digest in told.items():
        if region_sha256(history.region_at(tag)) != digest:
            yield f"tag {tag} is another region than the log says"
    for tag in sorted(set(history.tags()) - set(told)):
        yield f"tag {tag} is of a test or a submission that the log does not have"


def _budget_faults(launch: Launch, events: list[Event]) -> Iterator[Finding]:
    numbers = [event.number for event in events if isinstance(event, TestStarted)]
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"tests are numbered {numbers}"
    if len(numbers) > int(launch.config["budget"]):
        yield f"{len(numbers)} tests with a budget of {launch.config['budget']}"


def _confirmation_seeds(launch: Launch) -> tuple[int, ...]:
    return SearchConfig.model_validate(launch.config).confirmation_seeds


def _confirmation_faults(launch: Launch, events: list[Event]) -> Iterator[Finding]:
    """What was submitted is what a confirmation chose, from finalists that were all trained with the fresh seeds."""
    seeds, final = _confirmation_seeds(launch), submission(events)
    told = [event for event in events if isinstance(event, Confirmed)]
    if not seeds and told:
        yield "there was one, and the search had not asked for it"
    if not seeds or final is None:
        return
    if not told or told[-1].chosen != final.number or final.number not in told[-1].tests:
        yield f"test {final.number} was submitted and is not what it chose"
    roles = accuracies_by_role(events)
    for event in told:
        if tuple(event.seeds) != seeds:
            yield f"its seeds are {event.seeds}, not {list(seeds)}"
        for role in ("baseline", *(f"test/{number}" for number in event.tests)):
            if any(set(seeds) - set(by_seed) for by_seed in roles.get(role, {"": {}}).values()):
                yield f"{role} was not trained with all of them"


def _rerun_faults(record: RunRecord, launch: Launch, events: list[Event], progress: Progress) -> Iterator[Finding]:
    """Train the submission (or the last test) on its first task with its first seed; measure the networks again."""
    final = submission(events)
    last = final.number if final else max((e.number for e in events if isinstance(e, TestStarted)), default=None)
    recorded = next((e for e in events if isinstance(e, Evaluated) and e.role == f"test/{last}"), None)
    if last is None or recorded is None or last not in record.regions:
        yield Unproven("no test was trained whose code could be trained again")
        return
    region = record.regions[last]
    config = SearchConfig.model_validate({**launch.config, "isolation": "auto", "allow_unsandboxed": False})
    task = get_profile(launch.profile).task(recorded.task)
    with (
        tempfile.TemporaryDirectory(prefix="initsearch-verify-") as folder,
        open_laboratory(
            config, Clock(), progress, evaluations=1, threads=recorded_threads(launch.environment)
        ) as laboratory,
    ):
        if laboratory.environment != launch.environment:
            yield f"not comparable: this machine is {laboratory.environment}, the run's was {launch.environment}"
            return
        outcomes = laboratory.evaluator.evaluate(
            [Candidate("again", region)], [task], [recorded.seed], results=LayeredStore(ResultStore(Path(folder)))
        )
        if final is not None:
            yield from _network_again(record, final.number, laboratory)
    outcome = outcomes["again", recorded.task, recorded.seed]
    again = outcome.best_test_acc if isinstance(outcome, EvaluationResult) else None
    if again != recorded.accuracy:
        yield f"{recorded.task} seed {recorded.seed}: recorded {recorded.accuracy}, now {again}"


def _network_again(record: RunRecord, test: int, laboratory: Laboratory) -> Iterator[Finding]:
    kept = read_network(record, test)
    if kept is not None:
        again = measure_network(record, test, laboratory.isolation)
        again["tasks"] = {name: again["tasks"].get(name) for name in kept["tasks"]}
        yield from differences("network.json", kept, again, tolerance=1e-3)
