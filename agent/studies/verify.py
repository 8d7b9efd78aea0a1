"""Verifies a run: makes again from the log whatever the log determines, and compares it with the files."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from agent.clock import Clock
from agent.config import SearchConfig, for_rerun
from agent.errors import AgentError, Interrupted, RunDamaged, UsageError, in_one_sentence
from agent.evaluation.batches import Candidate
from agent.evaluation.slot_plan import recorded_threads
from agent.evaluation.workbench import Workbench, open_workbench
from agent.profiles import names_programs, recorded_profile
from agent.progress import Progress
from agent.report.network import measure_network, read_network
from agent.runs.directory import RunDirectory
from agent.runs.events import Confirmed, Evaluated, Event, Launch, Submitted, TestStarted, accuracies_by_role
from agent.runs.files import strangers
from agent.runs.log import chain, read_events
from agent.runs.record import RunRecord, read_run
from agent.studies.verify_artifacts import artifact_mismatch, submission
from agent.studies.verify_files import (
    Check,
    Finding,
    Noted,
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
from sandbox.history import History
from sandbox.region import RegionError, split
from sandbox.workspace import WorkspaceError


def verify(
    run: RunDirectory,
    *,
    execute: bool = False,
    progress: Progress | None = None,
    allowed_signers: Path | None = None,
    data_root: Path | None = None,
) -> list[Check]:
    """Check all files of a run. With `execute`, also train one recorded evaluation again.

    A fault is a finding, not an exception, so all checks are made. `allowed_signers` is a file with the ssh keys that
    may sign reviews (`man ssh-keygen`). Data are looked for in `data_root` and the usual places. Raises UsageError when
    the file of keys does not exist.
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
        rerun = partial(_rerun_faults, record, launch, events, progress or Progress(), data_root)
        again = _judge("training again gives the same", rerun)
        checks.append(again)
    return [*checks, Check("what these files cannot prove", unproven=_LIMITS)]


_LIMITS = (
    "that the trainings took place (--execute repeats one), how long they took, when, and on which machine; that "
    "nobody wrote all files anew (compare the log's head with a copy kept elsewhere); that no review was removed at "
    "the end of reviews.jsonl; who wrote a review that is not signed"
)


_MISFITS = (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""Exceptions from values that have another type or size than a search writes."""


def _judge(what: str, look: Callable[[], Iterator[Finding]]) -> Check:
    try:
        found = list(look())
    except Interrupted:  # an AgentError too, which would be taken for a finding
        raise
    except (AgentError, WorkspaceError, RegionError, OSError, *_MISFITS) as error:
        found = [f"cannot be checked: {in_one_sentence(error)}"]
    faults = [finding for finding in found if isinstance(finding, str)]
    unproven = [finding.why for finding in found if isinstance(finding, Unproven)]
    notes = [finding.what for finding in found if isinstance(finding, Noted)]
    return Check(what, "; ".join(faults) or None, "; ".join(unproven) or None, "; ".join(notes) or None)


def _artifact_findings(run: RunDirectory, events: list[Event]) -> Iterator[Finding]:
    found = artifact_mismatch(run, events, trust_words=True)
    yield from found.faults
    yield from map(Unproven, found.unproven)


def _git_faults(run: RunDirectory, launch: Launch, events: list[Event]) -> Iterator[Finding]:
    digests = {"baseline": region_sha256(split(launch.scaffold).region)}
    tested = {}
    for event in events:
        if isinstance(event, TestStarted):
            digests[f"test/{event.number}"] = tested[event.number] = event.region_sha256
        elif isinstance(event, Submitted):
            digests[f"submit/{event.number}"] = event.region_sha256
            if tested.get(event.number) != event.region_sha256:
                yield f"the log submits another region than test {event.number} had"
    history = History(run.workspace)
    yield from history.faults()
    for tag, digest in digests.items():
        if region_sha256(history.region_at(tag)) != digest:
            yield f"tag {tag} is another region than the log says"
    for tag in sorted(set(history.tags()) - set(digests)):
        yield f"tag {tag} is of a test or a submission that the log does not have"


def _budget_faults(launch: Launch, events: list[Event]) -> Iterator[Finding]:
    numbers = [event.number for event in events if isinstance(event, TestStarted)]
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"tests are numbered {numbers}"
    if len(numbers) > int(launch.config["budget"]):
        yield f"{len(numbers)} tests with a budget of {launch.config['budget']}"


def _confirmation_faults(launch: Launch, events: list[Event]) -> Iterator[Finding]:
    """Check that a confirmation chose the submission from finalists that were all trained with the fresh seeds."""
    seeds, final = SearchConfig.model_validate(launch.config).confirmation_seeds, submission(events)
    confirmations = [event for event in events if isinstance(event, Confirmed)]
    if not seeds:
        yield "there was one, and the search had not asked for it" if confirmations else Noted("none was asked for")
    if not seeds or final is None:
        return
    last = confirmations[-1] if confirmations else None
    if last is None or last.chosen != final.number or final.number not in last.tests:
        yield f"test {final.number} was submitted and is not what it chose"
    roles = accuracies_by_role(events)
    for event in confirmations:
        if tuple(event.seeds) != seeds:
            yield f"its seeds are {event.seeds}, not {list(seeds)}"
        for role in ("baseline", *(f"test/{number}" for number in event.tests)):
            if any(set(seeds) - set(by_seed) for by_seed in roles.get(role, {"": {}}).values()):
                yield f"{role} was not trained with all of them"


def _rerun_faults(
    record: RunRecord, launch: Launch, events: list[Event], progress: Progress, data_root: Path | None
) -> Iterator[Finding]:
    """Train the submission (or the last test) on its first task with its first seed; measure the networks again."""
    final = submission(events)
    last = final.number if final else max((e.number for e in events if isinstance(e, TestStarted)), default=None)
    recorded = next((e for e in events if isinstance(e, Evaluated) and e.role == f"test/{last}"), None)
    if last is None or recorded is None or last not in record.regions:
        yield Unproven("no test was trained whose code could be trained again")
        return
    region = record.regions[last]
    config = for_rerun(launch.config, data_root)
    profile = recorded_profile(launch.profile, launch.tasks)
    if names_programs(profile):
        yield Unproven(
            "not trained again: its tasks name programs, which run only if the command line names them: "
            f"agent replay {record.name} --execute --profile FILE.toml"
        )
        return
    task = profile.task(recorded.task)
    with (
        tempfile.TemporaryDirectory(prefix="initsearch-verify-") as folder,
        open_workbench(
            config, Clock(), progress, evaluations=1, threads=recorded_threads(launch.environment)
        ) as workbench,
    ):
        if workbench.environment != launch.environment:
            yield f"not comparable: this machine is {workbench.environment}, the run's was {launch.environment}"
            return
        outcomes = workbench.evaluator.evaluate(
            [Candidate("again", region)], [task], [recorded.seed], results=LayeredStore(ResultStore(Path(folder)))
        )
        if final is not None:
            yield from _network_again(record, final.number, workbench, data_root)
    outcome = outcomes["again", recorded.task, recorded.seed]
    again = outcome.value if isinstance(outcome, EvaluationResult) else None
    if again != recorded.accuracy:
        yield f"{recorded.task} seed {recorded.seed}: recorded {recorded.accuracy}, now {again}"


def _network_again(record: RunRecord, test: int, workbench: Workbench, data_root: Path | None) -> Iterator[Finding]:
    kept = read_network(record, test)
    if kept is not None:
        again = measure_network(record, test, workbench.isolation, data_root=data_root)
        again["tasks"] = {name: again["tasks"].get(name) for name in kept["tasks"]}
        yield from differences("network.json", kept, again, tolerance=1e-3)
