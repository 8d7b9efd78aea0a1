"""One search from configuration to verdict: set up, run the loop, submit, evaluate the hidden task, sum up."""

from __future__ import annotations

import dataclasses
import math
import os
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from agent.analysis import null_claims
from agent.analysis.design import Design
from agent.clock import Clock
from agent.config import SearchConfig
from agent.engine.equipment import equip
from agent.engine.forecast import say_if_long
from agent.engine.loop import WAITING, End, run_loop
from agent.engine.outcome import conclude
from agent.engine.toolbox import Toolbox
from agent.errors import AgentError, Interrupted, RunDamaged, UsageError
from agent.evaluation.evaluator import Candidate
from agent.evaluation.workbench import Laboratory, open_laboratory
from agent.profiles import resolve_profile
from agent.progress import Progress
from agent.proposers import Surroundings, check_proposer, make_proposer, prepare
from agent.protocol import Accuracies, ProposerEnd, ToolCall
from agent.report import write_report
from agent.runs.artifacts import write_artifacts
from agent.runs.directory import RunDirectory
from agent.runs.log import Ended, EventLog, Launch
from agent.secrets import kept_from_children
from agent.spaces.start import starting_region
from benchmark.data import DataError, available
from benchmark.executor import InfrastructureError
from benchmark.store import LayeredStore, ResultStore, user_store
from benchmark.tasks import Profile
from sandbox.isolate import Isolation, IsolationCrashed
from sandbox.region import scaffold
from sandbox.workspace import Workspace, WorkspaceError

OUR_FAILURES = (InfrastructureError, IsolationCrashed, DataError, WorkspaceError, OSError)
"""What a machine, a disk or a person can do to a search. It stops, and can be resumed."""

_RESUMED = "resumed"


@dataclass(frozen=True)
class SearchOutcome:
    """What a search came to; `done` is the last line of `agent search --json`."""

    run: Path
    status: str
    done: dict[str, Any]
    words: list[str]

    @property
    def exit_code(self) -> int:
        """0 done, 1 our machinery failed, 4 the budget is spent and there is nothing to submit."""
        if self.status == "infra":
            return 1
        return 0 if self.done["submitted_test"] is not None else 4


class Search:
    """A search in its run directory. `launch` is known before anything is spent."""

    def __init__(
        self, config: SearchConfig, run: RunDirectory, profile: Profile, reason: str, *, contacted: bool = False
    ) -> None:
        self.config = config
        self.run = run
        self.profile = profile
        self.reason = reason
        self.clock = Clock()
        self._contacted = contacted
        self._released = config.submit
        self._pinned = config
        self._environ: dict[str, str] = {}
        self._summary: dict[str, Any] = {}

    @classmethod
    def create(cls, config: SearchConfig) -> Search:
        """Check everything that can be checked for free, then make the run directory. Raises UsageError."""
        profile, reason = resolve_profile(config.profile, data_root=config.data_root, download=config.download)
        _require_data(profile, config)
        starting_region(config.start)
        contacted = check_proposer(config)
        if shutil.which("git") is None:
            raise UsageError("git is not installed: it keeps the history of each search (Debian: apt install git)")
        run = RunDirectory.create(config.runs, f"{profile.name}-{config.proposer.partition(':')[0]}")
        return cls(config, run, profile, reason, contacted=contacted)

    @classmethod
    def resume(cls, run: RunDirectory, *, release: bool = False) -> Search:
        """An interrupted search, to be run again along its log; `release` lets one that waits run the hidden task.

        Raises UsageError when it is already done, or waits and is not released.
        """
        recorded = run.read_summary()
        status = recorded.get("status")
        if status == WAITING and not release:
            raise UsageError(f"{run.path}: this run waits for a review; `agent submit {run.path.name}` goes on with it")
        if status not in ("running", "interrupted", "failed", "infra", WAITING):
            raise UsageError(f"{run.path}: this run is complete ({status}); `agent show` prints it")
        try:
            config = SearchConfig.model_validate(recorded["config"])
            profile, reason = resolve_profile(recorded["profile"]), _RESUMED
        except (KeyError, ValueError) as error:
            raise RunDamaged(f"{run.summary}: {error}") from None
        search = cls(config, run, profile[0], reason)
        search._released = config.submit or release
        # `auto` can find another level on another day, and a result belongs to one. An unsandboxed run says so itself.
        level = recorded.get("isolation_level")
        if level in ("bubblewrap", "landlock"):
            search._pinned = config.model_copy(update={"isolation": level})
        return search

    @property
    def launch(self) -> dict[str, Any]:
        """The first line of `agent search --json`."""
        return {
            "event": "launch",
            "run": str(self.run.path),
            "profile": self.profile.name,
            "budget": self.config.budget,
            "proposer": self.config.proposer,
            "reason": self.reason,
        }

    def execute(self, progress: Progress, *, page: bool = True) -> SearchOutcome:
        """Run to the end. On a signal or a failure the run directory says so and can be resumed.

        `page`: write report.html at the end, which measures the networks and takes its time.
        """
        with self.run.held():
            self._save(status="running", created=time.time())
            try:
                with ExitStack() as stack:
                    self._environ = stack.enter_context(kept_from_children())
                    log = stack.enter_context(EventLog(self.run.events))
                    self.clock.watch("bookkeeping", lambda: log.seconds)
                    laboratory = stack.enter_context(
                        open_laboratory(
                            self._pinned,
                            self.clock,
                            progress,
                            log.append,
                            log=self.run.path / "workers.log",
                        )
                    )
                    outcome = self._execute(stack, log, laboratory, progress)
                    laboratory.stop_evaluating()
                    if page:
                        self._report(progress, laboratory.isolation)
                    return outcome
            except (Interrupted, KeyboardInterrupt):
                self._save_if_possible(status="interrupted")
                raise
            except (AgentError, *OUR_FAILURES) as error:
                self._save_if_possible(status="failed", message=str(error))
                self._report(progress)
                raise

    def _execute(self, stack: ExitStack, log: EventLog, laboratory: Laboratory, progress: Progress) -> SearchOutcome:
        config, run, profile, evaluator = self.config, self.run, self.profile, laboratory.evaluator
        log.append(
            Launch(
                config=config.model_dump(mode="json"),
                profile=profile.name,
                environment=laboratory.environment,
                isolation_level=laboratory.isolation.level,
                scaffold=scaffold().text,
            )
        )
        self._save(
            environment=laboratory.environment,
            isolation_level=laboratory.isolation.level,
            isolation=laboratory.isolation.evidence,
            slots=laboratory.slots,
        )
        results = LayeredStore(ResultStore(run.results), user_store() if config.cache else None)
        self.clock.watch("bookkeeping", lambda: results.seconds)
        seeds = config.evaluation_seeds
        baseline_seeds = config.baseline_evaluation_seeds
        design = Design.of(config)
        unseen = design.hidden.trainings * len(profile.hidden) if self._released else 0
        progress.begin(design.trainings * len(profile.visible) + unseen, config.budget)

        workspace = stack.enter_context(_fresh_workspace(run))
        self.clock.watch("bookkeeping", lambda: workspace.seconds)
        tools = equip(config, profile, laboratory, workspace=workspace, log=log, results=results)
        proposer = make_proposer(config, self._surroundings(log, progress))
        try:
            prepare(proposer, config)
        except ProposerEnd as stop:  # nobody will propose anything: do not train the baseline for that
            log.append(Ended(status=stop.status, message=str(stop)))
            return self._finish(End(stop.status, str(stop)), tools, {})

        if self.reason != _RESUMED:
            say_if_long(config, profile, laboratory.executor, laboratory.environment, progress.message)
        progress.message(f"measuring the baseline ({self.profile.name}: {self.reason})")
        baseline = Candidate("baseline", scaffold().region)
        measured = evaluator.measure(baseline, [], profile.visible, baseline_seeds, results=results)
        tools.baseline = measured[baseline.role]
        if config.start is not None:
            tools.dispatch(0, ToolCall("rewrite", {"content": starting_region(config.start)}))
        end = run_loop(proposer, tools, self.clock, log, max_steps=config.max_steps, max_seconds=config.max_seconds)
        if end.status == "infra":
            log.halt(end.message)
            return self._finish(end, tools, {})

        hidden: dict[str, Accuracies] = {}
        if tools.submitted is not None and not self._released:
            message = f"{end.message} The hidden task waits for: agent submit {run.path.name}"
            return self._finish(End(WAITING, message), tools, {})
        if tools.submitted is not None:
            progress.message(f"submitted test #{tools.submitted}; now the hidden task, for baseline and submission")
            hidden = evaluator.measure(
                Candidate("hidden/baseline", baseline.region),
                [Candidate("hidden/submission", tools.regions[tools.submitted])],
                profile.hidden,
                seeds,
                results=LayeredStore(ResultStore(run.hidden)),  # hidden results are never shared between runs
            )
        log.append(Ended(status=end.status, message=end.message))
        return self._finish(end, tools, hidden)

    def _surroundings(self, log: EventLog, progress: Progress) -> Surroundings:
        most = self.config.max_seconds
        return Surroundings(
            profile=self.profile,
            log=log,
            study=self.run.study,
            environ={**os.environ, **self._environ},
            say=progress.message,
            seconds_left=lambda: math.inf if most is None else most - self.clock.elapsed,
            contacted=self._contacted,
        )

    def _report(self, progress: Progress, isolation: Isolation | None = None) -> None:
        """Write report.html; a run is never lost to its page."""
        try:
            write_report(self.run, isolation=isolation, measure=isolation is not None)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the page, the results stand
            progress.message(
                f"report.html could not be written ({error}); agent report {self.run.path.name} tries again"
            )

    def _finish(self, end: End, tools: Toolbox, hidden: dict[str, Accuracies]) -> SearchOutcome:
        done, words = conclude(self.config, self.profile, self.run.path, end, tools, hidden, self.clock.seconds())
        if tools.submitted is not None:
            with self.clock.phase("bookkeeping"):
                write_artifacts(self.run, tools.workspace, tools.regions[tools.submitted], tools.submitted, words[1:])
        tests = [
            {"number": test.number, "region_sha256": test.region_sha256, "accuracies": test.accuracies}
            for test in tools.tests
        ]
        self._save(
            **{name: value for name, value in done.items() if name != "event"},
            overhead=self.clock.overhead(),
            words=words,
            tests=tests,
        )
        return SearchOutcome(self.run.path, end.status, done, words)

    @property
    def _caveat(self) -> str:
        return f"{null_claims.NOTICE} {self.profile.caveat}" if self.config.null else self.profile.caveat

    def _save_if_possible(self, **changes: Any) -> None:
        """On a full disk, say, the run stays `running`, which can be resumed; the first fault is the one reported."""
        with suppress(OSError):
            self._save(**changes)

    def _save(self, **changes: Any) -> None:
        if not self._summary:
            if self.run.summary.exists():
                self._summary = self.run.read_summary()
            else:
                self._summary = {
                    "schema": 1,
                    "profile": self.profile.name,
                    "reason": self.reason,
                    "config": self.config.model_dump(mode="json"),
                    "seeds": list(self.config.evaluation_seeds),
                    "budget": self.config.budget,
                    "null": self.config.null,
                    "caveat": f"{null_claims.NOTICE} {self.profile.caveat}"
                    if self.config.null
                    else self.profile.caveat,
                    "tasks": {
                        kind: [{"name": task.name, **dataclasses.asdict(task)} for task in tasks]
                        for kind, tasks in (("visible", self.profile.visible), ("hidden", self.profile.hidden))
                    },
                    "versions": {
                        "python": platform.python_version(),
                        **{name: version(name) for name in ("torch", "torchvision", "optuna", "numpy")},
                    },
                }
        if "created" in changes and "created" in self._summary:
            del changes["created"]
        self._summary.update(changes)
        with self.clock.phase("bookkeeping"):
            self.run.write_summary(self._summary)


@contextmanager
def _fresh_workspace(run: RunDirectory) -> Iterator[Workspace]:
    """A new repository; a resumed run makes it again by carrying out the recorded calls."""
    if run.workspace.exists():
        shutil.rmtree(run.workspace)
    with Workspace.create(run.workspace) as workspace:
        workspace.tag("baseline")
        yield workspace


def _require_data(profile: Profile, config: SearchConfig) -> None:
    for name in sorted({task.dataset for task in (*profile.visible, *profile.hidden)}):
        found = available(name, data_root=config.data_root)
        if not found.ok and not config.download:
            raise UsageError(f"profile {profile.name} needs {name}: {found.reason}")
