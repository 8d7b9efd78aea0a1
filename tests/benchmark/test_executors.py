"""What engines on other machines share: bytes on the wire, comparisons of machines, options. No cluster is started."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.cli.clusters import examine_cluster
from agent.config import SearchConfig
from agent.evaluation.calls import EvaluationCall, Made, SignalCall
from agent.evaluation.engines import _require_gpu
from agent.evaluation.slot_plan import plan_slots
from agent.protocol import CandidateFailure
from benchmark.executors import (
    Call,
    EngineError,
    InfrastructureError,
    LocalExecutor,
    Parent,
    TookTooLong,
    WrongMachine,
    prepared,
    ray_cluster,
    slurm,
)
from benchmark.executors.checks import DescribeData, differences, read_facts
from benchmark.executors.probe import facts
from benchmark.executors.ray_worker import Worker, clean_environment
from benchmark.executors.slurm_jobs import Known, parse_options
from benchmark.executors.slurm_worker import main
from benchmark.executors.waiting import SubmittedCall
from benchmark.executors.wire import answer_from_json, answer_to_json, call_from_json, call_to_json, report_from_json
from benchmark.hardware import DescribeEnvironment
from benchmark.results import EpochMetrics
from benchmark.tasks import get_profile
from sandbox.isolate import Initialised, Job
from tests.agent.llm_servers import GOOD
from tests.benchmark.test_executor import DieOnce, Fail, Sleep, Square

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
    assert parse_options("gpus_per_node=1,lanes=4") == {"gpus_per_node": 1, "lanes": 4}
    for bad in (
        "lanes=0",
        "lanes=many",
        "setup=rm",
        "partition",
        "partition=",
        "partition=a;b",
        "partition=$(id)",
        "gpu",
        "cpus_per_task=0",
    ):
        with pytest.raises(EngineError, match="--slurm"):
            parse_options(bad)


def test_lists_of_nodes() -> None:
    """`exclude=a1,a2` was refused at its comma, although Slurm's own lists have commas; a job here has one node."""
    assert parse_options("exclude=a1,a[3-5,9],time=3") == {"exclude": "a1,a[3-5,9]", "time": 3}
    assert parse_options(" exclude = a1 , 7, 8 ") == {"exclude": "a1,7,8"}
    with pytest.raises(EngineError, match=r"--slurm nodelist=a1,a2: a job here has one node; name one, or .* exclude="):
        parse_options("partition=gpu,nodelist=a1,a2")
    with pytest.raises(EngineError, match="--slurm lanes: expected NAME=VALUE"):
        parse_options("exclude=a1,lanes")


def test_numbers_and_repeated_options() -> None:
    """`cpus_per_task=two` and `time=²` ended in a traceback; of `mem=4G,mem=8G` the last was taken without a word."""
    for text in ("cpus_per_task=two", "time=²", "lanes=²"):
        with pytest.raises(EngineError, match=f"--slurm {text}: "):
            parse_options(text)
    with pytest.raises(EngineError, match="--slurm mem=8G: mem=4G stands there, too: give one"):
        parse_options("mem=4G,mem=8G")


def test_doctor_where_slurm_has_no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """sinfo was there and said what is wrong, and doctor said that the commands of Slurm are not here."""
    (tmp_path / "sinfo").write_text("#!/bin/sh\nprintf 'sinfo: error: a\\nsinfo: fatal: no source\\n' >&2\nexit 1\n")
    (tmp_path / "sinfo").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("importlib.metadata.version", lambda name: "1.5")
    found = examine_cluster(SearchConfig(executor="slurm"), lambda text: None)
    assert found["problems"] == ["sinfo: error: a sinfo: fatal: no source"]
    assert found["ready"] is False


def test_an_address_where_no_ray_is() -> None:
    """Said within seconds, and not after Ray's own minutes."""
    pytest.importorskip("ray", minversion="2.50")
    from benchmark.executors.ray_cluster import connected

    started = time.monotonic()
    with pytest.raises(EngineError, match=r"127\.0\.0\.1:1: no Ray cluster answers there"), connected("127.0.0.1:1"):
        pass
    assert time.monotonic() - started < 20


def test_gpus_before_lanes() -> None:
    """Six evaluations on eight GPUs get a GPU each; on two GPUs they get three lanes each; --workers is the most."""
    from benchmark.executors.ray import _layout

    assert _layout(8, 6, None, True) == (6, 1)
    assert _layout(2, 6, None, True) == (2, 3)
    assert _layout(1, 6, None, True) == (1, 4)
    assert _layout(2, 6, 2, True) == (2, 2)
    assert _layout(2, None, None, True) == (2, 4)
    assert _layout(8, 6, 3, False) == (3, 1)
    assert _layout(4, 6, None, False) == (4, 1)
    assert _layout(4, None, None, False) == (4, 1)


def test_a_ray_worker_says_when_a_call_begins(tmp_path: Path) -> None:
    """All that its generator yields is bytes: that the call began, again after its process died, and its answer."""
    worker = Worker(1, 1, 0)
    try:
        assert list(worker.run(Square(3), None)) == [b"S", b'R"squaring 3"', b"A9"]
        assert list(worker.run(DieOnce(tmp_path / "marker"), None)) == [b"S", b"S", b'A"second try"']
        *_, last = worker.run(Fail(), None)
        assert last.startswith(b"E")
        assert b"a bug of ours" in last
        *_, last = worker.run(Sleep(60, tmp_path / "pid"), 1.0)
        assert last == b"Tan evaluation did not finish within 1 s"
        assert json.loads(worker.facts())["content"] == read_facts(facts())["content"]
    finally:
        worker.close()


def test_a_call_that_takes_too_long_is_called_so_on_other_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was any failure of our own code where Ray or Slurm ran it: nothing said that its time was over."""
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace())
    monkeypatch.setattr(ray_cluster, "get_bytes", lambda reference, timeout: reference)
    with pytest.raises(TookTooLong, match="on a Ray worker an evaluation did not finish within 1 s"):
        ray_cluster.answer_of(Square(3), iter([b"S", b"Tan evaluation did not finish within 1 s"]), None)
    cancelled: list[str] = []
    monkeypatch.setattr(slurm, "cancel", cancelled.append)
    sent = slurm._Sent(SubmittedCall(Square(3), 1.0, None, None, None, ()), tmp_path, id="17")
    sent.started = time.monotonic() - 2
    follow = SimpleNamespace(_read_reports=lambda sent: None)
    with pytest.raises(TookTooLong, match="Slurm job 17 did not finish within 1 s"):
        slurm.SlurmExecutor._look(follow, sent, Known("RUNNING", "node1"))  # type: ignore[arg-type]
    assert cancelled == ["17"]


def test_answers_nested_too_deeply(tmp_path: Path) -> None:
    """A machine that sends 9,000 brackets ended the search, or the thread that reads, with a RecursionError."""
    deep = "[" * 9_000
    with pytest.raises(ValueError, match="nested too deeply"):
        read_facts(deep)
    with pytest.raises(ValueError, match="nested too deeply"):
        report_from_json(CALL, deep)
    with pytest.raises(InfrastructureError, match="nested too deeply"):
        answer_from_json(CALL, deep)
    sent = slurm._Sent(SubmittedCall(Square(3), 1.0, None, None, None, ()), tmp_path, id="17")
    (tmp_path / "answer.json").write_text(deep)
    with pytest.raises(InfrastructureError, match="no answer of a job: nested too deeply"):
        slurm.SlurmExecutor._read_answer(SimpleNamespace(), sent)  # type: ignore[arg-type]
    here = read_facts(facts())
    (tmp_path / "answer.json").write_text(json.dumps({"host": "node1", "facts": here, "error": " "}))
    with pytest.raises(InfrastructureError, match="an evaluation failed in Slurm job 17"):
        slurm.SlurmExecutor._read_answer(SimpleNamespace(), sent)  # type: ignore[arg-type]


def test_a_job_with_lanes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two calls share a job; one fails and the other answers. After a requeue what has its answer is left alone."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # what `main` sets is taken back
    for name in ("MKL_NUM_THREADS", "INITSEARCH_THREADS"):
        monkeypatch.setenv(name, "1")
    calls: dict[str, Call[Any]] = {"a": Square(3), "b": Fail()}
    for name, call in calls.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "call.json").write_text(call_to_json(call)[0])
    folders = [str(tmp_path / name) for name in calls]
    main(folders, 1, ("tests.benchmark.test_executor",))
    answers = {name: json.loads((tmp_path / name / "answer.json").read_text()) for name in calls}
    assert answers["a"]["answer"] == 9
    assert (tmp_path / "a" / "reports.jsonl").read_text() == '"squaring 3"\n'
    assert "a bug of ours" in answers["b"]["error"]
    (tmp_path / "a" / "call.json").write_text("not read again")
    (tmp_path / "b" / "answer.json").unlink()
    main(folders, 1, ("tests.benchmark.test_executor",))
    assert json.loads((tmp_path / "a" / "answer.json").read_text())["answer"] == 9
    assert (tmp_path / "b" / "answer.json").exists()


def test_gpu_kernels_where_no_machine_has_a_gpu() -> None:
    """`--set kernels=graph` is accepted before the cluster is known, and refused with what its machines have."""
    config = SearchConfig(executor="ray", kernels="graph")
    assert plan_slots(config, 1)[0] == 1
    with pytest.raises(EngineError, match=r"kernels=graph needs GPUs.* uses none \(device cpu x\)"):
        _require_gpu(config, {"device": "cpu x"})
    _require_gpu(config, {"device": "a card"})
    with pytest.raises(EngineError, match="package triton, which the machines of ray lack"):
        _require_gpu(SearchConfig(executor="ray", kernels="triton"), {"device": "a card", "triton": "missing"})


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
