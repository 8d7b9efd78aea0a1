"""A real Slurm of one node: a search to its end, cancelled and requeued jobs, a killed head, a full queue."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmark.executors import EngineError, InfrastructureError
from benchmark.hardware import DescribeEnvironment
from tests.agent.conftest import agent_command, agent_environment, json_lines
from tests.benchmark.test_executor import Environment, Fail, Square
from tests.cluster.conftest import ROOT, needs_clusters
from tests.cluster.slurm_server import missing, slurm
from tests.cluster.test_ray import Slowly, _events

MODULES = ("benchmark.hardware", "tests.benchmark.test_executor", "tests.cluster.test_ray")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Slurm whose commands this process uses. It has room for eight jobs in all states together."""
    needs_clusters()
    pytest.importorskip("submitit")
    if why := missing():
        pytest.skip(why)
    with pytest.MonkeyPatch.context() as patch, slurm(tmp_path_factory.mktemp("slurm")) as variables:
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.setenv("PYTHONPATH", ROOT)
        patch.setenv("FOREIGN_API_KEY", "a key")
        yield


@pytest.fixture
def executor(server: None, tmp_path: Path) -> Iterator[Any]:
    from benchmark.executors.slurm import SlurmExecutor

    said: list[str] = []
    made: Any = SlurmExecutor(
        tmp_path / "jobs", {}, slots=2, describe=DescribeEnvironment(), say=said.append, modules=MODULES
    )
    with made:
        made.said = said
        yield made


def _running(executor: Any) -> str:
    """The id of the job that runs, once there is one."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for job in list(executor._running):
            if job.started is not None and (number := job.id):  # a cancelled one has none before it is submitted again
                return str(number)
        time.sleep(0.1)
    raise AssertionError("no job runs")


def test_jobs_answer_in_json(executor: Any) -> None:
    """Answers, reports and places come back; a job has no key in its environment; our own error is one."""
    heard: list[str] = []
    places: list[str] = []
    futures = [executor.submit(Square(n), on_report=heard.append, on_start=places.append) for n in range(3)]
    assert [future.result(timeout=120) for future in futures] == [0, 1, 4]
    assert sorted(heard) == ["squaring 0", "squaring 1", "squaring 2"]
    assert all("(job " in place for place in places)
    found = executor.submit(Environment(("FOREIGN_API_KEY", "OMP_NUM_THREADS"))).result(timeout=120)
    assert found == {"FOREIGN_API_KEY": None, "OMP_NUM_THREADS": "1"}
    with pytest.raises(InfrastructureError, match="a bug of ours"):
        executor.submit(Fail()).result(timeout=120)


def test_scancel_of_a_job(executor: Any) -> None:
    """A cancelled job is submitted again, once; cancelled a second time it is an infrastructure failure."""
    future = executor.submit(Slowly(8.0))
    subprocess.run(["scancel", _running(executor)], check=True)
    assert future.result(timeout=120) == "done"
    assert any("CANCELLED" in text for text in executor.said)
    future = executor.submit(Slowly(60.0))
    first = _running(executor)
    subprocess.run(["scancel", first], check=True)
    while (second := _running(executor)) == first:
        time.sleep(0.1)
    subprocess.run(["scancel", second], check=True)
    with pytest.raises(InfrastructureError, match=r"ended twice without an answer: .*CANCELLED"):
        future.result(timeout=120)


def test_a_requeued_job_is_waited_for(executor: Any) -> None:
    """As after a preemption: Slurm runs the same job again, and that is no failure."""
    future = executor.submit(Slowly(5.0))
    job = _running(executor)
    time.sleep(1)
    subprocess.run(["scontrol", "requeue", job], check=True)
    time.sleep(2)
    subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=False)  # not after two minutes
    assert future.result(timeout=300) == "done"
    assert not any("again" in text for text in executor.said)


def test_what_can_never_run(server: None, tmp_path: Path) -> None:
    """A partition that does not exist, and a GPU where there is none: said at once, in Slurm's own words."""
    from benchmark.executors.slurm import SlurmExecutor
    from benchmark.executors.slurm_jobs import parse_options

    for text, words in (("partition=nowhere", "nvalid partition"), ("gpus_per_node=1", "gres")):
        with pytest.raises(EngineError, match=rf"(?i){words}"):
            SlurmExecutor(tmp_path / words, parse_options(text), slots=1, describe=DescribeEnvironment())


def test_a_folder_that_nodes_do_not_see(server: None, tmp_path: Path) -> None:
    """The head's folder is private to it (a mount of its own): the first job leaves no answer, and that is said."""
    (tmp_path / "private").mkdir()
    script = f'mount -t tmpfs none {tmp_path}/private && cd {tmp_path}/private && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", *agent_command("doctor", "--executor", "slurm")]
    done = subprocess.run(
        command, env=agent_environment(tmp_path), capture_output=True, text=True, timeout=120, check=False
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mounts here: {done.stderr}")
    assert done.returncode == 1
    assert "on a file system that the nodes share" in done.stdout


def test_a_gpu_that_torch_cannot_use(tmp_path: Path) -> None:
    """Slurm gives the job a GPU, and torch finds none: an error that says so, and no training on the CPU."""
    needs_clusters()
    if why := missing():
        pytest.skip(why)
    from benchmark.executors.slurm import SlurmExecutor

    with pytest.MonkeyPatch.context() as patch, slurm(tmp_path / "slurm", gpu=True) as variables:
        for name, value in {**variables, "PYTHONPATH": ROOT}.items():
            patch.setenv(name, value)
        with pytest.raises(EngineError, match="gpus_per_node=1: the job got no GPU that torch can use"):
            SlurmExecutor(tmp_path / "jobs", {"gpus_per_node": 1}, slots=1, describe=DescribeEnvironment())


def test_a_copied_run_takes_no_job_of_the_first(executor: Any, tmp_path: Path) -> None:
    """A resumed copy of somebody's run took the job whose number stood in its files for its own, and cancelled it."""
    from benchmark.executors.slurm_jobs import Submitter

    running = executor.submit(Slowly(3.0))
    job = _running(executor)
    assert executor._submitter.state_of(job) == "RUNNING"
    assert Submitter(tmp_path / "copy", {}, MODULES).state_of(job) == ""
    assert running.result(timeout=120) == "done"


def test_lanes_share_a_job(server: None, tmp_path: Path) -> None:
    """Four calls in two jobs: a job that is cancelled costs its two calls an attempt, and the others run once."""
    from benchmark.executors.slurm import SlurmExecutor

    said: list[str] = []
    places: list[str] = []
    with SlurmExecutor(
        tmp_path / "jobs",
        {"lanes": 2, "cpus_per_task": 1},
        slots=2,
        describe=DescribeEnvironment(),
        say=said.append,
        modules=MODULES,
    ) as executor:
        assert executor.slots == 4
        futures = [executor.submit(Slowly(8.0), on_start=places.append) for _ in range(4)]
        first = _running(executor)
        time.sleep(2)
        assert len({sent.id for sent in executor._running}) == 2
        subprocess.run(["scancel", first], check=True)
        assert [future.result(timeout=180) for future in futures] == ["done"] * 4
        attempts = sorted(json.loads(path.read_text())["attempts"] for path in (tmp_path / "jobs").glob("*/job.json"))
    assert attempts == [1, 1, 1, 2, 2]  # the first one described the machine
    assert len(places) == 6
    assert len(set(places)) == 3
    assert sum(f"Slurm job {first} ended as CANCELLED" in text for text in said) == 2


def test_a_full_queue_is_asked_again(tmp_path: Path) -> None:
    """Slurm that keeps two jobs at a time, finished ones for a while: sbatch waits with the third, and none is lost."""
    needs_clusters()
    if why := missing():
        pytest.skip(why)
    from benchmark.executors.slurm import SlurmExecutor

    with pytest.MonkeyPatch.context() as patch, slurm(tmp_path / "slurm", most=2, age=5) as variables:
        for name, value in {**variables, "PYTHONPATH": ROOT}.items():
            patch.setenv(name, value)
        with SlurmExecutor(tmp_path / "jobs", {}, slots=4, describe=DescribeEnvironment(), modules=MODULES) as executor:
            futures = [executor.submit(Square(number)) for number in range(4)]
            assert [future.result(timeout=200) for future in futures] == [0, 1, 4, 9]


def _start(folder: Path, cache: Path, *words: str) -> subprocess.Popen[str]:
    folder.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(
        agent_command(*words, "--json", "--no-page"),
        cwd=folder,
        env=agent_environment(cache),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


SEARCH = ("search", "--profile", "smoke", "--budget", "2", "--parallel", "2", "--no-cache")


def test_the_same_search_here_and_on_slurm_with_a_head_that_dies(server: None, tmp_path: Path) -> None:
    """kill -9 of the search while its jobs run: the resumed search finds them again, and ends as the local one."""
    here = _start(tmp_path / "here", tmp_path / "cache", *SEARCH, "--workers", "2")
    out, errors = here.communicate(timeout=300)
    assert here.returncode == 0, errors
    first = _start(tmp_path / "away", tmp_path / "cache", *SEARCH, "--executor", "slurm")
    assert first.stdout is not None
    assert first.stderr is not None
    run = Path(json.loads(first.stdout.readline())["run"])
    for line in first.stderr:
        if "test/1" in line and "trained on" in line:
            break
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    refused = _start(tmp_path / "away", tmp_path / "cache", "search", "--resume", str(run))
    _, errors = refused.communicate(timeout=60)
    assert refused.returncode == 2
    assert "--executor slurm" in errors
    again = _start(tmp_path / "away", tmp_path / "cache", "search", "--resume", str(run), "--executor", "slurm")
    done, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    print("\n" + "".join(f"{line}\n" for line in errors.splitlines() if "found again" in line))
    assert "found again" in errors
    assert _events(Path(json_lines(done)[-1]["run"])) == _events(Path(json_lines(out)[-1]["run"]))
    attempts = [json.loads(path.read_text())["attempts"] for path in (run / "slurm").glob("*/job.json")]
    assert set(attempts) == {1}
