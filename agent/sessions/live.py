"""A session under its lock: goes on where the log ends, and carries out calls by the toolbox of every search."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from agent.engine.loop import End, reason_in, submit_best, submitted_by
from agent.engine.outcome import SearchOutcome
from agent.engine.restoring import restore, restored_workspace
from agent.engine.search import Search
from agent.engine.steps import OpenSearch
from agent.engine.toolbox import Toolbox
from agent.errors import RunDamaged
from agent.progress import Progress
from agent.protocol import Observation, ToolCall
from agent.report import try_to_write_report
from agent.runs.events import Proposal, TimeUp
from agent.runs.fold import Fold, fold
from agent.runs.status import RunStatus
from agent.sessions.replies import SessionReply
from benchmark.executors import InfrastructureError
from benchmark.results import region_sha256
from sandbox.isolate import IsolationCrashed

T = TypeVar("T")


class LiveSession:
    """One process's hold of a session. Only `live_session` makes it."""

    def __init__(self, opened: OpenSearch, search: Search, tools: Toolbox, folded: Fold, progress: Progress) -> None:
        self.tools = tools
        self.folded = folded
        self.outcome: SearchOutcome | None = None
        """Once the session has ended."""
        self.finished: SessionReply | None = None
        """The reply of a call that an earlier process began."""
        self._opened = opened
        self._search = search
        self._progress = progress
        self._step = folded.step
        self._name = search.config.proposer.partition(":")[0]

    def go_on(self, start: str | None) -> None:
        """Finish what an earlier process began: the baseline, the start region, a call without a reply, the end."""
        if not self.tools.baseline:
            self._guarded(self._measure_baseline)
        pending = self.folded.pending
        if start is not None and not self.folded.calls:
            self._dispatch(0, ToolCall("rewrite", {"content": start}))
            pending = pending if pending is not None and pending.step > 0 else None
        if pending is not None:
            self._progress.message(f"first {pending.tool}, which an earlier command began and did not finish")
            self.finished = self.call(ToolCall(pending.tool, pending.arguments))
        elif self.tools.submitted is not None:
            self._end_submitted()

    def take_in(self, region: str) -> None:
        """Record what an editor made of the region as a `rewrite` call, unless the region is the recorded one."""
        if region != self.tools.workspace.region:
            self.call(ToolCall("rewrite", {"content": region}))

    def call(self, call: ToolCall) -> SessionReply:
        """Carry out one call. A submission also runs the hidden task, unless the run waits for a review."""
        self._step += 1
        seen = self._dispatch(self._step, call)
        if seen.submitted is not None:
            self._end(submitted_by(self._name, call.arguments["n"], seen.submitted))
        test = seen.test.number if seen.test is not None else seen.submitted
        return self._with_outcome(SessionReply(call.tool, seen.reply, seen.ok, seen.error, test, seen.submitted))

    def is_tested(self, region: str) -> bool:
        """Whether a test of this region has a result."""
        return region_sha256(region) in {test.region_sha256 for test in self.tools.tests}

    def note(self, event: Proposal) -> None:
        """Log what a command said and how it ended."""
        self._opened.log.append(event)

    def end_without_submission(self, end: End) -> SearchOutcome:
        """End the session for an editor that did not: submit the best test, then run the hidden task."""
        if end.status == "time":
            self._opened.log.append(TimeUp(max_seconds=self._search.config.max_seconds or 0.0))
        refused = [f"{c.call.tool}: {reason_in(c.reply.reply)}" for c in self.folded.calls if not c.reply.ok]
        self._end(submit_best(end, self.tools, refused))
        assert self.outcome is not None
        return self.outcome

    def _end_submitted(self) -> None:
        """Go on after a submission whose hidden task did not finish."""
        last = self.folded.calls[-1]
        assert self.tools.submitted is not None
        self._end(submitted_by(self._name, last.call.arguments["n"], self.tools.submitted))
        self.finished = self._with_outcome(SessionReply.recorded(last, None))

    def _end(self, end: End) -> None:
        self.outcome = self._guarded(lambda: self._opened.conclude(end, self.tools))
        if end.status == "infra":
            raise InfrastructureError(end.message)
        say = self._progress.message
        self._progress.trained()
        if not self.tools.tests:  # nothing whose effect could be shown: no isolation is started for it
            try_to_write_report(self._search.run, say, measure=False)
            return
        try_to_write_report(
            self._search.run,
            say,
            isolation=self._opened.isolation,
            executor=self._opened.executor,
            data_root=self._search.pinned.data_root,
            given=self._search.profile,
        )

    def _with_outcome(self, reply: SessionReply) -> SessionReply:
        done = self.outcome
        return reply if done is None else replace(reply, done=done.done, words=tuple(done.words))

    def _measure_baseline(self) -> None:
        self._opened.measure_baseline(self.tools)
        self.tools.finish_baseline()

    def _dispatch(self, step: int, call: ToolCall) -> Observation:
        return self._guarded(lambda: self.tools.dispatch(step, call))

    def _guarded(self, work: Callable[[], T]) -> T:
        """Do the work. A failure of our own machinery stands in the log, and the next command goes on."""
        try:
            return work()
        except (InfrastructureError, IsolationCrashed) as error:
            self._opened.log.halt(str(error))
            raise


@contextmanager
def live_session(search: Search, progress: Progress) -> Iterator[LiveSession]:
    """Lock the run, take in its log, and finish what was begun. Processes start when a call needs them.

    Raises RunBusy, RunDamaged, UsageError, and InfrastructureError or IsolationCrashed where our machinery fails.
    """
    with search.opened(progress, lazily=True) as opened:
        inputs, noise = opened.launch()
        seeds = len(search.config.baseline_evaluation_seeds)
        folded = fold(opened.log.records, seeds * len(search.profile.visible))
        if search.config.start is not None and inputs.start_region is None:
            raise RunDamaged(f"{search.run.events}: the region that the session starts from is not recorded")
        with restored_workspace(search.run, folded) as workspace:
            tools = opened.set_up_tools(workspace, noise)
            restore(tools, folded)
            if folded.events:
                opened.log.skip(folded.events)
            live = LiveSession(opened, search, tools, folded, progress)
            live.go_on(inputs.start_region)
            yield live
            if live.outcome is None:
                search.summary.save(status=RunStatus.SESSION)
