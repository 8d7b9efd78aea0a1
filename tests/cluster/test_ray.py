"""A real Ray cluster of three nodes on this machine: equal results, a node that dies, machines that differ."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmark.executors import EngineError, InfrastructureError, Parent
from benchmark.hardware import DescribeEnvironment
from tests.agent.conftest import agent_command, agent_environment, json_lines
from tests.benchmark.test_executor import DieAlways, DieOnce, Environment, Fail, Square
from tests.cluster.conftest import ROOT, needs_clusters
from tests.cluster.ray_head import ray_head


@dataclass(frozen=True)
class Slowly:
    """Reports ten times a second for so many seconds."""

    seconds: float

    def __call__(self, parent: Parent) -> str:
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            parent.report("still there")
            time.sleep(0.1)
        return "done"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Three nodes with a CPU each. This process is no part of it before a test connects."""
    needs_clusters()
    pytest.importorskip("ray", minversion="2.50")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", ROOT)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("FOREIGN_API_KEY", "a key that the nodes were started with")
        small = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
        head = {**small, "include_dashboard": False}
        made = _patiently(lambda: Cluster(initialize_head=True, head_node_args=head))
        made.small = small
        for _ in range(2):
            _patiently(lambda: made.add_node(**small))
        made.wait_for_nodes()
        yield made
        made.shutdown()


def _patiently(start: Callable[[], Any]) -> Any:
    """What `start` returns. Ray gives a node 30 s, which is too little on a busy machine: it has three attempts."""
    for attempt in (1, 2, 3):
        try:
            return start()
        except Exception as error:
            if attempt == 3 or "timed out during startup" not in str(error):
                raise
    raise AssertionError("unreachable")


@pytest.fixture
def whole(cluster: Any) -> Any:
    """The cluster with three nodes, whatever a test did to it."""
    while len(cluster.list_all_nodes()) < 3:
        _patiently(lambda: cluster.add_node(**cluster.small))
    cluster.wait_for_nodes()
    return cluster


def test_calls_come_back_as_bytes(whole: Any, tmp_path: Path) -> None:
    """Answers, reports, a process that dies, our own errors, an environment without keys: as on this machine."""
    from benchmark.executors.ray import RayExecutor
    from benchmark.executors.ray_cluster import connected

    heard: list[str] = []
    places: list[str] = []
    with connected(whole.address), RayExecutor(slots=3, threads=1, describe=DescribeEnvironment()) as executor:
        assert executor.slots == 3
        assert executor.environment["threads"] == "1"
        futures = [
            executor.submit(Square(number), on_report=heard.append, on_start=places.append) for number in range(6)
        ]
        assert [future.result(timeout=60) for future in futures] == [0, 1, 4, 9, 16, 25]
        assert sorted(heard) == [f"squaring {number}" for number in range(6)]
        assert len(places) == 6
        found = executor.submit(Environment(("FOREIGN_API_KEY", "OMP_NUM_THREADS"))).result(timeout=60)
        assert found == {"FOREIGN_API_KEY": None, "OMP_NUM_THREADS": "1"}
        assert executor.submit(DieOnce(tmp_path / "marker")).result(timeout=60) == "second try"
        with pytest.raises(InfrastructureError, match="died twice"):
            executor.submit(DieAlways()).result(timeout=60)
        with pytest.raises(InfrastructureError, match="a bug of ours"):
            executor.submit(Fail()).result(timeout=60)


def test_nothing_that_comes_back_is_unpickled(whole: Any, tmp_path: Path) -> None:
    """A worker that answers with an object whose unpickling runs a command: the command does not run here."""
    import ray

    from benchmark.executors.ray_cluster import WorkerLost, connected, get_bytes

    marker = tmp_path / "unpickled"

    class Evil:
        def __reduce__(self) -> Any:
            return (os.system, (f"touch {marker}",))

    assert pickle.dumps(Evil())
    with connected(whole.address):
        answers = ray.remote(lambda: Evil()), ray.remote(lambda: _raise(Evil()))
        for answer in answers:
            with pytest.raises((InfrastructureError, WorkerLost)):
                get_bytes(answer.options(max_retries=0).remote(), 60)
    assert not marker.exists()


def _raise(content: object) -> None:
    raise RuntimeError(content)


def test_a_node_dies_in_the_middle_of_a_training(whole: Any) -> None:
    """The call runs again elsewhere, once, within ten seconds of Ray's notice, and the slot comes back later."""
    from benchmark.executors.ray import RayExecutor
    from benchmark.executors.ray_cluster import connected, nodes

    starts: list[float] = []
    heard: list[float] = []
    said: list[tuple[float, str]] = []
    with (
        connected(whole.address),
        RayExecutor(
            slots=3,
            threads=1,
            describe=DescribeEnvironment(),
            say=lambda text: said.append((time.monotonic(), text)),
        ) as executor,
    ):
        futures = [
            executor.submit(
                Slowly(6.0),
                on_start=lambda place: starts.append(time.monotonic()),
                on_report=lambda text: heard.append(time.monotonic()),
            )
            for _ in range(3)
        ]
        while len(heard) < 30:
            time.sleep(0.1)
        killed = time.monotonic()
        whole.remove_node(whole.worker_nodes.copy().pop(), allow_graceful=False)
        assert [future.result(timeout=120) for future in futures] == ["done"] * 3
        assert len(starts) == 4
        noticed = next(when for when, text in said if "died" in text)
        print(f"\nnode killed; Ray noticed after {noticed - killed:.1f} s, run again {starts[3] - noticed:.1f} s later")
        assert starts[3] - noticed < 10
        while len(nodes()) > 2 and time.monotonic() < killed + 120:  # Ray counts missed heartbeats
            time.sleep(0.1)
        assert len(nodes()) == 2
        print(f"Ray lists the node as dead {time.monotonic() - killed:.1f} s after it was killed")


def test_an_idle_worker_that_dies_costs_no_attempt(whole: Any) -> None:
    """A call that meets a dead worker before it began is not a call that died: it may still lose one machine."""
    import ray

    from benchmark.executors.ray import RayExecutor
    from benchmark.executors.ray_cluster import connected

    places: list[str] = []
    with connected(whole.address), RayExecutor(slots=3, threads=1, describe=DescribeEnvironment()) as executor:
        for worker in executor._workers[:2]:
            ray.kill(worker.actor)
        futures = [executor.submit(Slowly(0.5), on_start=places.append) for _ in range(3)]
        assert [future.result(timeout=120) for future in futures] == ["done"] * 3
    assert len(places) == 3


def _other_version(folder: Path) -> str:
    """A copy of this package with one other line."""
    for name in ("agent", "sandbox", "benchmark", "prompts"):
        shutil.copytree(Path(ROOT) / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    with (folder / "benchmark" / "train.py").open("a") as file:
        file.write("# another version\n")
    return str(folder)


def _without_package(folder: Path) -> str:
    """A folder for PYTHONPATH that hides this package, however it was installed."""
    folder.mkdir()
    hide = (
        "import os, sys\n"
        "sys.path[:] = [p for p in sys.path if not os.path.isdir(os.path.join(p, 'benchmark', 'executors'))]\n"
    )
    (folder / "sitecustomize.py").write_text(hide)
    return str(folder)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_other_version, r"\) has other files of initsearch, with the hash \w+, this machine \w+"),
        (_without_package, r"\) does not have this package: install initsearch [\w.]+ there"),
    ],
)
def test_nodes_that_are_not_alike(whole: Any, tmp_path: Path, make: Callable[[Path], str], words: str) -> None:
    """A node with other files of this package, or without it: exit 2, with the node and what differs there."""
    node = whole.add_node(**whole.small, env_vars={"PYTHONPATH": make(tmp_path / "other")})
    try:
        refused = _search(tmp_path / "run", tmp_path / "cache", "--executor", "ray", "--ray-address", whole.address)
        _, errors = refused.communicate(timeout=300)
        assert refused.returncode == 2, errors
        assert re.search(f"the machines of the Ray cluster are not alike: .*{words}", errors)
        examined = _doctor(tmp_path / "run", tmp_path / "cache", whole.address)
        print(f"\n{errors}{examined.stdout}")
        assert examined.returncode == 1
        assert re.search(f"PROBLEM .*{words}", examined.stdout)
    finally:
        whole.remove_node(node, allow_graceful=False)


_LATER = """
import sys, time
from benchmark.executors.ray import RayExecutor
from benchmark.executors.ray_cluster import connected
from benchmark.hardware import DescribeEnvironment
from tests.benchmark.test_executor import Square
from tests.cluster.test_ray import Slowly

said = []
def say(text):
    said.append(text)
    print(text, flush=True)

describe = DescribeEnvironment()
with connected(sys.argv[1]), RayExecutor(slots=3, threads=1, describe=describe, say=say) as executor:
    futures = [executor.submit(Slowly(5.0)) for _ in range(3)]
    print("begun", flush=True)
    print([future.result(timeout=300) for future in futures], flush=True)
    while not any("is not replaced yet" in text for text in said):
        time.sleep(0.2)
    print(executor.submit(Square(3)).result(timeout=100), flush=True)
"""


def test_a_node_with_another_version_that_comes_later(whole: Any, tmp_path: Path) -> None:
    """It would train under the keys of this version. Its worker is refused, which is said, and the others go on."""
    (tmp_path / "driver").mkdir()  # Ray lets workers import from the folder of the driver's script, too
    (tmp_path / "driver" / "main.py").write_text(_LATER)
    driver = subprocess.Popen(
        [sys.executable, "main.py", whole.address],
        cwd=tmp_path / "driver",
        env=agent_environment(tmp_path),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert driver.stdout is not None
    other = _other_version(tmp_path / "other")
    assert driver.stdout.readline() == "begun\n"
    time.sleep(1)
    whole.remove_node(whole.worker_nodes.copy().pop(), allow_graceful=False)
    node = whole.add_node(**whole.small, env_vars={"PYTHONPATH": other})
    try:
        printed = driver.communicate(timeout=400)[0]
    finally:
        driver.kill()
        whole.remove_node(node, allow_graceful=False)
    print(f"\n{printed}")
    assert re.search(r"a lost worker is not replaced yet: .*has other files of initsearch", printed)
    assert "['done', 'done', 'done']\n" in printed
    assert printed.endswith("9\n")


def test_gpus_that_torch_cannot_use(whole: Any) -> None:
    """Ray was told of a GPU (or the driver is too old): no training on a CPU in its place, but an error."""
    from benchmark.executors.ray import RayExecutor
    from benchmark.executors.ray_cluster import connected

    node = whole.add_node(**whole.small, num_gpus=1)
    try:
        with connected(whole.address), pytest.raises(EngineError, match=r"has GPUs, but torch on .* cannot use them"):
            RayExecutor(slots=1, threads=1, describe=DescribeEnvironment())
    finally:
        whole.remove_node(node, allow_graceful=False)


@pytest.mark.parametrize("variable", ["INITSEARCH_TEST_OTHER_RAY", "INITSEARCH_TEST_OTHER_PYTHON"])
def test_a_cluster_of_another_ray_or_python(tmp_path: Path, variable: str) -> None:
    """Its versions of Ray and Python against ours, in one sentence of Ray's own words, and exit 2; doctor: exit 1."""
    needs_clusters()
    ray = pytest.importorskip("ray", minversion="2.50")
    other = os.environ.get(variable)
    if not other:
        pytest.skip(f"set {variable} to the program `ray` of an environment with another version")
    asked = "import platform, ray; print(ray.__version__, platform.python_version())"
    python = str(Path(other).with_name("python"))
    theirs = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=True).stdout.split()
    (tmp_path / "home").mkdir()
    with ray_head(other, tmp_path / "home", variables={"PYTHONPATH": ""}) as address:
        refused = _search(tmp_path, tmp_path / "c", "--executor", "ray", "--ray-address", address)
        _, errors = refused.communicate(timeout=500)
        examined = _doctor(tmp_path, tmp_path / "c", address)
    print(f"\n{errors}{examined.stdout}")
    assert (refused.returncode, examined.returncode) == (2, 1)
    for text in (errors, examined.stdout):
        assert text.count("ersion mismatch") == 1
        assert "Traceback" not in text
        for name, version in zip(("Ray", "Python"), theirs, strict=True):
            assert f"{name}: {version}" in text
        assert f"Ray: {ray.__version__} Python: {sys.version.split()[0]}" in text


def test_more_than_a_node_has(whole: Any) -> None:
    """Sixty-four threads for each evaluation, on nodes with a CPU."""
    from benchmark.executors.ray import RayExecutor
    from benchmark.executors.ray_cluster import connected

    with connected(whole.address), pytest.raises(EngineError, match="no node of the Ray cluster has 64 CPUs"):
        RayExecutor(slots=1, threads=64, describe=DescribeEnvironment())


def _doctor(cwd: Path, cache: Path, address: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        agent_command("doctor", "--executor", "ray", "--ray-address", address),
        cwd=cwd,
        env=agent_environment(cache),
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


def _search(folder: Path, cache: Path, *words: str, **options: Any) -> subprocess.Popen[str]:
    folder.mkdir(parents=True, exist_ok=True)
    command = ("search", "--profile", "smoke", "--budget", "2", "--parallel", "2", "--json", "--no-page", "--no-cache")
    return subprocess.Popen(
        agent_command(*command, *words),
        cwd=folder,
        env=agent_environment(cache),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def _events(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    varying = ("ts", "previous", "seconds", "cached", "place", "attempts", "config")
    return [{name: value for name, value in line.items() if name not in varying} for line in lines]


def test_the_same_search_here_and_on_ray_with_a_node_that_dies(whole: Any, tmp_path: Path) -> None:
    """Same accuracies, same tests, same submission, although a node is killed while it trains."""
    import ray

    here = _search(tmp_path / "here", tmp_path / "cache", "--workers", "2")
    out, errors = here.communicate(timeout=300)
    assert here.returncode == 0, errors
    away = _search(tmp_path / "away", tmp_path / "cache", "--executor", "ray", "--ray-address", whole.address)
    assert away.stderr is not None
    assert away.stdout is not None
    said: list[str] = []
    killed = False
    for line in away.stderr:
        said.append(line)
        if not killed and "test/1" in line and "trained on" in line:
            with_worker = [node for node in whole.worker_nodes if _trains(node)]
            whole.remove_node(with_worker[0], allow_graceful=False)
            killed = True
    assert away.wait(timeout=300) == 0, "".join(said)
    assert killed
    done = json_lines(away.stdout.read())[-1]
    assert _events(Path(done["run"])) == _events(Path(json_lines(out)[-1]["run"]))
    events = [json.loads(line) for line in (Path(done["run"]) / "events.jsonl").read_text().splitlines()]
    print("\n" + "".join(line for line in said if "died" in line or "attempt" in line))
    assert all(event["place"] for event in events if event["kind"] == "evaluated")
    assert not ray.is_initialized()


def _trains(node: Any) -> bool:
    """Whether a process of this node's raylet is a slot."""
    raylet = node.all_processes["raylet"][0].process.pid
    listed = subprocess.run(["ps", "-ww", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()[1:]]
    children = {int(pid) for pid, parent, _ in rows if int(parent) == raylet}
    return any(int(parent) in children and "benchmark.slot" in command for _, parent, command in rows)
