"""Several tests in flight (`--parallel`): asked and told in order, logged as a tape, each paid once.

The loop, the toolbox, the evaluator, git, the log and the store are the real ones. Only the trainings are made up: each
takes as long as a test wants, and its accuracy follows from its region.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from agent.clock import Clock
from agent.config import SearchConfig, for_rerun, load_config
from agent.engine.loop import End, run_loop
from agent.engine.resuming import Allowed, EngineGiven
from agent.engine.setup import settled
from agent.engine.toolbox import Toolbox
from agent.errors import UsageError
from agent.evaluation.calls import EvaluationCall
from agent.evaluation.check import CheckReport
from agent.evaluation.evaluator import Evaluator, Settings
from agent.evaluation.slot_plan import plan_slots, side_by_side
from agent.llm.answers import Answer, Usage, WireCall
from agent.llm.capabilities import Message
from agent.progress import Progress
from agent.proposers.hybrid import HybridProposer
from agent.proposers.llm import LLMProposer
from agent.proposers.null import NullProposer
from agent.proposers.optuna_search import OptunaProposer
from agent.proposers.scripted import ScriptedProposer
from agent.protocol import CandidateFailure, Observation, Proposer, Situation, ToolCall
from agent.runs.directory import RunDirectory
from agent.runs.events import Launch
from agent.runs.log import EventLog
from agent.spaces.base import BuiltIn
from agent.transcripts import load_transcript, replay
from benchmark.executors import InfrastructureError
from benchmark.results import EpochMetrics, EvaluationResult, StepZero, region_sha256
from benchmark.store import LayeredStore, ResultStore
from benchmark.tasks import Task, get_profile
from sandbox.isolate import Isolation
from sandbox.region import scaffold
from sandbox.workspace import Workspace
from tests.agent.llm_servers import GOOD, brief

Delay = Callable[[str], float]


def accuracy(region: str) -> float:
    """An accuracy between 10 and 60 percent that follows from the region."""
    return 10 + int(hashlib.sha256(region.encode()).hexdigest()[:4], 16) % 5000 / 100


def result(call: EvaluationCall) -> EvaluationResult | CandidateFailure:
    if "fail" in call.region:
        return CandidateFailure("exception", "as the region says")
    best = accuracy(call.region)
    epoch = EpochMetrics(epoch=1, train_loss=1, train_acc=best, test_loss=1, test_acc=best, lr=0.1, seconds=1)
    return EvaluationResult(
        key=call.key,
        task=call.task.name,
        seed=call.seed,
        region_sha256=region_sha256(call.region),
        status="ok",
        best_test_acc=best,
        last_test_acc=best,
        test_loss=1,
        curve=(epoch,),
        step_zero=StepZero(accuracy=10, loss=2.3, p_value=0.5, suspicious=False),
        isolation_level="none",
        isolation_seconds=0,
        training_seconds=1,
        device="made up",
        precision="fp32",
        threads=1,
        versions={},
    )


class MadeUp:
    """An executor whose trainings take `delay(region)` seconds and train nothing. It counts them."""

    slots = 4
    remote = False

    def __init__(self, delay: Delay) -> None:
        self.trained: Counter[str] = Counter()
        self._delay = delay
        self._lock = threading.Lock()

    def submit(self, call: Any, **ignored: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def train() -> None:
            time.sleep(self._delay(call.region))
            with self._lock:
                self.trained[call.key] += 1
            if "broken" in call.region:
                future.set_exception(InfrastructureError("a machine is gone"))
            else:
                future.set_result(result(call))

        threading.Thread(target=train, daemon=True).start()
        return future

    def close(self) -> None:
        pass


class Unchecked(Evaluator):
    """Accepts every region that is not named `refused`."""

    def check(self, region: str, tasks: Sequence[Task], seed: int) -> CheckReport:
        return CheckReport("refused" not in region, "exception", "as the region says")


class Overseen:
    """Asks and tells another proposer, and notes the order."""

    def __init__(self, inner: Proposer) -> None:
        self.inner, self.name = inner, inner.name
        self.ignores_baseline = getattr(inner, "ignores_baseline", False)
        self.order: list[tuple[str, int]] = []
        self.situations: list[Situation] = []

    def ask(self, situation: Situation) -> ToolCall | None:
        self.situations.append(situation)
        call = self.inner.ask(situation)
        if call is not None and call.tool == "test":
            self.order.append(("ask", sum(kind == "ask" for kind, _ in self.order) + 1))
        return call

    def tell(self, call: ToolCall, observation: Observation) -> None:
        if call.tool == "test" and observation.test is not None:
            self.order.append(("tell", observation.test.number))
        self.inner.tell(call, observation)


def chance(log: EventLog, folder: Path) -> Proposer:
    return OptunaProposer("random", seed=1, space=BuiltIn(["resnet20"]), log=log, journal=folder / "study")


def optuna(log: EventLog, folder: Path) -> Proposer:
    return OptunaProposer("optuna", seed=1, space=BuiltIn(["resnet20"]), log=log, journal=folder / "study")


def null(log: EventLog, folder: Path) -> Proposer:
    return NullProposer()


def scripted(log: EventLog, folder: Path) -> Proposer:
    """Tests six texts: one of them twice, one that fails, one that is refused."""
    texts = [GOOD.format(gain=gain) for gain in ("0.5", "1.0", "1.0", "2.0  # refused", "3.0  # fail", "4.0", "5.0")]
    steps = [step for text in texts for step in (ToolCall("rewrite", {"content": text}), ToolCall("test"))]
    return ScriptedProposer([*steps, ToolCall("submit", {"n": 1})])


class Several:
    """A model that puts three changes with their tests into each answer, then submits the best that it was told of."""

    def __init__(self) -> None:
        self.seen: list[list[str]] = []

    def complete(self, messages: list[Message], tools: list[dict[str, Any]] | None) -> Answer:
        turn = sum(message["role"] == "assistant" for message in messages)
        told = [message["content"] for message in messages if message["role"] == "tool"]
        self.seen.append(told)
        calls: list[tuple[str, Any]] = []
        if turn < 2:
            for gain in range(3):
                calls += [("rewrite", {"content": GOOD.format(gain=f"{1 + turn}.{gain}")}), ("test", {})]
        else:
            scores = {
                int(number): float(value)
                for text in told
                for number, value in re.findall(r"^\[Test #(\d+)\].*?^test_acc_\S+=([\d.]+)$", text, re.M | re.S)
            }
            calls = [("submit", {"n": max(scores, key=lambda number: scores[number])})]
        wire = tuple(WireCall(f"c{turn}{n}", name, json.dumps(given)) for n, (name, given) in enumerate(calls))
        return Answer(text="", calls=wire, usage=Usage(10, 10))


def llm(log: EventLog, folder: Path) -> Proposer:
    return LLMProposer(brief(6, parallel=3), Several(), log)


class One(Several):
    """One structure with a number, and then its best."""

    def complete(self, messages: list[Message], tools: list[dict[str, Any]] | None) -> Answer:
        told = [message["content"] for message in messages if message["role"] == "tool"]
        self.seen.append(told)
        calls: list[tuple[str, Any]] = [("rewrite", {"content": GOOD.format(gain=1.0)}), ("test", {})]
        if told:
            calls = [("submit", {"n": int(re.findall(r"code of test #(\d+)", told[-1])[-1])})]
        wire = tuple(WireCall(f"c{len(told)}{n}", name, json.dumps(given)) for n, (name, given) in enumerate(calls))
        return Answer(text="", calls=wire, usage=Usage(10, 10))


def hybrid(log: EventLog, folder: Path) -> Proposer:
    return HybridProposer(
        LLMProposer(brief(6, scaled=True), One(), log), seed=3, log=log, journal=folder / "study.journal"
    )


PROPOSERS = [chance, optuna, null, scripted, llm, hybrid]
Make = Callable[[EventLog, Path], Proposer]


@contextmanager
def tools(folder: Path, delay: Delay, budget: int) -> Iterator[tuple[Toolbox, EventLog, MadeUp]]:
    """A toolbox in a folder; opening it again on the same folder's log resumes it."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "workspace").exists():
        (folder / "workspace").rename(folder / f"old{time.monotonic_ns()}")
    executor, results = MadeUp(delay), LayeredStore(ResultStore(folder / "results"))
    with EventLog(folder / "events.jsonl") as log, Workspace.create(folder / "workspace") as workspace:
        evaluator = Unchecked(
            Settings({"device": "made up"}), executor, cast(Isolation, None), Clock(), Progress(), log.append
        )
        yield (
            Toolbox(
                workspace=workspace,
                evaluator=evaluator,
                log=log,
                profile=get_profile("smoke"),
                seeds=(0,),
                budget=budget,
                baseline={},
                results=results,
            ),
            log,
            executor,
        )


def search(
    make: Make, folder: Path, parallel: int, *, budget: int = 6, delay: Delay = lambda region: 0.0, limit: int = 1000
) -> tuple[End, Overseen, MadeUp]:
    with tools(folder, delay, budget) as (toolbox, log, executor):
        proposer = Overseen(make(log, folder))
        toolbox.begin_baseline((0,))
        if log.replaying:
            toolbox.finish_baseline()
        end = run_loop(proposer, toolbox, Clock(), log, max_steps=limit, parallel=parallel)
        return end, proposer, executor


def events(folder: Path) -> list[dict[str, Any]]:
    """The log without times and hashes."""
    lines = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("ts", "previous", "seconds", "cached")} for line in lines]


def uneven(seed: int) -> Delay:
    """Trainings that end in another order for each seed."""
    return lambda region: random.Random(f"{seed}{region}").choice((0.0, 0.01, 0.03))


@pytest.mark.parametrize(("make", "parallel"), [*((make, 3) for make in PROPOSERS), (chance, 2)])
def test_the_log_does_not_depend_on_what_finishes_first(make: Make, parallel: int, tmp_path: Path) -> None:
    """Ask i comes after exactly the tells 1 … i − K, and two searches with other delays write the same log."""
    ends = [search(make, tmp_path / str(n), parallel, delay=uneven(n))[:2] for n in range(2)]
    assert events(tmp_path / "0") == events(tmp_path / "1")
    assert ends[0][0] == ends[1][0]
    assert ends[0][0].status == "submitted"
    if make is scripted or make is llm or make is hybrid:  # texts that repeat; a model waits for all its replies
        return
    told = 0
    for kind, number in ends[0][1].order:
        if kind == "tell":
            assert number == told + 1
            told = number
        else:
            assert told == max(0, number - parallel)


@pytest.mark.parametrize("make", PROPOSERS)
def test_one_test_in_flight_is_what_it_always_was(make: Make, tmp_path: Path) -> None:
    """With K = 1 the events of a test follow each other, and its reply comes before anything else is asked."""
    search(make, tmp_path, 1)
    kinds = [event["kind"] for event in events(tmp_path)]
    text = " ".join(kinds)
    assert kinds[0] == "evaluated"  # the baseline
    assert text.count("test_started evaluated test_finished tool_replied") == kinds.count("test_started") > 2


@pytest.mark.parametrize("make", PROPOSERS)
def test_killed_with_tests_in_flight(make: Make, tmp_path: Path) -> None:
    """A search killed after any event goes on to the same end: each training is paid once, and none is lost."""
    whole, overseen, _ = search(make, tmp_path / "whole", 3)
    assert max(situation.in_flight for situation in overseen.situations) == 2
    lines = (tmp_path / "whole" / "events.jsonl").read_bytes().splitlines(keepends=True)
    # The last event is the submission, after which there is nothing to resume.
    for cut in random.Random(make.__name__).sample(range(len(lines)), 2):
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / "events.jsonl").write_bytes(b"".join(lines[:cut]))
        finished = {json.loads(line)["key"] for line in lines[:cut] if b'"evaluated"' in line}
        for key in finished:
            stored = tmp_path / "whole" / "results" / f"{key}.json"
            if stored.exists():
                (folder / "results").mkdir(exist_ok=True)
                (folder / "results" / stored.name).write_bytes(stored.read_bytes())
        again, _, executor = search(make, folder, 3)
        assert again == whole
        assert events(folder) == events(tmp_path / "whole")
        kept = {path.stem for path in (tmp_path / "whole" / "results").iterdir()}
        assert not finished & executor.trained.keys() & kept
        assert set(executor.trained.values()) <= {1}


def test_what_is_left_counts_tests_in_flight(tmp_path: Path) -> None:
    """Replies and situations name what can still be begun; the budget is never overdrawn."""
    _, overseen, _ = search(chance, tmp_path, 3, budget=5)
    for situation in overseen.situations:
        assert situation.tests_left + situation.in_flight + len(situation.tests) == 5
    replies = [event["reply"] for event in events(tmp_path) if event.get("kind") == "tool_replied"]
    left = [int(n) for reply in replies for n in re.findall(r"^\[Test #\d+\] \((\d+) tests? remaining", reply)]
    assert left == [2, 1, 0, 0, 0]
    assert sum(event["kind"] == "test_started" for event in events(tmp_path)) == 5


@pytest.mark.parametrize("parallel", [1, 3])
def test_a_run_with_tests_in_flight_replays(parallel: int, tmp_path: Path) -> None:
    """`agent replay` of such a run said that its budget lines differ: they count tests in flight."""
    run = tmp_path / "run"
    with tools(run, lambda region: 0.0, 5) as (toolbox, log, _):
        log.append(
            Launch(
                config=SearchConfig(budget=5, parallel=parallel).model_dump(mode="json"),
                profile="smoke",
                environment={},
                isolation_level="none",
                scaffold=scaffold().text,
            )
        )
        toolbox.baseline = {"resnet20-tiny": {0: 10.0}}
        run_loop(chance(log, run), toolbox, Clock(), log, max_steps=100, parallel=parallel)
    verdicts = list(replay(load_transcript(run)))
    tests = [verdict for verdict in verdicts if verdict.call.tool == "test"]
    assert len(tests) == 5
    assert {verdict.verdict for verdict in verdicts} == {"exact", "unverifiable"}
    assert {verdict.reason for verdict in tests} == {
        "not checked: needs training (--execute); the budget line agrees",
    }


def test_a_repeated_text_in_flight_waits_for_its_result(tmp_path: Path) -> None:
    """The same region tested twice, the first still trains: one training, and the second reply repeats the first."""
    end, _, executor = search(scripted, tmp_path, 4, delay=lambda region: 0.02)
    assert end.status == "submitted"
    assert set(executor.trained.values()) == {1}
    replies = [event["reply"] for event in events(tmp_path) if event.get("kind") == "tool_replied"]
    assert sum("This region is the one of test #2" in reply for reply in replies) == 1


def test_a_model_reads_the_replies_to_all_its_tests_in_their_order(tmp_path: Path) -> None:
    """An answer with three changes and three tests: six replies, each at the place of its call."""
    end, overseen, _ = search(llm, tmp_path, 3, delay=uneven(3))
    assert end.status == "submitted"
    assert max(situation.in_flight for situation in overseen.situations) == 2
    model = cast(Any, overseen.inner)._model
    for number, reply in enumerate(model.seen[-1][1:12:2], start=1):
        assert reply.startswith(f"[Test #{number}]")


def test_trials_of_the_hybrid_are_trained_side_by_side(tmp_path: Path) -> None:
    """The model's own test is waited for, its numbers are not."""
    _, overseen, _ = search(hybrid, tmp_path, 3, budget=8)
    counts = [situation.in_flight for situation in overseen.situations]
    assert counts[:3] == [0, 0, 1]
    assert max(counts) == 2


def test_our_failure_while_others_are_in_flight(tmp_path: Path) -> None:
    """A machine that is gone ends the search as `infra`, and the tests that were paid are begun again by a resume."""

    def make(log: EventLog, folder: Path) -> Proposer:
        texts = [GOOD.format(gain=gain) for gain in ("1.0  # broken", "2.0", "3.0")]
        return ScriptedProposer(
            [s for text in texts for s in (ToolCall("rewrite", {"content": text}), ToolCall("test"))]
        )

    end, _, _ = search(make, tmp_path, 3)
    assert end == End("infra", "Our own machinery failed: a machine is gone")


def test_steps_and_a_limit_finish_what_is_in_flight(tmp_path: Path) -> None:
    """A limit on calls ends the search while three tests train: they are paid, so their results count."""
    end, _, _ = search(chance, tmp_path, 3, limit=6, delay=lambda region: 0.02)
    assert end.status == "steps"
    finished = [event["number"] for event in events(tmp_path) if event["kind"] == "test_finished"]
    assert finished == [1, 2, 3]


def test_settings(tmp_path: Path) -> None:
    """K = 0 is refused, K beyond the budget is lowered and said, and a record without K is what it was."""
    with pytest.raises(UsageError, match=r"--parallel: must be at least 1, but got 0"):
        load_config({"parallel": 0}, environ={})
    config, notes = settled(SearchConfig(budget=3, parallel=5))
    assert config.parallel == 3
    assert notes == ("--parallel 5 is lowered to 3: no more tests can be in flight",)
    assert "parallel" not in SearchConfig().model_dump()
    assert SearchConfig(parallel=2).model_dump()["parallel"] == 2


def test_slots_follow_what_can_be_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    """16 cores: two evaluations get 8 threads each, and with three tests in flight six evaluations share the cores."""
    monkeypatch.setattr("agent.evaluation.slot_plan.cpu_count", lambda: 16)
    monkeypatch.setattr("agent.evaluation.slot_plan.gpu_count", lambda: 0)
    pocket = get_profile("pocket")
    assert plan_slots(SearchConfig(), side_by_side(SearchConfig(), pocket)) == (2, 8, 0)
    three = SearchConfig(parallel=3)
    assert plan_slots(three, side_by_side(three, pocket)) == (6, 2, 0)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"executor": "ray", "allow_unsandboxed": True}, r"--allow-unsandboxed: contradicts executor ray"),
        ({"ray_address": "auto"}, r"--ray-address: needs --executor ray"),
        ({"slurm": "partition=gpu"}, r"--slurm: needs --executor slurm"),
        ({"executor": "ray", "ray_address": "http://a b"}, r"--ray-address: must be auto, local or HOST:PORT"),
        ({"executor": "cloud"}, r"--executor: must be 'local', 'ray', 'slurm' or 'auto'"),
    ],
)
def test_engines_that_contradict(flags: dict[str, Any], message: str) -> None:
    """Exit 2, with the flag that is wrong."""
    with pytest.raises(UsageError, match=message):
        load_config(flags, environ={})


@pytest.mark.parametrize(
    "address",
    ["10.0.0.5", "10.0.0.5:70000", "head:0", "ray://10.0.0.5:10001", "http://a b", "[::1]:6379", "AUTO", "", "head:६"],
)
def test_an_address_that_can_be_none(address: str) -> None:
    """`--ray-address 10.0.0.5` was answered with a regular expression, and port 70000 was tried as 4464."""
    with pytest.raises(UsageError, match=r"--ray-address: must be auto, local or HOST:PORT as `ray start --head` prin"):
        load_config({"executor": "ray", "ray_address": address}, environ={})
    assert load_config({"executor": "ray", "ray_address": "a-1.b_c:65535"}, environ={}).ray_address == "a-1.b_c:65535"


def test_an_engine_counts_only_where_it_is_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not from a variable or a file, and a run directory that names one is asked about."""
    with pytest.raises(UsageError, match="INITSEARCH_EXECUTOR counts only from the command line"):
        load_config({}, environ={"INITSEARCH_EXECUTOR": "ray"})
    (tmp_path / "initsearch.toml").write_text('executor = "slurm"\nslurm = "partition=evil"\n')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="counts only from the command line"):
        load_config({}, environ={})
    run = RunDirectory(tmp_path)
    recorded = SearchConfig(executor="ray", ray_address="evil.example:6379")
    with pytest.raises(UsageError, match=r"add --executor ray --ray-address evil\.example:6379 to go on there"):
        Allowed()._engine(run, recorded)
    questions: list[str] = []

    def agree(question: str) -> bool:
        questions.append(question)
        return True

    asked = Allowed(ask=agree)
    assert asked._engine(run, recorded) == EngineGiven("ray", "evil.example:6379")
    assert "evil.example:6379" in questions[0]
    assert Allowed(engine=EngineGiven())._engine(run, recorded) == EngineGiven("local")
    assert Allowed()._engine(run, SearchConfig()) == EngineGiven("local")


def test_reruns_happen_here() -> None:
    """`verify` and `replay --execute` of a run that trained on a cluster train on this machine."""
    recorded = SearchConfig(executor="slurm", slurm="partition=gpu").model_dump(mode="json")
    assert for_rerun(recorded).executor == "local"
