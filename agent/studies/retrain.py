"""Carries out a record again and trains its tests again. Recorded and stored results are not used.

One of our own runs goes through a toolbox again, call by call, on a new workspace. On the same machine the accuracies
must be equal. A conversation from elsewhere was trained in another way. So its strategies are trained on one of our
profiles, and its recorded numbers are shown beside ours.
"""

from __future__ import annotations

import ast
import dataclasses
import itertools
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agent.analysis import against_baseline
from agent.analysis.known_noise import noise_here
from agent.clock import Clock
from agent.config import SearchConfig, for_rerun
from agent.engine.setup import make_toolbox
from agent.engine.toolbox import Toolbox
from agent.errors import UsageError, in_one_sentence
from agent.evaluation.batches import Candidate, accuracies_of
from agent.evaluation.slot_plan import recorded_threads, side_by_side
from agent.evaluation.workbench import Workbench, open_workbench
from agent.profiles import allowed_profile, baseline_region, recorded_profile, scaffold_of
from agent.progress import Progress
from agent.proposers.transcript import function_region
from agent.protocol import Accuracies, ToolCall
from agent.runs.events import Evaluated, Launch
from agent.runs.log import EventLog, read_events
from agent.runs.recorded_noise import Noise, of_log
from agent.transcripts import RecordedCall, Replay, Segment, Transcript, load_transcript
from agent.transcripts.replay import SegmentReplay
from agent.transcripts.verdict import NO_RESULT, Judgement, difference
from agent.transcripts.views import STAND_IN
from benchmark.results import region_sha256
from benchmark.store import LayeredStore, ResultStore, user_store
from benchmark.tasks import Profile
from sandbox.parsing import parse
from sandbox.workspace import Workspace

ELSEWHERE = "trained again, but the record is of another machine or version, where accuracies need not be equal"


@contextmanager
def replay_of_run(
    path: Path, progress: Progress, data_root: Path | None = None, given: Profile | None = None
) -> Iterator[Replay]:
    """A replay of our run (its folder or events.jsonl) that trains the tests. It reads nothing from a store.

    `given` is the profile of a task file that the caller named, which a run of one needs.
    Raises UsageError when this version cannot carry out the log.
    """
    transcript = load_transcript(path)
    log = path / "events.jsonl" if path.is_dir() else path
    events = [record.event for record in read_events(log)]
    launch = next(event for event in events if isinstance(event, Launch))
    try:
        config = for_rerun(launch.config, data_root)
        profile = recorded_profile(launch.profile, launch.tasks)
    except (ValidationError, ValueError) as error:
        raise UsageError(f"{path}: of another version: {in_one_sentence(error)}") from None
    if launch.scaffold != scaffold_of(profile).text:
        raise UsageError(f"{path}: its scaffold is not this version's, so its tests cannot be run here")
    profile = allowed_profile(path, profile, given)
    recorded = {(event.role, event.task, event.seed): event for event in events if isinstance(event, Evaluated)}
    trained: list[Evaluated] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="initsearch-replay-")))
        most, threads = side_by_side(config, profile), recorded_threads(launch.environment)
        workbench = stack.enter_context(
            open_workbench(config, Clock(), progress, trained.append, evaluations=most, threads=threads)
        )
        again = [role for role, _, _ in recorded if _is_counted(role, config)]
        tests = {role for role in again if role.startswith("test/")}
        progress.begin(len(again), len(tests))
        results = LayeredStore(ResultStore(folder / "results"))
        tools = make_toolbox(
            config,
            profile,
            workbench.evaluator,
            workspace=stack.enter_context(Workspace.create(folder / "workspace", profile.baseline)),
            log=stack.enter_context(EventLog(folder / "events.jsonl")),
            results=results,
            noise=of_log(launch.noise, profile),
        )
        if config.confirm:  # the finalists are chosen by their gains
            baseline = Candidate("baseline", baseline_region(profile))
            seeds = config.baseline_evaluation_seeds
            measured = workbench.evaluator.measure(baseline, [], profile.visible, seeds, results=results)
            tools.baseline = measured[baseline.role]
        level = workbench.isolation.level
        yield Replay(
            transcript,
            machine_for=lambda segment, _: _RunMachine(tools, recorded, trained, level),
            metrics=profile.metrics,
        )


def _is_counted(role: str, config: SearchConfig) -> bool:
    """Whether this role is trained again and is not a look: tests, and with confirmation the baseline."""
    return role.startswith("test/") or (role == "baseline" and config.confirm > 0)


@dataclass
class _RunMachine:
    """Carries out the calls of a run in a new toolbox. `trained` grows while tests run."""

    tools: Toolbox
    recorded: Mapping[tuple[str, str, int], Evaluated]
    """By role, task and seed."""
    trained: list[Evaluated]
    isolation_level: str
    elsewhere: bool = False
    compared: int = 0
    """How many items of `trained` were compared."""

    def regions(self) -> tuple[str, ...]:
        return (self.tools.workspace.region,)

    def judge(self, call: RecordedCall) -> Judgement:
        if call.recorded is None:
            return Judgement("unverifiable", NO_RESULT, "")
        self.tools.begun_in_record = call.begun
        reply = self.tools.dispatch(call.step, ToolCall(call.tool, call.arguments)).reply
        executed, unequal = self._compare(call.tool)
        region = region_sha256(self.tools.workspace.region)
        if call.region_sha256 not in (None, region):
            reason = f"the region's hash: recorded {str(call.region_sha256)[:12]}…, ours {region[:12]}…"
            return Judgement("differs", reason, reply, executed)
        if self.elsewhere and call.tool in ("screen", "test", "submit"):
            return Judgement("unverifiable", ELSEWHERE, reply, executed)
        if unequal is None and reply != call.recorded:
            unequal = difference(call.recorded, reply)
        return Judgement("exact" if unequal is None else "differs", unequal, reply, executed)

    def _compare(self, tool: str) -> tuple[dict[str, Any] | None, str | None]:
        """Recorded and new accuracies of a call, and a sentence about the first unequal one, if any.

        The baseline is trained before the first call and is compared with that call.
        """
        trained, self.compared = self.trained[self.compared :], len(self.trained)
        roles: dict[str, dict[str, dict[str, dict[str, float | None]]]] = {}
        unequal = None
        for ours in trained:
            theirs = self.recorded.get((ours.role, ours.task, ours.seed))
            pair = {"recorded": None if theirs is None else theirs.accuracy, "executed": ours.accuracy}
            roles.setdefault(ours.role, {}).setdefault(ours.task, {})[str(ours.seed)] = pair
            name = f"{ours.role} {ours.task} seed {ours.seed}"
            if theirs is None:
                unequal = unequal or f"{name}: not in the record"
            elif theirs.key != ours.key:
                self.elsewhere = True
            elif theirs.accuracy != ours.accuracy:
                unequal = unequal or f"{name}: recorded {theirs.accuracy}, now {ours.accuracy}"
        if not roles:
            return None, unequal
        executed = {"comparable": not self.elsewhere, "isolation_level": self.isolation_level}
        number = len(self.tools.tests)
        if tool == "test" and f"test/{number}" in roles:
            return {"test": number, **executed, "accuracies": roles[f"test/{number}"]}, unequal
        return {**executed, "roles": roles}, unequal


@dataclass
class Strategy:
    """One version of the function in a conversation, and its accuracies on our profile."""

    name: str
    segment: int
    step: int
    region: str
    accuracies: Accuracies | None = None
    refused: str | None = None
    """Why it was not trained."""

    def as_json(self) -> dict[str, Any]:
        """The field `executed` of a call."""
        return {"strategy": self.name, "accuracies": self.accuracies, "refused": self.refused}


@dataclass
class Strategies:
    """The results of all versions of a conversation's function. They are filled while its replay is iterated."""

    profile: Profile
    noise: Noise | None = None
    baseline: Accuracies = field(default_factory=dict)
    found: list[Strategy] = field(default_factory=list)

    def compared(self) -> list[tuple[Strategy, Mapping[str, Any]]]:
        """Each strategy and its comparisons with the untouched region. The intervals hold for all strategies."""
        ran = [strategy for strategy in self.found if strategy.accuracies is not None]
        return [
            (
                strategy,
                against_baseline.compare_tasks(
                    self.profile.name,
                    self.baseline,
                    strategy.accuracies,
                    n_candidates=len(ran),
                    noise=self.noise,
                    metrics=self.profile.metrics,
                )
                if strategy.accuracies is not None
                else {},
            )
            for strategy in self.found
        ]

    def in_words(self) -> list[str]:
        """A few lines for each strategy, with the interval of its gain."""
        lines = [f"on {self.profile.name}, against the untouched region:"]
        for strategy, comparisons in self.compared():
            lines.append(f"{strategy.name} (step {strategy.step})")
            lines += [f"  {line}" for line in against_baseline.describe_tasks("visible", comparisons)]
            lines += [] if strategy.refused is None else [f"  not trained: {strategy.refused}"]
        return [*lines, self.profile.caveat]

    def as_json(self) -> dict[str, Any]:
        """The field `executed` of the last line."""
        return {
            "profile": self.profile.name,
            "caveat": self.profile.caveat,
            "baseline": self.baseline,
            "strategies": [
                {
                    "segment": strategy.segment,
                    "step": strategy.step,
                    **strategy.as_json(),
                    "visible": against_baseline.as_json(comparisons),
                }
                for strategy, comparisons in self.compared()
            ],
        }


@contextmanager
def replay_of_conversation(
    transcript: Transcript, config: SearchConfig, profile: Profile, progress: Progress
) -> Iterator[tuple[Replay, Strategies]]:
    """A replay of a conversation about initialize_weights that trains each version once on `profile`.

    The function's text is put into our scaffold. Its place in the other file does not matter. Stored results are used,
    because they are not compared with the record.
    Raises UsageError when no call edits that function.
    """
    count = len({region for verdict in Replay(transcript) if (region := function_region(verdict.regions))})
    if count == 0:
        raise UsageError("no call in it edits an initialize_weights function, and --execute can run nothing else")
    strategies = Strategies(profile)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="initsearch-replay-")))
        most = side_by_side(config, profile)
        workbench = stack.enter_context(open_workbench(config, Clock(), progress, evaluations=most))
        progress.begin((count + 1) * len(profile.visible) * len(config.evaluation_seeds))
        results = LayeredStore(ResultStore(folder), user_store() if config.cache else None)
        strategies.noise = noise_here(profile, workbench.environment, cache=config.cache)
        trainer = _Trainer(workbench, config, profile, results)
        strategies.baseline = trainer.train("baseline", baseline_region(profile))
        numbers = itertools.count()

        def machine_for(segment: Segment, whole: Transcript) -> _ConversationMachine:
            return _ConversationMachine(SegmentReplay(segment, whole), next(numbers), strategies, trainer)

        yield Replay(transcript, machine_for=machine_for, metrics=profile.metrics), strategies


@dataclass(frozen=True)
class _Trainer:
    workbench: Workbench
    config: SearchConfig
    profile: Profile
    results: LayeredStore

    def refusal(self, region: str) -> str | None:
        """Why a region cannot be trained; None when it can."""
        if STAND_IN.search(region):
            return "the record does not show all of its text"
        report = self.workbench.evaluator.check(region, self.profile.visible, self.config.seed)
        return None if report.accepted else f"{report.message} [{report.kind}]"

    def train(self, role: str, region: str) -> Accuracies:
        """Train a region and return its accuracies on the visible tasks."""
        outcomes = self.workbench.evaluator.evaluate(
            [Candidate(role, region)],
            self.profile.visible,
            self.config.evaluation_seeds,
            results=self.results,
        )
        return accuracies_of(outcomes, role)


@dataclass
class _ConversationMachine:
    """Carries out one segment of a conversation, and trains each new version of its function."""

    replayed: SegmentReplay
    segment: int
    strategies: Strategies
    trainer: _Trainer

    def __post_init__(self) -> None:
        self._untouched = function_region(self.regions())

    def regions(self) -> tuple[str, ...]:
        return self.replayed.regions()

    def judge(self, call: RecordedCall) -> Judgement:
        result = self.replayed.judge(call)
        region = function_region(self.regions())
        if region is None or region == self._untouched:
            return result
        known = next((strategy for strategy in self.strategies.found if strategy.region == region), None)
        if known is None:
            known = self._train(region, call.step)
        return dataclasses.replace(result, executed=known.as_json())

    def _train(self, region: str, step: int) -> Strategy:
        number = len(self.strategies.found) + 1
        one = Strategy(name_of(region) or f"strategy {number}", self.segment, step, region)
        one.refused = self.trainer.refusal(region)
        if one.refused is None:
            one.accuracies = self.trainer.train(f"strategy {number}", region)
        self.strategies.found.append(one)
        return one


def name_of(region: str) -> str | None:
    """The first line of the function's docstring, if it has one."""
    try:
        functions = [node for node in parse(region).body if isinstance(node, ast.FunctionDef)]
    except SyntaxError:
        return None
    texts = [ast.get_docstring(node) for node in functions if node.name == "initialize_weights"]
    return texts[-1].splitlines()[0].rstrip(".") if texts and texts[-1] else None
