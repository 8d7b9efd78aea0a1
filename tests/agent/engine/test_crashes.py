"""Searches that are killed, stopped, run out of disk or meet a clock that jumps: they go on to the same end.

Each is a real process with its own files, git and log; see tests/agent/harm_server.py.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import random
import shutil
import signal
import subprocess
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest

from agent.proposers.optuna_search import fresh_journal, new_study
from agent.report import write_report
from agent.runs.artifacts import artifacts
from agent.runs.directory import RunDirectory
from agent.runs.events import Evaluated, Event, TestFinished
from agent.runs.files import strangers
from agent.runs.log import read_events
from agent.runs.log_lines import GENESIS
from agent.studies.verify import verify
from agent.studies.verify_artifacts import submitted_region, summary_of
from benchmark.store import ResultStore
from tests.agent.conftest import Main
from tests.agent.engine.test_screening import SHARE
from tests.agent.harm import Child, Server, family, left_running, outcome
from tests.agent.llm_servers import GOOD, BadServer, Reply, completion

COMMAND = ("search", "--profile", "smoke", "--budget", "2", "--json")
HELD = (*COMMAND, "--no-submit")  # without the hidden task, whose trainings are what takes time here
KILLS = 16


@dataclass(frozen=True)
class Bench:
    """A server that forks commands, and an undisturbed search, whose results are in the store."""

    server: Server
    cache: Path
    undisturbed: Path
    operations: int
    operations_held: int

    def start(self, folder: Path, *words: str, **harm: Any) -> Child:
        return self.server.start(folder, *words, cache=str(self.cache), **harm)

    def run(self, folder: Path, *words: str, **harm: Any) -> int:
        return self.start(folder, *words, **harm).wait()[0]


@pytest.fixture(scope="module")
def bench(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("undisturbed")
    code, _ = server.run(folder, *COMMAND)
    assert code == 0, (folder / "stderr").read_text()
    counted = []
    for words in (COMMAND, HELD):
        code, operations = server.run(tmp_path_factory.mktemp("counted"), *words, cache=str(folder / "cache"))
        assert code == 0
        counted.append(operations)
    return Bench(server, folder / "cache", find_run(folder), *counted)


def only_run(folder: Path) -> Path | None:
    """The run in this folder, if the search came as far as making one."""
    found = next((folder / "runs").glob("2*/run.json"), None)
    return None if found is None else found.parent


def find_run(folder: Path) -> Path:
    run = only_run(folder)
    assert run is not None, (folder / "stderr").read_text()
    return run


def status(run: Path) -> str:
    return str(json.loads((run / "run.json").read_text())["status"])


def assert_like(run: Path, expected: Path) -> None:
    """The same tests, regions, accuracies, submission and trials; log, git, results and summary fit together."""
    found, wanted = outcome(run), outcome(expected)
    if status(run) == "waiting_for_review":
        wanted["accuracies"] = [entry for entry in wanted["accuracies"] if not entry[0].startswith("hidden/")]
    assert found == wanted
    assert [check for check in verify(RunDirectory(run)) if check.fault] == []
    assert trials(run) == trials(expected)


def trials(run: Path) -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        backend = optuna.storages.journal.JournalFileBackend(str(run / "study.journal"))
        study = optuna.load_study(study_name="initsearch", storage=optuna.storages.JournalStorage(backend))
    return [(trial.state, trial.params, trial.values) for trial in study.trials]


def test_kills_all_over_and_the_same_end(bench: Bench, tmp_path: Path) -> None:
    """kill -9 at a random moment of each sixteenth of a search, followed by --resume, over as many as that takes.

    After every kill the log is readable, no more is spent than the budget, and no process is left.
    """
    moments, kills, searches = random.Random(5), 0, 0
    order = moments.sample(range(KILLS), KILLS)
    shares = [(number + moments.random()) / KILLS for number in order]
    while kills < KILLS:
        folder = tmp_path / str(searches)
        folder.mkdir()
        words: tuple[str, ...] = COMMAND
        searches += 1
        while True:
            last = kills == KILLS
            moment = 0 if last else math.ceil(shares[kills] * bench.operations)
            harm = {} if last else {"kill_at": moment, "delay": moments.choice((0, 0.01))}
            child = bench.start(folder, *words, **harm)
            started = family(child.pid)
            code, _ = child.wait()
            run = only_run(folder)
            if code == -signal.SIGKILL:
                kills += 1
                assert left_running(started) == set()
                if run is None or not (run / "run.json").exists():
                    continue
                if (run / "events.jsonl").exists():
                    tests = [
                        r.event.number for r in read_events(run / "events.jsonl") if r.event.kind == "test_started"
                    ]
                    assert tests in ([], [1], [1, 2])
            assert run is not None, (folder / "stderr").read_text()
            if status(run) == "submitted":
                break
            assert code == -signal.SIGKILL, (folder / "stderr").read_text()
            words = ("search", "--resume", str(run), "--json")
        assert_like(run, bench.undisturbed)
    assert kills == KILLS


@pytest.mark.parametrize("more", [("--confirm", "2"), ("--screen", str(SHARE))], ids=["confirm", "screen"])
def test_kills_with_confirmation_and_looks(bench: Bench, tmp_path: Path, more: tuple[str, str]) -> None:
    """kill -9 at up to three moments of one search, the first ones of which hit it surely: the same end."""
    words: tuple[str, ...] = (*HELD, *more)
    kills, moments = 0, random.Random(7)
    undisturbed, counted = tmp_path / "undisturbed", tmp_path / "counted"
    for folder in (undisturbed, counted):  # the second takes its results from the store, as the disturbed one does
        folder.mkdir()
        code, operations = bench.server.run(folder, *words, cache=str(bench.cache))
        assert code == 0, (folder / "stderr").read_text()
    for moment in sorted(moments.sample(range(operations // 3, operations), 3)):
        code = bench.run(tmp_path, *words, kill_at=moment)
        words = ("search", "--resume", str(find_run(tmp_path)), "--json")
        if code != -signal.SIGKILL:  # a resumed search has less to do, and may have come to its end
            break
        kills += 1
    else:
        assert bench.run(tmp_path, *words) == 0, (tmp_path / "stderr").read_text()
    assert kills > 1
    assert_like(find_run(tmp_path), find_run(undisturbed))


def test_a_search_that_time_ended_is_submitted_later(bench: Bench, tmp_path: Path) -> None:
    """`--max-seconds` ended it and it waited for a review; `agent submit` then said that its log had been edited."""
    assert bench.run(tmp_path, *HELD, "--max-seconds", "3600", late_after="test_finished") == 0
    run = find_run(tmp_path)
    assert outcome(run)["tests"] == [1]
    assert bench.run(tmp_path, "submit", str(run), "--json") == 0, (tmp_path / "stderr").read_text()
    assert (status(run), outcome(run)["tests"]) == ("time", [1])
    assert [check for check in verify(RunDirectory(run)) if check.fault] == []


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_full_disk_stops_a_search_that_then_goes_on(bench: Bench, tmp_path: Path, share: float) -> None:
    """No file may grow beyond a part of the log: exit 1, one sentence with the way on, and the same end after it."""
    size = int(share * (bench.undisturbed / "events.jsonl").stat().st_size)
    assert bench.run(tmp_path, *HELD, file_size=size) == 1
    errors = (tmp_path / "stderr").read_text()
    assert "Traceback" not in errors
    assert f"go on with: agent search --resume {find_run(tmp_path)}" in errors
    assert_resumes(bench, tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a small disk")
def test_full_small_disk(bench: Bench, tmp_path: Path) -> None:
    """A disk of 150 kB: the search stops with exit 1, and goes on once there is room."""
    runs = tmp_path / "runs"
    runs.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=150k", "none", str(runs)], check=False).returncode:
        pytest.skip("this container may not mount")
    try:
        assert bench.run(tmp_path, *HELD) == 1
        errors = (tmp_path / "stderr").read_text()
        assert "Traceback" not in errors
        assert f"go on with: agent search --resume {find_run(tmp_path)}" in errors
        subprocess.run(["mount", "-o", "remount,size=50m", str(runs)], check=True)
        assert_resumes(bench, tmp_path)
    finally:
        subprocess.run(["umount", str(runs)], check=True)


def test_read_only_run_directory(bench: Bench, tmp_path: Path) -> None:
    """Nothing can be written: it is said, exit 1, and the run is as it was. It can be read, and resumed later."""
    assert bench.run(tmp_path, *HELD, kill_at=bench.operations_held // 2) == -signal.SIGKILL
    run = find_run(tmp_path)
    before = contents(run)
    with read_only(tmp_path / "runs"):
        assert bench.run(tmp_path, "search", "--resume", str(run)) == 1
        assert bench.run(tmp_path, "show", str(run)) == 0
        assert bench.run(tmp_path, "verify", str(run)) == 0
        assert bench.run(tmp_path, *HELD) == 2
        assert contents(run) == before
    errors = (tmp_path / "stderr").read_text()
    assert "Traceback" not in errors
    assert f"{run}/.lock" in errors
    assert "cannot make a run directory there" in errors
    assert_resumes(bench, tmp_path)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """For an ordinary user by the modes of all folders; root does not mind modes, and needs a mount."""
    if os.geteuid() == 0:
        if subprocess.run(["mount", "--bind", str(folder), str(folder)], check=False).returncode:
            pytest.skip("this container may not mount")
        try:
            subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
            yield
        finally:
            subprocess.run(["umount", str(folder)], check=True)
        return
    modes = {path: path.stat().st_mode for path in (folder, *folder.rglob("*")) if not path.is_symlink()}
    try:
        for path, mode in modes.items():
            path.chmod(mode & ~0o222)
        yield
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


def assert_resumes(bench: Bench, folder: Path) -> None:
    run = find_run(folder)
    assert bench.run(folder, "search", "--resume", str(run), "--json") == 0, (folder / "stderr").read_text()
    assert_like(run, bench.undisturbed)


def test_clock_that_jumps_back(bench: Bench, tmp_path: Path) -> None:
    """The clock is set back by a day after the first event, in the search and again when it is resumed."""
    assert bench.run(tmp_path, *HELD, clock=-86400.0, kill_at=bench.operations_held // 2) == -signal.SIGKILL
    run = find_run(tmp_path)
    assert bench.run(tmp_path, "search", "--resume", str(run), clock=-3 * 86400.0) == 0
    times = [record.ts for record in read_events(run / "events.jsonl")]
    assert min(times[1:]) < times[0] - 80000
    assert_like(run, bench.undisturbed)
    assert bench.run(tmp_path, "show", "latest") == 0
    seconds = json.loads((run / "run.json").read_text())["seconds"]
    assert all(0 <= value < 3600 for value in seconds.values())


SIGNALS = pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])


def assert_stopped(child: Child, folder: Path, number: signal.Signals, code: int) -> None:
    """Send the signal (Ctrl-C as a terminal does, to the whole group) and look at what the command makes of it."""
    started = family(child.pid)
    child.signal(number, group=number == signal.SIGINT)
    assert child.wait()[0] == code, (folder / "stderr").read_text()
    assert left_running(started) == set()
    assert [check for check in verify(RunDirectory(find_run(folder))) if check.fault] == []
    errors = (folder / "stderr").read_text()
    assert "Traceback" not in errors
    assert f"agent search --resume {find_run(folder)}" in errors
    assert status(find_run(folder)) == "interrupted"


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


@SIGNALS
def test_signal_while_git_commits(bench: Bench, tmp_path: Path, number: signal.Signals, code: int) -> None:
    """A slow git, stopped in the middle of a commit: the resumed search ends like an undisturbed one."""
    real, marker = shutil.which("git"), tmp_path / "committing"
    slow = tmp_path / "bin" / "git"
    slow.parent.mkdir()
    slow.write_text(
        f'#!/bin/sh\ncase "$*" in *commit-tree*-p*) [ -e {marker} ] || {{ touch {marker}; sleep 5; }};; esac\n'
        f'exec {real} "$@"\n'
    )
    slow.chmod(0o755)
    child = bench.start(tmp_path, *HELD, path=str(slow.parent))
    wait_for(marker.exists, "no commit")
    assert_stopped(child, tmp_path, number, code)
    assert_resumes(bench, tmp_path)


SLOW = """def initialize_weights(model, config):
    for p in model.parameters():
        nn.init.ones_(p) if p.dim() < 2 else nn.init.orthogonal_(p)
    for _ in range(10_000_000):
        pass
"""


@SIGNALS
def test_signal_in_isolation(bench: Bench, main: Main, tmp_path: Path, number: signal.Signals, code: int) -> None:
    """Stopped while a candidate runs: nothing was paid yet, and after --resume it is paid once.

    While it ran, another process that wanted the same run was turned away.
    """
    calls = [
        {"tool": "rewrite", "arguments": {"content": SLOW}},
        {"tool": "test"},
        {"tool": "submit", "arguments": {"n": 1}},
    ]
    (tmp_path / "calls.json").write_text(json.dumps(calls))
    # With a limit on time the baseline is waited for, so the log is written call by call.
    child = bench.start(tmp_path, *HELD, "--max-seconds", "3600", "--proposer", "scripted:calls.json")
    wait_for(lambda: only_run(tmp_path) and '"tool": "test"' in log_of(tmp_path), "no test")
    if number == signal.SIGTERM:
        child.signal(signal.SIGSTOP)
        refused, _, said = main("search", "--resume", str(find_run(tmp_path)))
        child.signal(signal.SIGCONT)
        assert refused == 1
        assert "another process is working on this run" in said
    assert_stopped(child, tmp_path, number, code)
    run = find_run(tmp_path)
    assert "test_started" not in log_of(tmp_path)
    assert bench.run(tmp_path, "search", "--resume", str(run), "--json") == 0, (tmp_path / "stderr").read_text()
    found = outcome(run)
    assert (found["tests"], found["submitted"], len(found["results"])) == ([1], [1], 1)
    assert [check for check in verify(RunDirectory(run)) if check.fault] == []


@SIGNALS
def test_signal_while_a_model_is_asked(bench: Bench, tmp_path: Path, number: signal.Signals, code: int) -> None:
    """Stopped in an HTTP call that does not come back: --resume asks again, and asks nothing else twice."""
    turns = [completion("", ("rewrite", {"content": GOOD.format(gain=1.0)}), ("test", {}))]
    turns.append(completion("", ("submit", {"n": 1})))

    def reply(request: dict[str, Any]) -> Reply:
        if len(server.requests) == 2:
            time.sleep(60)
        turn: int = sum(message["role"] == "assistant" for message in request["messages"])
        return turns[min(turn, 1)]

    with BadServer(reply) as server:
        words = ("--proposer", "llm", "--model", "m", "--base-url", server.url)
        child = bench.start(tmp_path, *HELD, *words)
        wait_for(lambda: len(server.requests) == 2, "no second question")
        assert_stopped(child, tmp_path, number, code)
        run = find_run(tmp_path)
        assert bench.run(tmp_path, "search", "--resume", str(run)) == 0, (tmp_path / "stderr").read_text()
        assert len(server.requests) == 3
    assert (outcome(run)["tests"], outcome(run)["submitted"]) == ([1], [1])
    assert [check for check in verify(RunDirectory(run)) if check.fault] == []


def log_of(folder: Path) -> str:
    log = find_run(folder) / "events.jsonl"
    return log.read_text(errors="replace") if log.exists() else ""


def test_a_run_forged_throughout_is_found_by_training_again(bench: Bench, tmp_path: Path) -> None:
    """Accuracies raised in results, log and summary, with checksums and chain made anew: all fits, and is not true."""
    run = RunDirectory(tmp_path / "run")
    shutil.copytree(bench.undisturbed, run.path, symlinks=True)
    for store in (ResultStore(run.results), ResultStore(run.hidden)):
        for path in store.folder.glob("*.json"):
            result = store.get(path.stem)
            assert result is not None
            curve = tuple(epoch.model_copy(update={"test_acc": epoch.test_acc + 5}) for epoch in result.curve)
            raised_too = {"best_test_acc": result.best_test_acc + 5, "last_test_acc": result.last_test_acc + 5}
            store.put(result.model_copy(update={**raised_too, "curve": curve}))
    records, previous = read_events(run.events), GENESIS
    run.events.unlink()
    with run.events.open("wb") as log:
        for record in records:
            line = dataclasses.replace(record, previous=previous, event=raised(record.event)).line()
            previous = hashlib.sha256(line).hexdigest()
            log.write(line + b"\n")
    summary = run.read_summary()
    for test in summary["tests"]:
        test["accuracies"] = {t: {s: v + 5 for s, v in by.items()} for t, by in test["accuracies"].items()}
    for task in [*summary["visible"].values(), *summary["hidden"].values()]:
        task.update(baseline=task["baseline"] + 5, submitted=task["submitted"] + 5)
    events = [record.event for record in read_events(run.events)]
    summary["words"] = summary_of(run, events)["words"]
    run.write_summary(summary)
    made = (submitted_region(run, events), summary["submitted_test"], summary["words"][1:])
    for name, content in artifacts(run, bench.undisturbed.name, *made).items():
        (run.path / name).write_bytes(content)
    write_report(run, measure=False)

    assert [check for check in verify(run) if check.fault] == []
    assert bench.run(tmp_path, "verify", str(bench.undisturbed), "--execute") == 0, (tmp_path / "stdout").read_text()
    assert bench.run(tmp_path, "verify", str(run.path), "--execute") == 3
    assert "FAULT training again gives the same" in (tmp_path / "stdout").read_text()


def raised(event: Event) -> Event:
    if isinstance(event, Evaluated) and event.accuracy is not None:
        return event.model_copy(update={"accuracy": event.accuracy + 5})
    if isinstance(event, TestFinished):
        by_task = event.accuracies.items()
        raised = {task: {seed: value and value + 5 for seed, value in by.items()} for task, by in by_task}
        return event.model_copy(update={"accuracies": raised})
    return event


def test_what_a_kill_left_behind_is_swept(tmp_path: Path) -> None:
    """A search killed while it held or released the journal's lock resumed late, or not at all: "is a link"."""
    run = RunDirectory(tmp_path)
    run.results.mkdir()
    run.study.write_bytes(b"")
    locks = [tmp_path / "study.journal.lock", tmp_path / f"study.journal.lock{uuid.uuid4()}.rename"]
    for lock in locks:
        lock.symlink_to(run.study.resolve())
    assert list(strangers(tmp_path)) == []
    litter = [tmp_path / ".run.json.0123abcd.tmp", run.results / ".key.json.0123abcd.tmp"]
    for path in litter:
        path.touch()
    with run.held():
        assert not any(lock.is_symlink() for lock in locks)
        assert not any(path.exists() for path in litter)
        new_study(fresh_journal(run.study), "initsearch", 0)
    assert run.study.exists()
