"""Runs one search: set-up, baseline, loop, hidden task, summary."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from agent.analysis.design import Design
from agent.clock import Clock
from agent.config import SearchConfig
from agent.engine.forecast import say_if_long
from agent.engine.loop import End, run_loop
from agent.engine.outcome import SearchOutcome, conclude, launch_line
from agent.engine.resuming import Allowed, Granted, flags_again
from agent.engine.setup import (
    Inputs,
    check_prerequisites,
    fresh_workspace,
    make_toolbox,
    record_launch,
    settled,
    start_region,
)
from agent.engine.summary import RunSummary
from agent.engine.toolbox import Toolbox
from agent.errors import AgentError, RunDamaged, UsageError, in_one_sentence
from agent.evaluation.evaluator import Candidate
from agent.evaluation.shared import SharedBench
from agent.evaluation.workbench import Workbench, open_workbench, recorded_threads, side_by_side
from agent.profiles import resolve_profile
from agent.progress import Progress
from agent.proposers import ProposerContext, make_proposer, prepare, proposer_kind
from agent.protocol import Accuracies, Proposer, ProposerEnd, ToolCall
from agent.runs.artifacts import write_artifacts
from agent.runs.directory import RunDirectory
from agent.runs.log import Ended, EventLog
from agent.runs.places import Places
from agent.runs.status import RunStatus
from agent.secrets import kept_from_children
from agent.transcripts.trajectory import TRAJECTORY, write_trajectory
from benchmark.executors import Executor
from benchmark.store import LayeredStore, ResultStore, user_store
from benchmark.tasks import Profile
from sandbox.isolate import Isolation
from sandbox.region import scaffold
from sandbox.workspace import Workspace

__all__ = ["OpenSearch", "Search", "SearchOutcome"]


class Search:
    """A search and its run directory. It starts nothing before `opened`.

    `inputs` are None for a resumed search, which reads them from its log. `release`: the hidden task may run.
    `config` is what the run records. `pinned` is what the search runs with: for a resumed one, what was `granted`.
    `threads` per slot that a resumed search must use, because results belong to them.
    """

    def __init__(
        self,
        config: SearchConfig,
        run: RunDirectory,
        profile: Profile,
        reason: str,
        *,
        release: bool,
        inputs: Inputs | None = None,
        threads: int | None = None,
        contacted: bool = False,
        granted: Granted | None = None,
    ) -> None:
        self.config = config
        self.run = run
        self.profile = profile
        self.reason = reason
        self.release = release
        self.inputs = inputs
        self.threads = threads
        self.contacted = contacted
        self.granted = granted
        self.pinned = config if granted is None else granted.config
        self.shared: SharedBench | None = None
        """Isolation and slots of several searches side by side; None: the search opens its own."""
        self.notes: tuple[str, ...] = ()
        """What is said to a person when the search begins."""
        self.clock = Clock()
        self.summary = RunSummary(run, config, profile, reason, self.clock)

    @classmethod
    def create(cls, config: SearchConfig) -> Search:
        """Check everything that can be checked for free, then make the run directory. Raises UsageError."""
        profile, reason = resolve_profile(config.profile, data_root=config.data_root, download=config.download)
        config, notes = settled(config)
        check_prerequisites(config, profile)
        start = start_region(config)
        checked = proposer_kind(config).check(config)
        run = RunDirectory.create(config.runs, f"{profile.name}-{config.proposer.partition(':')[0]}")
        inputs = Inputs(start, checked.script)
        search = cls(config, run, profile, reason, release=config.submit, inputs=inputs, contacted=checked.contacted)
        search.notes = notes
        return search

    @classmethod
    def resume(cls, run: RunDirectory, *, release: bool = False, allowed: Allowed | None = None) -> Search:
        """An interrupted search that continues from its log. `release` lets a waiting search run the hidden task.

        Raises UsageError when the search has ended, when it waits and is not released, or when it wants more than is
        `allowed`.
        """
        recorded = run.read_summary()
        status = RunStatus.of(recorded)
        if status.waiting and not release:
            raise UsageError(f"{run.path}: this run waits for a review; `agent submit {run.path.name}` goes on with it")
        if status.finished:
            raise UsageError(f"{run.path}: this run is complete ({status}); `agent show` prints it")
        if not status.resumable and not status.waiting:
            raise UsageError(
                f"{run.path}: run.json has the status {recorded.get('status')!r}, which means nothing here"
            )
        try:
            config = SearchConfig.model_validate(recorded["config"])
            profile, _ = resolve_profile(recorded["profile"])
        except (KeyError, ValueError) as error:
            raise RunDamaged(f"{run.summary}: {in_one_sentence(error)}") from None
        granted = (allowed or Allowed()).applied(run, config, profile, recorded.get("isolation_level"))
        again, threads = config.submit or release, recorded_threads(recorded.get("environment"))
        return cls(config, run, profile, "resumed", release=again, granted=granted, threads=threads)

    @property
    def resume_command(self) -> str:
        """What goes on with this search, with the flags that count only when they are given again."""
        return f"agent search --resume {self.run.path}{flags_again(self.config, self.pinned)}"

    @property
    def launch(self) -> dict[str, Any]:
        """The first line of `agent search --json`."""
        return launch_line(self.run.path, self.profile.name, self.config.budget, self.config.proposer, self.reason)

    def execute(self, progress: Progress) -> SearchOutcome:
        """Run to the end. On a signal or a failure the run directory says so and can be resumed."""
        with self.opened(progress) as opened:
            return opened.execute()

    @contextmanager
    def opened(self, progress: Progress) -> Iterator[OpenSearch]:
        """Lock the run, and open log, isolation and processes. All are closed when the block ends.

        The isolation can be used in the block after the search too, such as for the page. Raises RunBusy, UsageError.
        """
        with self.run.held(), self.summary.stops_recorded(), ExitStack() as stack:
            self.summary.save(status=RunStatus.RUNNING, created=time.time())
            shared = self.shared
            secrets = stack.enter_context(kept_from_children()) if shared is None else shared.secrets
            log = stack.enter_context(EventLog(self.run.events))
            self.clock.watch("bookkeeping", lambda: log.seconds)
            workbench = (
                shared.workbench(self.clock, progress, log.append)
                if shared
                else stack.enter_context(
                    open_workbench(
                        self.pinned,
                        self.clock,
                        progress,
                        log.append,
                        log=self.run.path / "workers.log",
                        evaluations=side_by_side(self.config, self.profile),
                        threads=self.threads,
                        datasets=tuple(task.dataset for task in (*self.profile.visible, *self.profile.hidden)),
                    )
                )
            )
            if workbench.executor.remote:
                workbench.evaluator.places = stack.enter_context(contextlib.closing(Places(self.run)))
            yield OpenSearch(self, log, workbench, {**os.environ, **secrets}, progress)


class OpenSearch:
    """A search whose log, isolation and processes are ready."""

    def __init__(
        self, search: Search, log: EventLog, workbench: Workbench, environ: Mapping[str, str], progress: Progress
    ) -> None:
        self.config, self.run, self.profile = search.config, search.run, search.profile
        self._search = search
        self._log = log
        self._workbench = workbench
        self._environ = environ
        self._progress = progress
        self._results = LayeredStore(ResultStore(search.run.results), user_store() if search.config.cache else None)
        search.clock.watch("bookkeeping", lambda: self._results.seconds)

    @property
    def isolation(self) -> Isolation:
        """The isolation in which candidates run. It is open until the block of `Search.opened` ends."""
        return self._workbench.isolation

    @property
    def executor(self) -> Executor | None:
        """The training processes, running until `Search.opened` is left; None if they are on other machines."""
        return None if self._workbench.executor.remote else self._workbench.executor

    def execute(self) -> SearchOutcome:
        """Run to the end."""
        with self._search.summary.stops_recorded():
            inputs = self._launch()
            with fresh_workspace(self.run) as workspace:
                tools = self._set_up_tools(workspace)
                proposer = make_proposer(self._search.pinned, self._context(inputs))
                return self._search_with(proposer, tools, inputs.start_region)

    def _search_with(self, proposer: Proposer, tools: Toolbox, start: str | None) -> SearchOutcome:
        config = self.config
        try:
            prepare(proposer, start or scaffold().region, config.budget)
        except ProposerEnd as stop:  # nothing will be proposed, so the baseline is not trained
            self._log.append(Ended(status=stop.status, message=str(stop)))
            return self._sum_up(End(stop.status, str(stop)), tools)
        self._measure_baseline(tools)
        if start is not None:
            tools.dispatch(0, ToolCall("rewrite", {"content": start}))
        steps, seconds = config.max_steps, config.max_seconds
        end = run_loop(
            proposer,
            tools,
            self._search.clock,
            self._log,
            max_steps=steps,
            max_seconds=seconds,
            parallel=config.parallel,
        )
        if end.status == "infra":
            self._log.halt(end.message)
            return self._sum_up(end, tools)
        if tools.submitted is not None and not self._search.release:
            message = f"{end.message} The hidden task waits for: agent submit {self.run.path.name}"
            return self._sum_up(End("waiting_for_review", message), tools)
        hidden = self._run_hidden(tools)
        self._log.append(Ended(status=end.status, message=end.message))
        return self._sum_up(end, tools, hidden)

    # -- the steps ------------------------------------------------------------------------------------------------

    def _launch(self) -> Inputs:
        """Record configuration and environment in log and run.json. Returns the contents of the user's files."""
        workbench = self._workbench
        given = self._search.granted or Granted(self.config)
        for note in (*self._search.notes, *given.notes):
            self._progress.message(note)
        inputs = record_launch(self._log, self.config, self.profile, workbench, self._search.inputs, given.files)
        self._search.summary.save(
            environment=workbench.environment,
            isolation_level=workbench.isolation.level,
            isolation=workbench.isolation.evidence,
            slots=workbench.slots,
        )
        return inputs

    def _set_up_tools(self, workspace: Workspace) -> Toolbox:
        design = Design.of(self.config)
        hidden = design.hidden.trainings * len(self.profile.hidden) if self._search.release else 0
        self._progress.begin(design.trainings * len(self.profile.visible) + hidden, self.config.budget)
        self._search.clock.watch("bookkeeping", lambda: workspace.seconds)
        return make_toolbox(
            self.config,
            self.profile,
            self._workbench,
            workspace=workspace,
            log=self._log,
            results=self._results,
        )

    def _context(self, inputs: Inputs) -> ProposerContext:
        clock, most = self._search.clock, self.config.max_seconds
        return ProposerContext(
            profile=self.profile,
            log=self._log,
            study=self.run.study,
            start_region=inputs.start_region,
            script=inputs.script,
            environ=self._environ,
            say=self._progress.message,
            seconds_left=lambda: math.inf if most is None else most - clock.elapsed,
            contacted=self._search.contacted,
        )

    def _measure_baseline(self, tools: Toolbox) -> None:
        config, profile, workbench, reason = self.config, self.profile, self._workbench, self._search.reason
        if self._search.inputs is not None:
            say_if_long(config, profile, workbench.executor, workbench.environment, self._progress.message)
        self._progress.message(f"measuring the baseline ({profile.name}: {reason})")
        tools.begin_baseline(config.baseline_evaluation_seeds)
        # A tape is compared event by event, and the limit on time counts the baseline: then it is waited for.
        if self._log.replaying or config.max_seconds is not None:
            tools.finish_baseline()

    def _run_hidden(self, tools: Toolbox) -> dict[str, Accuracies]:
        """Role → accuracies of baseline and submission on the hidden task; {} when nothing was submitted."""
        if tools.submitted is None:
            return {}
        self._progress.message(f"submitted test #{tools.submitted}; now the hidden task, for baseline and submission")
        return self._workbench.evaluator.measure(
            Candidate("hidden/baseline", scaffold().region),
            [Candidate("hidden/submission", tools.regions[tools.submitted])],
            self.profile.hidden,
            self.config.evaluation_seeds,
            results=LayeredStore(ResultStore(self.run.hidden)),  # hidden results are never shared between runs
        )

    def _sum_up(self, end: End, tools: Toolbox, hidden: Mapping[str, Accuracies] = {}) -> SearchOutcome:
        run, clock = self.run, self._search.clock
        done, words = conclude(self.config, self.profile, run.path, end, tools, hidden, clock.seconds())
        if tools.submitted is not None:
            with clock.phase("bookkeeping"):
                write_artifacts(run, tools.regions[tools.submitted], tools.submitted, words[1:])
        tests = [
            {"number": test.number, "region_sha256": test.region_sha256, "accuracies": test.accuracies}
            for test in tools.tests
        ]
        self._search.summary.save(
            **{name: value for name, value in done.items() if name != "event"},
            overhead=clock.overhead(),
            words=words,
            tests=tests,
        )
        try:
            write_trajectory(run)
        except (AgentError, OSError) as error:  # the results stand
            self._progress.message(
                f"{TRAJECTORY} could not be written ({error}); agent export {run.path.name} prints it"
            )
        return SearchOutcome(run.path, end.status, done, words)
