"""Runs one search: set-up, baseline, loop, hidden task, summary."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from agent.analysis.design import Design
from agent.analysis.noise import Noise, in_words
from agent.clock import Clock
from agent.config import SearchConfig
from agent.engine.auto_profile import choose_profile
from agent.engine.forecast import say_if_long
from agent.engine.loop import End, run_loop
from agent.engine.outcome import SearchOutcome, conclude, launch_line
from agent.engine.resuming import Allowed, Granted, first_launch, flags_again
from agent.engine.setup import (
    Inputs,
    check_prerequisites,
    fresh_workspace,
    make_toolbox,
    record_launch,
    require_as_launched,
    settled,
    start_region,
)
from agent.engine.summary import RunSummary
from agent.engine.toolbox import Toolbox
from agent.errors import AgentError, RunDamaged, UsageError, in_one_sentence
from agent.evaluation.evaluator import Candidate, EvaluatorOnDemand
from agent.evaluation.gpu_lanes import learn_lanes
from agent.evaluation.shared import SharedBench
from agent.evaluation.workbench import Workbench, open_workbench, recorded_threads, side_by_side
from agent.profiles import baseline_region, recorded_profile, with_default_seeds
from agent.progress import Progress
from agent.proposers import ProposerContext, make_proposer, prepare, proposer_kind
from agent.protocol import Accuracies, Proposer, ProposerEnd, ToolCall
from agent.runs.artifacts import write_artifacts
from agent.runs.directory import RunDirectory
from agent.runs.live import live_file
from agent.runs.log import Ended, EventLog, Launch
from agent.runs.places import Places
from agent.runs.status import RunStatus
from agent.secrets import kept_from_children
from agent.transcripts.trajectory import TRAJECTORY, write_trajectory
from benchmark.executors import Executor
from benchmark.store import LayeredStore, ResultStore, checkpoint_folder, user_store
from benchmark.tasks import Profile, is_task_file
from sandbox.isolate import Isolation
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
    def create(
        cls,
        config: SearchConfig,
        *,
        by_session: bool = False,
        resolved: tuple[Profile, str] | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> Search:
        """Check everything that can be checked for free, then make the run directory. Raises UsageError.

        `by_session`: `agent.sessions` carries out the calls, which no proposer in this process makes. `resolved` is the
        profile of `config`, and why it is that one, if the caller has it already. `say` hears what takes seconds:
        `auto` may measure a training step.
        """
        profile, reason = resolved or choose_profile(config, say)
        config, notes = settled(with_default_seeds(config, profile))
        check_prerequisites(config, profile)
        start = start_region(config)
        kind = proposer_kind(config)
        if kind.in_session and not by_session:
            raise UsageError(f"--proposer {config.proposer}: {kind.in_session}")
        checked = kind.check(config)
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
            launch = first_launch(run.events)
            begun = launch is not None or not is_task_file(config.profile)
            of_run = recorded_profile(recorded["profile"], launch.tasks if launch else None) if begun else None
        except (KeyError, ValueError) as error:
            raise RunDamaged(f"{run.summary}: {in_one_sentence(error)}") from None
        allowed = allowed or Allowed()
        profile = allowed.profile_of(run, config, of_run)
        granted = allowed.applied(run, config, profile, recorded.get("isolation_level"))
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
    def opened(self, progress: Progress, *, lazily: bool = False) -> Iterator[OpenSearch]:
        """Lock the run, and open log, isolation and processes. All are closed when the block ends.

        The isolation can be used in the block after the search too, such as for the page. `lazily`: isolation and
        processes start when they are first needed. Raises RunBusy, UsageError.
        """
        with self.run.held(), self.summary.stops_recorded(), ExitStack() as stack:
            self.summary.save(status=RunStatus.RUNNING, created=time.time())
            shared = self.shared
            secrets = stack.enter_context(kept_from_children()) if shared is None else shared.secrets
            log = stack.enter_context(EventLog(self.run.events))
            progress = stack.enter_context(live_file(self.run.path, progress))
            self.clock.watch("bookkeeping", lambda: log.seconds)

            @functools.cache
            def workbench() -> Workbench:
                bench = shared.workbench(self.clock, progress, log.append) if shared else stack.enter_context(own())
                if bench.executor.remote:
                    bench.evaluator.places = stack.enter_context(contextlib.closing(Places(self.run)))
                return bench

            def own() -> contextlib.AbstractContextManager[Workbench]:
                learn_lanes(self.pinned, self.profile, progress.message)
                return open_workbench(
                    self.pinned,
                    self.clock,
                    progress,
                    log.append,
                    log=self.run.path / "workers.log",
                    evaluations=side_by_side(self.config, self.profile),
                    threads=self.threads,
                    checkpoints=checkpoint_folder(self.run.path),
                    datasets=tuple(task.dataset for task in self.profile.tasks if task.data is None),
                )

            opened = OpenSearch(self, log, workbench, {**os.environ, **secrets}, progress, lazily=lazily)
            if not lazily:
                workbench()
            yield opened


class OpenSearch:
    """A search whose log, isolation and processes are ready."""

    def __init__(
        self,
        search: Search,
        log: EventLog,
        workbench: Callable[[], Workbench],
        environ: Mapping[str, str],
        progress: Progress,
        *,
        lazily: bool = False,
    ) -> None:
        self.config, self.run, self.profile = search.config, search.run, search.profile
        self.log = log
        self._search = search
        self._start = workbench
        self._lazily = lazily
        self._environ = environ
        self._progress = progress
        self._results = LayeredStore(ResultStore(search.run.results), user_store() if search.config.cache else None)
        search.clock.watch("bookkeeping", lambda: self._results.seconds)

    @functools.cached_property
    def _workbench(self) -> Workbench:
        """Isolation and processes. Raises UsageError where a session goes on in another environment."""
        workbench = self._start()
        if self._lazily and (launch := next((r.event for r in self.log.records[:1]), None)) is not None:
            require_as_launched(self.log.path, launch, workbench)
        return workbench

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
            inputs, noise = self.launch()
            with fresh_workspace(self.run, self.profile) as workspace:
                tools = self.set_up_tools(workspace, noise)
                proposer = make_proposer(self._search.pinned, self._context(inputs))
                return self._search_with(proposer, tools, inputs.start_region)

    def _search_with(self, proposer: Proposer, tools: Toolbox, start: str | None) -> SearchOutcome:
        config = self.config
        try:
            prepare(proposer, start or baseline_region(self.profile), config.budget)
        except ProposerEnd as stop:  # nothing will be proposed, so the baseline is not trained
            self.log.append(Ended(status=stop.status, message=str(stop)))
            return self._sum_up(End(stop.status, str(stop)), tools)
        self.measure_baseline(tools)
        if start is not None:
            tools.dispatch(0, ToolCall("rewrite", {"content": start}))
        steps, seconds = config.max_steps, config.max_seconds
        end = run_loop(
            proposer,
            tools,
            self._search.clock,
            self.log,
            max_steps=steps,
            max_seconds=seconds,
            parallel=config.parallel,
        )
        return self.conclude(end, tools)

    def conclude(self, end: End, tools: Toolbox) -> SearchOutcome:
        """Run the hidden task of a submission unless it waits for a review, record the end, and sum up."""
        if end.status == "infra":
            self.log.halt(end.message)
            return self._sum_up(end, tools)
        if tools.submitted is not None and not self._search.release and self.profile.hidden:
            message = f"{end.message} The hidden task waits for: agent submit {self.run.path.name}"
            return self._sum_up(End("waiting_for_review", message), tools)
        hidden = self._run_hidden(tools)
        self.log.append(Ended(status=end.status, message=end.message))
        return self._sum_up(end, tools, hidden)

    # -- the steps ------------------------------------------------------------------------------------------------

    def launch(self) -> tuple[Inputs, Noise | None]:
        """Record configuration, environment and noise. Returns the contents of the user's files, and the noise.

        Where processes start lazily, the environment is compared with the recorded one when they start.
        """
        given = self._search.granted or Granted(self.config)
        for note in (*self._search.notes, *given.notes):
            self._progress.message(note)
        inputs = self._search.inputs
        launch = self.log.recorded("launch")
        if self._lazily and isinstance(launch, Launch):
            place = (launch.environment, launch.isolation_level)
            return record_launch(self.log, self.config, self.profile, *place, inputs, given.files)
        workbench = self._workbench
        place = (workbench.environment, workbench.isolation.level)
        inputs, noise = record_launch(self.log, self.config, self.profile, *place, inputs, given.files)
        self._search.summary.save(
            environment=workbench.environment,
            isolation_level=workbench.isolation.level,
            isolation=workbench.isolation.evidence,
            slots=workbench.slots,
        )
        for line in in_words(noise):
            self._progress.message(line)
        return inputs, noise

    def set_up_tools(self, workspace: Workspace, noise: Noise | None) -> Toolbox:
        """The toolbox with the whole budget, nothing tested and no baseline."""
        design = Design.of(self.config)
        hidden = design.hidden.trainings * len(self.profile.hidden) if self._search.release else 0
        self._progress.begin(design.trainings * len(self.profile.visible) + hidden, self.config.budget)
        self._search.clock.watch("bookkeeping", lambda: workspace.seconds)
        evaluator = EvaluatorOnDemand(lambda: self._workbench.evaluator) if self._lazily else self._workbench.evaluator
        return make_toolbox(
            self.config,
            self.profile,
            evaluator,
            workspace=workspace,
            log=self.log,
            results=self._results,
            noise=noise,
        )

    def _context(self, inputs: Inputs) -> ProposerContext:
        clock, most = self._search.clock, self.config.max_seconds
        return ProposerContext(
            profile=self.profile,
            log=self.log,
            study=self.run.study,
            start_region=inputs.start_region,
            script=inputs.script,
            environ=self._environ,
            say=self._progress.message,
            seconds_left=lambda: math.inf if most is None else most - clock.elapsed,
            contacted=self._search.contacted,
        )

    def measure_baseline(self, tools: Toolbox) -> None:
        """Train the untouched region on the visible tasks."""
        config, profile, workbench, reason = self.config, self.profile, self._workbench, self._search.reason
        if self._search.inputs is not None:
            say = self._progress.message
            say_if_long(config, profile, workbench.executor, workbench.environment, say, tools.noise)
        self._progress.message(f"measuring the baseline ({profile.name}: {reason})")
        tools.begin_baseline(config.baseline_evaluation_seeds)
        # A tape is compared event by event, and the limit on time counts the baseline: then it is waited for.
        if self.log.replaying or config.max_seconds is not None:
            tools.finish_baseline()

    def _run_hidden(self, tools: Toolbox) -> dict[str, Accuracies]:
        """Role → accuracies of baseline and submission on the hidden task; {} when nothing was submitted."""
        if tools.submitted is None or not self.profile.hidden:
            return {}
        self._progress.message(f"submitted test #{tools.submitted}; now the hidden task, for baseline and submission")
        return self._workbench.evaluator.measure(
            Candidate("hidden/baseline", baseline_region(self.profile)),
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
