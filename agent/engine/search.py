"""Makes a search, or finds an interrupted one again, and opens it: log, isolation and processes."""

from __future__ import annotations

import contextlib
import functools
import os
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from agent.config import SearchConfig
from agent.engine.auto_profile import choose_profile
from agent.engine.launching import Inputs, first_launch
from agent.engine.outcome import SearchOutcome, launch_line
from agent.engine.resuming import Allowed, flags_again
from agent.engine.setup import check_prerequisites, settled
from agent.engine.steps import OpenSearch, PreparedSearch
from agent.errors import RunDamaged, UsageError, in_one_sentence
from agent.evaluation.gpu_lanes import learn_lanes
from agent.evaluation.slot_plan import recorded_threads, side_by_side
from agent.evaluation.workbench import Workbench, open_workbench
from agent.profiles import recorded_profile, with_default_seeds
from agent.progress import Progress
from agent.proposers import proposer_kind
from agent.runs.directory import RunDirectory
from agent.runs.live import LiveFile
from agent.runs.log import EventLog
from agent.runs.places import Places
from agent.runs.status import RunStatus
from agent.secrets import kept_from_children
from agent.spaces.start import starting_region
from benchmark.store import checkpoint_folder
from benchmark.tasks import Profile, is_task_file

__all__ = ["Search", "SearchOutcome"]


class Search(PreparedSearch):
    """A search and its run directory. It starts nothing before `opened`."""

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
        start = None if config.start is None else starting_region(config.start)
        kind = proposer_kind(config)
        if kind.in_session and not by_session:
            raise UsageError(f"--proposer {config.proposer}: {kind.in_session}")
        profile, reason = resolved or choose_profile(config, say)  # after what can be refused at once
        config, notes = settled(with_default_seeds(config, profile))
        check_prerequisites(config, profile)
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
        return f"agent search --resume {shlex.quote(str(self.run.path))}{flags_again(self.config, self.pinned)}"

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
            progress = stack.enter_context(contextlib.closing(LiveFile(self.run.path, progress)))
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
                    repeats=not lazily,  # a command that measures only the baseline runs nothing twice
                )

            opened = OpenSearch(self, log, workbench, {**os.environ, **secrets}, progress, lazily=lazily)
            if not lazily:
                workbench()
            yield opened
