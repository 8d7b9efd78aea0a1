"""The steps of one search: set-up, baseline, loop, hidden task, summary."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping

from agent.analysis.design import Design
from agent.analysis.known_noise import in_words
from agent.clock import Clock
from agent.config import SearchConfig
from agent.engine.forecast import say_if_long
from agent.engine.launching import Inputs, record_launch, require_as_launched
from agent.engine.loop import End, run_loop
from agent.engine.outcome import SearchOutcome, conclude, tests_as_json
from agent.engine.resuming import Granted
from agent.engine.setup import fresh_workspace, make_toolbox
from agent.engine.summary import RunSummary
from agent.engine.toolbox import Toolbox
from agent.errors import AgentError, Interrupted, in_one_sentence
from agent.evaluation.batches import Candidate
from agent.evaluation.evaluator import EvaluatorOnDemand
from agent.evaluation.shared import SharedBench
from agent.evaluation.workbench import Workbench
from agent.profiles import baseline_region
from agent.progress import Progress
from agent.proposers import ProposerContext, make_proposer, prepare
from agent.protocol import Accuracies, Proposer, ProposerEnd, ToolCall
from agent.runs.artifacts import write_artifacts
from agent.runs.directory import RunDirectory
from agent.runs.events import Ended, Launch
from agent.runs.log import EventLog
from agent.runs.recorded_noise import Noise
from agent.transcripts.trajectory import TRAJECTORY, write_trajectory
from benchmark.executors import Executor
from benchmark.store import LayeredStore, ResultStore, user_store
from benchmark.tasks import Profile
from sandbox.isolate import Isolation
from sandbox.workspace import Workspace


class PreparedSearch:
    """What a search knows before it starts.

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


class OpenSearch:
    """A search whose log, isolation and processes are ready."""

    def __init__(
        self,
        search: PreparedSearch,
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
            prepare(proposer, start or baseline_region(self.profile), config.budget, tools.noise)
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
        if self._results.user is not None and (refusal := self._results.user.refusal()) is not None:
            self._progress.message(
                f"no result can be kept for other searches: {in_one_sentence(refusal)}; INITSEARCH_CACHE_DIR can name "
                "another folder"
            )
        self._progress.message(f"measuring the baseline (profile {profile.name}, {reason})")
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
        self._search.summary.save(
            **{name: value for name, value in done.items() if name != "event"},
            overhead=clock.overhead(),
            words=words,
            tests=tests_as_json(tools),
        )
        try:
            write_trajectory(run)
        except Interrupted:
            raise
        except (AgentError, OSError) as error:  # the results stand
            self._progress.message(
                f"{TRAJECTORY} could not be written ({in_one_sentence(error)}); agent export {run.path.name} prints it"
            )
        return SearchOutcome(run.path, end.status, done, words)
