"""What engines on other machines share: bytes on the wire, comparisons of machines, options. No cluster is started."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.evaluation.calls import EvaluationCall, Made, SignalCall
from agent.protocol import CandidateFailure
from benchmark.executors import EngineError, InfrastructureError, LocalExecutor, Parent, WrongMachine, prepared
from benchmark.executors.checks import DescribeData, differences, read_facts
from benchmark.executors.probe import facts
from benchmark.executors.ray_worker import clean_environment
from benchmark.executors.slurm import parse_options
from benchmark.executors.wire import answer_from_json, answer_to_json, call_from_json, call_to_json, report_from_json
from benchmark.hardware import DescribeEnvironment
from benchmark.results import EpochMetrics
from benchmark.tasks import get_profile
from sandbox.isolate import Initialised, Job
from tests.agent.llm_servers import GOOD

TASK = get_profile("smoke").visible[0]
CALL = EvaluationCall(GOOD.format(gain=1), TASK, 3, (("device", "a card"), ("threads", "1")))
MADE = Made(True, None, "", "bubblewrap", 0.1, "0" * 64, None, b"\x00\xffthe tensors")


def test_a_call_survives_as_json_with_its_tensors_apart() -> None:
    """The same call, with the same key, on the other side; the tensors never become text."""
    for call in (replace(CALL, made=MADE), SignalCall(CALL.region, TASK, 3, made=MADE), DescribeEnvironment("fp32")):
        text, tensors = call_to_json(call)
        assert call_from_json(text.encode(), tensors) == call
    assert b"the tensors" in call_to_json(replace(CALL, made=MADE))[1]
    assert "the tensors" not in call_to_json(replace(CALL, made=MADE))[0]


@pytest.mark.parametrize("named", [("os", "system"), ("subprocess", "Popen"), ("benchmark.hardware", "cpu_count")])
def test_a_file_cannot_name_another_call(named: tuple[str, str]) -> None:
    """A job carries out our calls only, whatever stands in the file of its folder."""
    text = json.dumps({"module": named[0], "name": named[1], "fields": {}})
    with pytest.raises(ValueError, match="is no call"):
        call_from_json(text, b"")


def test_answers_are_read_by_the_type_of_their_call() -> None:
    """A failure stays a failure; what is no answer of this call is a failure of the machine."""
    failure = CandidateFailure("timeout", "too slow")
    assert answer_from_json(CALL, answer_to_json(CALL, failure)) == failure
    assert answer_from_json(DescribeEnvironment(), '{"device": "cpu"}') == {"device": "cpu"}
    for text in ("", "{", "[1]", '{"kind": 3}', '"text"', "[" * 100_000, "NaN"):
        with pytest.raises(InfrastructureError, match="a worker's answer is none"):
            answer_from_json(CALL, text)


def test_reports_are_epochs_or_nothing() -> None:
    """A report that is no epoch is refused, and does not reach the progress of a search."""
    epoch = EpochMetrics(epoch=1, train_loss=1, train_acc=2, test_loss=3, test_acc=4, lr=0.1, seconds=5)
    assert report_from_json(CALL, epoch.model_dump_json()) == epoch
    with pytest.raises(ValueError, match="EpochMetrics"):
        report_from_json(CALL, '{"epoch": "first"}')


def test_tensors_are_made_before_a_call_leaves(tmp_path: Path) -> None:
    """A worker elsewhere cannot ask: the isolation here is asked once, and what it refused goes along, too."""

    def ask(job: Job) -> Initialised:
        assert job.out is not None
        job.out.write_bytes(b"tensors")
        return Initialised(True, None, "", job.out, 0.1, "bubblewrap", "", sha256="ab")

    sent = prepared(CALL, ask)
    assert isinstance(sent, EvaluationCall)
    assert sent.made is not None
    assert (sent.made.tensors, sent.made.sha256, sent.key) == (b"tensors", "ab", CALL.key)
    no = Initialised(False, "shape", "wrong", None, 0.1, "bubblewrap", "")
    refused = prepared(replace(CALL, environment=()), lambda job: no)
    assert isinstance(refused, EvaluationCall)
    assert refused(SimpleNamespace()) == CandidateFailure("shape", "wrong")


def test_a_call_trains_only_in_the_environment_of_its_key() -> None:
    """A worker of another kind would give other accuracies under the same key: it is a failure of the machine."""
    with pytest.raises(WrongMachine, match="not 'a card'"):
        replace(CALL, made=MADE)(SimpleNamespace())


def test_machines_are_compared() -> None:
    """What differs, and where; a third number of Python's version does not count."""
    here = read_facts(facts())
    assert here["content"] is not None
    assert differences({"a": here}) == []
    assert differences({"a": {**here, "python": ".".join([*str(here["python"]).split(".")[:2], "99"])}}) == []
    assert differences({"a": {}}) == ["a did not answer"]
    assert "does not have this package" in differences({"a": {**here, "content": None}})[0]
    assert differences({"a": {**here, "torch": None}}) == ["a does not have torch"]
    assert differences({"n7": {**here, "torch": "2.0"}}) == [f"n7 has torch 2.0, this machine {here['torch']}"]
    assert "n7 has other files of initsearch" in differences({"n7": {**here, "content": "0"}})[0]


def test_data_are_compared_as_they_are_loaded(tmp_path: Path) -> None:
    """A hash for a data set that is there, and the reason for one that is not."""
    found = DescribeData(("tiny", "cifar100"), tmp_path)(SimpleNamespace())
    assert len(found["tiny"]) == 64
    assert found["cifar100"].startswith("missing: ")


def test_training_processes_get_no_keys() -> None:
    """Slurm and Ray hand on whatever environment they were started with."""
    given = {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "1", "OPENAI_API_KEY": "k", "AWS_SESSION": "k", "TORCH_TOKEN": "k"}
    assert clean_environment(given) == {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "1"}


def test_options_of_jobs() -> None:
    """Names and plain values only: nothing that a shell would run."""
    found = parse_options("partition=gpu,gpus_per_node=1,time=120")
    assert found == {"partition": "gpu", "gpus_per_node": 1, "time": 120}
    assert parse_options(None) == {}
    for bad in ("setup=rm", "partition", "partition=", "partition=a;b", "partition=$(id)", "gpu", "cpus_per_task=0"):
        with pytest.raises(EngineError, match="--slurm"):
            parse_options(bad)


def test_an_address_where_no_ray_is() -> None:
    """Said within seconds, and not after Ray's own minutes."""
    pytest.importorskip("ray", minversion="2.50")
    from benchmark.executors.ray import connected

    started = time.monotonic()
    with pytest.raises(EngineError, match=r"127\.0\.0\.1:1: no Ray cluster answers there"), connected("127.0.0.1:1"):
        pass
    assert time.monotonic() - started < 20


@dataclass(frozen=True)
class Name:
    name: str

    def __call__(self, parent: Parent) -> str:
        time.sleep(0.05)
        return self.name


def test_the_longest_runs_first() -> None:
    """Of the calls that wait, the one with the smallest priority; of equal ones the earlier."""
    order: list[str] = []
    lock = threading.Lock()

    def done(future: Any) -> None:
        with lock:
            order.append(future.result())

    with LocalExecutor(1, threads=1) as executor:
        executor.submit(Name("first")).add_done_callback(done)  # the slot starts with it
        time.sleep(0.2)
        wanted = {"short": (0.0, -1.0), "long": (0.0, -9.0), "also long": (0.0, -9.0), "next seed": (1.0, -99.0)}
        futures = [executor.submit(Name(name), priority=priority) for name, priority in wanted.items()]
        for future in futures:
            future.add_done_callback(done)
        for future in futures:
            future.result(timeout=30)
    assert order == ["first", "long", "also long", "short", "next seed"]
