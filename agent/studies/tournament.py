"""Compares proposers by repeated searches with equal budget, seeds and profile.

A repeat is one search of each proposer from the same first seed, so that proposers are compared in pairs. All results
are read from the runs' logs. A finished run in the folder with the same configuration is used, an interrupted one is
resumed, and a missing one is run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.analysis.estimate import Estimate, estimate
from agent.clock import Clock
from agent.config import SearchConfig
from agent.engine.auto_profile import choose_profile
from agent.engine.resuming import Allowed
from agent.engine.search import Search
from agent.errors import AgentError, RunDamaged, UsageError
from agent.evaluation.batches import Candidate, accuracies_of
from agent.evaluation.shared import SharedBench, open_shared
from agent.evaluation.slot_plan import recorded_threads, side_by_side
from agent.evaluation.workbench import open_workbench
from agent.profiles import baseline_region, with_default_seeds
from agent.progress import Progress, Together
from agent.proposers import proposer_kind
from agent.protocol import Accuracies
from agent.runs.directory import RunDirectory, list_runs
from agent.runs.events import Submitted, accuracies_by_role
from agent.runs.log import read_events
from agent.runs.status import RunStatus
from benchmark.seeds import FRESH_FROM, TOURNAMENT_STEP, tournament_seed, winners_seeds
from benchmark.store import LayeredStore, ResultStore, user_store
from benchmark.task import ACCURACY, SEED_SD, Metric, common_metric
from benchmark.tasks import Profile, is_task_file
from sandbox.history import History

_ELSEWHERE = frozenset({"runs", "cache", "download", "executor", "ray_address", "slurm"})
"""Settings that change no accuracy."""

_ALL_ACCURACIES: Mapping[str, Metric] = {}
Gains = dict[str, float]
"""Task → gain over the baseline, in points or in the task's metric, positive when better; NaN where it failed."""


@dataclass(frozen=True)
class Repeat:
    """One finished search of a tournament, read from its log.

    A search without a submission has a gain of 0, since the baseline stays. A failed training has an accuracy of 0 %;
    another metric has no worst value, so that gain is NaN.
    """

    proposer: str
    number: int
    seed: int
    run: RunDirectory
    status: str
    submitted: int | None
    tests_used: int
    visible: Gains
    hidden: Gains
    found: bool
    """Whether the run existed before."""

    def as_json(self) -> dict[str, Any]:
        """The line of `agent compare --proposers … --json`."""
        return {
            "event": "run",
            "proposer": self.proposer,
            "repeat": self.number,
            "seed": self.seed,
            "run": str(self.run.path),
            "status": self.status,
            "tests_used": self.tests_used,
            "submitted_test": self.submitted,
            "visible": _finite(self.visible),
            "hidden": _finite(self.hidden),
            "found": self.found,
        }


class Tournament:
    """The repeats of several proposers. The constructor raises UsageError for wrong settings; it runs nothing."""

    def __init__(self, config: SearchConfig, proposers: Sequence[str], repeats: int, fresh: int = 0) -> None:
        if not proposers or len(set(proposers)) != len(proposers):
            raise UsageError("--proposers wants different names, separated by commas, such as random,optuna")
        if repeats < 1 or fresh < 0:
            raise UsageError("--repeats must be at least 1, and --fresh at least 0")
        if tournament_seed(config.seed, repeats + 1) > FRESH_FROM or fresh * repeats > FRESH_FROM:
            raise UsageError(f"too many seeds: --seed + {TOURNAMENT_STEP} × --repeats must stay below {FRESH_FROM:,}")
        self.proposers = tuple(proposers)
        self.repeats = repeats
        self.fresh = fresh
        self.profile: Profile = choose_profile(config, lambda text: None)[0]
        self.config = with_default_seeds(config, self.profile)
        for name in self.proposers:
            first = self.search_config(name, 1)
            proposer_kind(first).check(first)

    def search_config(self, proposer: str, number: int) -> SearchConfig:
        """The configuration of one search; repeats are numbered from 1."""
        seed = tournament_seed(self.config.seed, number)
        name = self.config.profile if is_task_file(self.config.profile) else self.profile.name
        changes = {"proposer": proposer, "seed": seed, "profile": name, "submit": True}
        return SearchConfig.model_validate({**self.config.model_dump(), **changes})

    def fresh_seeds(self, number: int) -> range:
        """The seeds with which a repeat's winners are measured again."""
        return winners_seeds(number, self.fresh)

    def run(self, make_progress: Callable[[], Progress]) -> Iterator[Repeat]:
        """Find or run every search, repeat by repeat, so that after an interruption all proposers have equally many.

        The searches of a repeat run side by side and share their slots. Raises AgentError when our own machinery
        failed. The same command then continues.
        """
        with ExitStack() as stack:
            bench: SharedBench | None = None
            progress: Progress | None = None
            for number in range(1, self.repeats + 1):
                configs = {proposer: self.search_config(proposer, number) for proposer in self.proposers}
                found = {proposer: find_run(config) for proposer, config in configs.items()}
                searches = {
                    proposer: self._search(configs[proposer], run)
                    for proposer, (run, done) in found.items()
                    if not done
                }
                if searches and progress is None:
                    progress = make_progress()
                    stack.callback(progress.close)
                if searches and progress is not None:
                    if bench is None:
                        bench = stack.enter_context(self._bench(progress, len(self.proposers)))
                    self._execute(searches, number, bench, progress)
                for proposer, (known, done) in found.items():
                    run = searches[proposer].run if known is None or not done else known
                    yield self._repeat(proposer, number, configs[proposer].seed, run, found=done)

    def _search(self, config: SearchConfig, run: RunDirectory | None) -> Search:
        """A new search, or the interrupted one of this configuration."""
        if run is None:
            return Search.create(config, resolved=(self.profile, "as asked"))
        return Search.resume(run, allowed=Allowed.of(config, self.profile))

    def _bench(self, progress: Progress, searches: int) -> AbstractContextManager[SharedBench]:
        """The slots and the isolation that all searches share."""
        config, profile = self.config, self.profile
        return open_shared(
            config,
            progress,
            log=config.runs.absolute() / "workers.log",
            evaluations=searches * side_by_side(config, profile),
            datasets=tuple(task.dataset for task in profile.tasks),
        )

    def _execute(self, searches: Mapping[str, Search], number: int, bench: SharedBench, progress: Progress) -> None:
        """Run these searches side by side. If one fails, or a signal arrives, the others are stopped, too."""
        together = Together(progress)
        for proposer, search in searches.items():
            progress.message(f"repeat {number} of {self.repeats}: {proposer}, {search.run.path}")
            if search.threads in (None, recorded_threads(bench.environment)):
                search.shared = bench  # another number of threads is another environment: it has slots of its own
        with ThreadPoolExecutor(len(searches), thread_name_prefix="search") as pool:
            try:
                running = {
                    pool.submit(search.execute, together.of(proposer)): search for proposer, search in searches.items()
                }
                for future in as_completed(running):
                    outcome, search = future.result(), running[future]
                    if outcome.exit_code == 1:
                        raise AgentError(f"{search.run.path}: {outcome.words[0]}")
            except BaseException:
                bench.close()
                raise

    def _repeat(self, proposer: str, number: int, seed: int, run: RunDirectory, *, found: bool) -> Repeat:
        summary = run.read_summary()
        visible, hidden = _gains(run, self.profile)
        return Repeat(
            proposer=proposer,
            number=number,
            seed=seed,
            run=run,
            status=str(summary["status"]),
            submitted=summary.get("submitted_test"),
            tests_used=int(summary.get("tests_used", 0)),
            visible=visible or dict.fromkeys((task.name for task in self.profile.visible), 0.0),
            hidden=hidden or dict.fromkeys((task.name for task in self.profile.hidden), 0.0),
            found=found,
        )

    def measure_fresh(self, repeats: Sequence[Repeat], progress: Progress) -> dict[str, list[Gains]]:
        """Measure each winner and the baseline on the visible tasks with seeds that no search used: proposer → repeats.

        Every repeat has its own seeds, shared by its winners and its baseline. So repeats are independent, and their
        scatter includes the noise of the baseline.
        """
        results = LayeredStore(ResultStore(self.config.runs / "fresh"), user_store() if self.config.cache else None)
        gains: dict[str, list[Gains]] = {name: [] for name in self.proposers}
        baseline = baseline_region(self.profile)
        tasks = self.profile.visible
        progress.begin(self.repeats * (len(self.proposers) + 1) * len(tasks) * self.fresh)
        with open_workbench(self.config, Clock(), progress) as workbench:
            for number in range(1, self.repeats + 1):
                winners = {repeat.proposer: winner(repeat) or baseline for repeat in repeats if repeat.number == number}
                regions = dict.fromkeys([baseline, *winners.values()])
                candidates = [Candidate(_role(number, index), region) for index, region in enumerate(regions)]
                outcomes = workbench.evaluator.evaluate(candidates, tasks, self.fresh_seeds(number), results=results)
                seen = {candidate.region: accuracies_of(outcomes, candidate.role) for candidate in candidates}
                for proposer, region in winners.items():
                    gains[proposer].append(_gain(self.profile, seen[baseline], seen[region]))
        return gains


def winner(repeat: Repeat) -> str | None:
    """The submitted region, from the run's git history; None when nothing was submitted."""
    if repeat.submitted is None:
        return None
    return History(repeat.run.workspace).region_at(f"submit/{repeat.submitted}")


def overall(
    gains: Sequence[Gains], metrics: Mapping[str, Metric] = _ALL_ACCURACIES, confidence: float = 0.95
) -> Estimate:
    """The mean over the tasks, estimated over the repeats. It is NaN where the tasks' metrics differ."""
    if common_metric(metrics.get(task, ACCURACY) for task in gains[0]) == SEED_SD:
        return Estimate(math.nan, None, None, (), confidence)
    return estimate([sum(gain.values()) / len(gain) for gain in gains], confidence)


def differences(
    first: Sequence[Gains],
    other: Sequence[Gains],
    confidence: float,
    metrics: Mapping[str, Metric] = _ALL_ACCURACIES,
) -> Estimate:
    """The second proposer minus the first, repeat by repeat; both in the order of their repeats."""
    pairs = zip(first, other, strict=True)
    gains = [{task: after[task] - before[task] for task in before} for before, after in pairs]
    return overall(gains, metrics, confidence)


def find_run(config: SearchConfig) -> tuple[RunDirectory | None, bool]:
    """A run with exactly this configuration, preferably a finished one, and whether it is finished."""
    wanted = _identity(config.model_dump(mode="json"))
    same: list[tuple[bool, Path]] = []
    for path in list_runs(config.runs):
        try:
            summary = RunDirectory(path).read_summary()
        except RunDamaged:
            continue
        status = RunStatus.of(summary)
        if (status.finished or status.resumable) and _identity(summary.get("config")) == wanted:
            same.append((status.finished, path))
    if not same:
        return None, False
    done, path = max(same)
    return RunDirectory(path.resolve()), done


def _identity(recorded: object) -> Mapping[str, Any]:
    """The recorded settings that identify a search. A run that lacks a setting is another search."""
    return {k: v for k, v in recorded.items() if k not in _ELSEWHERE} if isinstance(recorded, Mapping) else {}


def _gains(run: RunDirectory, profile: Profile) -> tuple[Gains, Gains]:
    """Visible and hidden gains of the submission, from the log; {} when nothing was submitted."""
    events = [record.event for record in read_events(run.events)]
    submitted = [event.number for event in events if isinstance(event, Submitted)]
    if not submitted:
        return {}, {}
    roles = accuracies_by_role(events)
    return (
        _gain(profile, roles["baseline"], roles[f"test/{submitted[-1]}"]),
        _gain(profile, roles.get("hidden/baseline", {}), roles.get("hidden/submission", {})),
    )


def _gain(profile: Profile, before: Accuracies, after: Accuracies) -> Gains:
    """Task → difference of the means, positive when better. A failed training counts as 0 %, or as NaN."""
    metrics = profile.metrics
    return {
        task: metrics[task].sign * (_mean(after[task], metrics[task]) - _mean(seeds, metrics[task]))
        for task, seeds in before.items()
    }


def _mean(seeds: Mapping[int, float | None], metric: Metric) -> float:
    failed = 0.0 if metric.is_accuracy else math.nan
    return sum(failed if value is None else value for value in seeds.values()) / len(seeds)


def _finite(gains: Gains) -> dict[str, float | None]:
    return {task: gain if math.isfinite(gain) else None for task, gain in gains.items()}


def _role(number: int, index: int) -> str:
    return f"fresh/{number}/{'baseline' if index == 0 else f'winner {index}'}"
