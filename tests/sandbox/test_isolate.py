"""Isolation as its callers use it: weights come out, failures are named, nothing outlives it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from benchmark.models import build_model
from benchmark.weights import load_initial_weights
from sandbox.isolate import (
    Isolation,
    IsolationCrashed,
    IsolationUnavailable,
    Job,
    Level,
    Limits,
    derived_seed,
    obstacle_to,
)
from sandbox.launcher import Zygote
from sandbox.region import scaffold

ROOT = Path(__file__).resolve().parents[2]
HONEST = """
def initialize_weights(model, config):
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=1 / config["depth"])
"""
LOOP = "def initialize_weights(model, config):\n    while True:\n        pass\n"
SLOW = f"import time\n{HONEST}    time.sleep(2)\n"
ZEROS = "def initialize_weights(model, config):\n    for p in model.parameters():\n        nn.init.constant_(p, {})\n"
linux = pytest.mark.skipif(sys.platform != "linux", reason="isolation needs Linux")


@pytest.fixture(scope="module")
def isolation() -> Iterator[Isolation]:
    level: Level = "auto" if sys.platform == "linux" else "none"
    with Isolation(level=level, limits=Limits(wall_seconds=60), at_once=True) as isolation:
        yield isolation


@pytest.fixture(scope="module")
def without() -> Iterator[Isolation]:
    """At the level "none"."""
    with Isolation(level="none", limits=Limits(wall_seconds=60)) as isolation:
        yield isolation


@pytest.fixture(scope="module")
def landlocked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Isolation]:
    """On a machine without bubblewrap."""
    if obstacle_to("landlock"):
        pytest.skip(str(obstacle_to("landlock")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(tmp_path_factory.mktemp("empty")))
        isolation = Isolation()
    with isolation:
        yield isolation


@linux
def test_both_interpreters_start_at_once(isolation: Isolation) -> None:
    """The first check of a session, whose level is not known yet, waited for the second one after the first."""
    assert isolation._second.zygote is not None
    assert isolation._second.zygote.level == isolation.level


def run(isolation: Isolation, body: str, out: Path, arch: str = "resnet20", seed: int = 0) -> tuple[str | None, str]:
    """Kind and message for a region whose function has this body."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    result = isolation.initialise(Job(f"def initialize_weights(model, config):\n{lines}", arch, 10, seed, out / "w"))
    return result.kind, result.message


def kill(processes: set[int]) -> None:
    """End them the hard way."""
    for process in processes:
        os.kill(process, signal.SIGKILL)


def alive(process: int) -> bool:
    """Whether a process still runs; a zombie does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def below(process: int) -> set[int]:
    """Every living process below `process`."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = {process}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {process}


def wait_until_gone(processes: set[int], seconds: float = 30) -> set[int]:
    """Those of `processes` that still run after `seconds`."""
    deadline = time.monotonic() + seconds
    while (left := {process for process in processes if alive(process)}) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def test_importing_it_is_cheap() -> None:
    """`agent --help` imports the module and must not wait for torch."""
    code = "import sys, sandbox.isolate; assert not {'torch', 'numpy', 'safetensors'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("arch", ["resnet20", "vgg16bn", "mobilenetv2"])
def test_the_untouched_region_initialises_every_network(isolation: Isolation, arch: str, tmp_path: Path) -> None:
    """The file holds the parameters, all of them and nothing else, and the trainer accepts it."""
    result = isolation.initialise(Job(scaffold().region, arch, 100, 0, tmp_path / "w"))
    assert result.ok, result.message
    assert result.weights == tmp_path / "w"
    model = build_model(arch, 100)
    assert set(load_file(tmp_path / "w")) == {name for name, _ in model.named_parameters()}
    load_initial_weights(tmp_path / "w", model)
    assert [path.name for path in tmp_path.iterdir()] == ["w"]


def test_weights_are_those_the_function_makes_with_the_derived_seed(isolation: Isolation, tmp_path: Path) -> None:
    """A user who exports the function gets the same weights from it."""
    assert isolation.initialise(Job(HONEST, "resnet20", 10, 3, tmp_path / "w")).ok
    model = build_model("resnet20", 10)
    torch.manual_seed(derived_seed(3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=1 / 22)
    tensors = load_file(tmp_path / "w")
    assert all(torch.equal(tensors[name], parameter) for name, parameter in model.named_parameters())


def test_same_seed_same_weights_in_every_process(isolation: Isolation, without: Isolation, tmp_path: Path) -> None:
    """A result belongs to code and seed: neither the process nor the order of a set of names may matter."""
    region = "def initialize_weights(model, config):\n    named = dict(model.named_parameters())\n"
    region += "    for name in set(named):\n        nn.init.normal_(named[name])\n"
    region = f"import random\n{region}    print(random.random(), np.random.rand())\n"
    first = isolation.initialise(Job(region, "resnet20", 10, 1, tmp_path / "a"))
    second = without.initialise(Job(region, "resnet20", 10, 1, tmp_path / "b"))
    assert first.ok
    assert first.log == second.log
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert isolation.initialise(Job(region, "resnet20", 10, 2, tmp_path / "c")).ok
    assert (tmp_path / "c").read_bytes() != (tmp_path / "a").read_bytes()


def test_without_a_file_the_weights_are_the_same(isolation: Isolation, tmp_path: Path) -> None:
    """A check looks at them in memory: by name, in the model's order, and equal only where every bit is."""
    assert isolation.initialise(Job(HONEST, "resnet20", 10, 1, tmp_path / "w")).payload is None
    first, again, other = (isolation.initialise(Job(HONEST, "resnet20", 10, seed, None)).payload for seed in (1, 1, 2))
    assert first is not None
    assert again is not None
    assert other is not None
    written = load_file(tmp_path / "w")
    assert list(first.tensors()) == [name for name, _ in build_model("resnet20", 10).named_parameters()]
    assert all(np.array_equal(values, written[name]) for name, values in first.tensors().items())
    assert first.sha256() == again.sha256()
    assert first.sha256() != other.sha256()
    zeros = [isolation.initialise(Job(ZEROS.format(zero), "resnet20", 10, 0, None)).payload for zero in ("0.0", "-0.0")]
    assert zeros[0] is not None
    assert zeros[1] is not None
    assert zeros[0].sha256() != zeros[1].sha256()


def test_a_failure_names_type_message_and_line(isolation: Isolation, tmp_path: Path) -> None:
    """The author of the region reads what went wrong and where."""
    kind, message = run(isolation, "x = 1\nraise KeyError('conv7')", tmp_path)
    assert kind == "exception"
    assert message == "line 3: KeyError: 'conv7'"
    result = isolation.initialise(
        Job("\n\ndef initialize_weights(model, config)\n    pass\n", "resnet20", 10, 0, tmp_path / "w")
    )
    assert (result.kind, result.line) == ("syntax", 3)
    assert not list(tmp_path.iterdir())


def test_parameters_left_alone_are_named(isolation: Isolation, tmp_path: Path) -> None:
    """A branch that forgets the linear layer is found before a test is paid."""
    kind, message = run(isolation, "for m in model.modules():\n  if not isinstance(m, nn.Linear):\n"
                        "    for p in m.parameters(recurse=False):\n      nn.init.normal_(p)", tmp_path)  # fmt: skip
    assert kind == "unset_parameter"
    assert "fc.weight, fc.bias" in message


def test_what_it_prints_is_kept_and_cut(isolation: Isolation, tmp_path: Path) -> None:
    """Prints help an author; a flood of them does not fill the record."""
    isolation.limits = Limits(wall_seconds=60, output_bytes=100)
    try:
        result = isolation.initialise(Job(f"print('x' * 1000)\n{HONEST}", "resnet20", 10, 0, tmp_path / "w"))
    finally:
        isolation.limits = Limits(wall_seconds=60)
    assert result.ok
    assert result.log.startswith("x" * 100 + "\n[901 more bytes")


def test_too_large_a_region_never_runs(isolation: Isolation, tmp_path: Path) -> None:
    """16 kB hold any strategy, but not trained weights."""
    assert isolation.initialise(Job(HONEST + "#" * 16_384, "resnet20", 10, 0, tmp_path / "w")).kind == "too_large"


def test_a_link_at_the_output_is_replaced_not_followed(isolation: Isolation, tmp_path: Path) -> None:
    """A link at the output path does not make us overwrite its target."""
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "w").symlink_to(tmp_path / "victim")
    assert isolation.initialise(Job(HONEST, "resnet20", 10, 0, tmp_path / "w")).ok
    assert (tmp_path / "victim").read_text() == "precious"
    assert not (tmp_path / "w").is_symlink()


def test_wrong_use_raises(isolation: Isolation, tmp_path: Path) -> None:
    """A caller's mistake is no failure of the candidate."""
    with pytest.raises(ValueError, match="unknown architecture"):
        isolation.initialise(Job(HONEST, "resnet1001", 10, 0, tmp_path / "w"))
    with pytest.raises(FileNotFoundError):
        isolation.initialise(Job(HONEST, "resnet20", 10, 0, tmp_path / "absent" / "w"))
    assert isolation.initialise(Job(HONEST, "resnet20", 10, 0, tmp_path / "w")).ok


def test_several_threads_share_one_isolation(isolation: Isolation, tmp_path: Path) -> None:
    """Calls wait for each other and get their own answers."""
    with ThreadPoolExecutor(4) as pool:
        seeds = range(8)
        results = list(
            pool.map(lambda s: isolation.initialise(Job(HONEST, "resnet20", 10, s, tmp_path / str(s))), seeds)
        )
    assert all(result.ok for result in results)
    assert len({(tmp_path / str(seed)).read_bytes() for seed in seeds}) == 8


def test_closing_ends_a_candidate_that_another_thread_waits_for(tmp_path: Path) -> None:
    """Ctrl-C during a candidate ends it at once, without waiting for its time limit, and leaves no process.

    That does not wait for the garbage collector either. A call after it is a mistake of the caller's.
    """
    before = below(os.getpid()) if sys.platform == "linux" else set()
    isolation = Isolation(level="auto" if sys.platform == "linux" else "none", limits=Limits(600, 600))
    assert isolation.initialise(Job(HONEST, "resnet20", 10, 0, tmp_path / "w")).ok
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(isolation.initialise, Job(LOOP, "resnet20", 10, 0, tmp_path / "w"))
        waiting = pool.submit(isolation.initialise, Job(HONEST, "resnet20", 10, 0, tmp_path / "x"))
        time.sleep(1.0)
        assert not running.done()
        started = below(os.getpid()) - before if sys.platform == "linux" else set()
        isolation.close()
        with pytest.raises((IsolationCrashed, ValueError)):
            running.result(timeout=10)
        with pytest.raises((IsolationCrashed, ValueError)):
            waiting.result(timeout=10)
    if sys.platform == "linux":
        assert started
        assert wait_until_gone(started, seconds=5) == set()
    isolation.close()
    with pytest.raises(ValueError, match="closed"):
        isolation.initialise(Job(HONEST, "resnet20", 10, 0, tmp_path / "w"))


def test_waiting_is_not_a_candidates_time(isolation: Isolation, tmp_path: Path) -> None:
    """A quick candidate behind a slow one claimed three seconds as its own."""
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(isolation.initialise, Job(SLOW, "resnet20", 10, 0, None))
        time.sleep(0.5)
        quick = pool.submit(isolation.initialise, Job(HONEST, "resnet20", 10, 0, None))
        assert quick.result().seconds < slow.result().seconds - 1.0


def test_an_isolation_that_ended_starts_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """bubblewrap dies with the thread that started it; a later call notices and starts it anew.

    If the kernel ends our process because memory is short, the candidate is not at fault and can be retried.
    While a fresh start is under way there is nothing to interrupt; closed then, the candidate must not run after all.
    """
    made: list[Isolation] = []
    level: Level = "auto" if sys.platform == "linux" else "none"
    thread = threading.Thread(target=lambda: made.append(Isolation(level=level, limits=Limits(600, 600))))
    thread.start()
    thread.join()
    time.sleep(0.2)
    with made[0] as isolation:
        assert isolation.initialise(Job(HONEST, "resnet20", 10, 0, tmp_path / "w")).ok
        assert isolation._first.zygote is not None
        if sys.platform == "linux":
            processes = below(isolation._first.zygote.pid or 0) | {isolation._first.zygote.pid or 0}
            threading.Timer(0.5, kill, [processes]).start()
            with pytest.raises(IsolationCrashed):
                isolation.initialise(Job(LOOP, "resnet20", 10, 0, tmp_path / "w"))
            assert isolation.initialise(Job(HONEST, "resnet20", 10, 0, tmp_path / "w")).ok
        running, isolation._first.zygote = isolation._first.zygote, None
        started = threading.Event()

        def start(level: str) -> Zygote:
            """Takes until the isolation is closed, and gives the process that ran."""
            started.set()
            while not isolation._first._closed:
                time.sleep(0.01)
            assert running.level == level
            return running

        monkeypatch.setattr("sandbox.isolate.Zygote", start)
        with ThreadPoolExecutor(1) as pool:
            late = pool.submit(isolation.initialise, Job(LOOP, "resnet20", 10, 0, tmp_path / "w"))
            assert started.wait(timeout=30)
            isolation.close()
            with pytest.raises((IsolationCrashed, ValueError)):
                late.result(timeout=10)
        assert running.pid is None


@linux
@pytest.mark.parametrize("level", ["bubblewrap", "landlock", "none"])
def test_nothing_survives_a_kill_of_the_parent(level: str, tmp_path: Path) -> None:
    """kill -9 of the search while a candidate runs for ever: a moment later nothing of it runs."""
    if level != "none" and obstacle_to(level):
        pytest.skip(str(obstacle_to(level)))
    code = f"""
import sys
from pathlib import Path
from sandbox.isolate import Isolation, Job, Limits
isolation = Isolation(level={level!r}, limits=Limits(wall_seconds=600, cpu_seconds=600))
assert isolation.initialise(Job({HONEST!r}, "resnet20", 10, 0, Path({str(tmp_path / "w")!r}))).ok
print("ready", flush=True)
sys.stdin.readline()
isolation.initialise(Job({LOOP!r}, "resnet20", 10, 0, Path({str(tmp_path / "w")!r})))
"""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdin=pipe, stdout=pipe) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            zygotes = below(process.pid)
            process.stdin.write(b"go on\n")
            process.stdin.flush()
            deadline = time.monotonic() + 30
            while len(below(process.pid)) == len(zygotes) and time.monotonic() < deadline:
                time.sleep(0.02)
            started = below(process.pid)
            assert len(started) == len(zygotes) + 1, "the candidate does not run"
        finally:
            process.kill()
    assert wait_until_gone(started) == set()


@linux
def test_without_bubblewrap_landlock_is_taken(
    landlocked: Isolation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Most machines have no bubblewrap installed; the program then runs without being asked."""
    assert landlocked.level == "landlock"
    assert "found none" in str(landlocked.evidence["canary"])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(IsolationUnavailable, match=r"bwrap is not installed.*--allow-unsandboxed"):
        Isolation(level="bubblewrap")


def test_no_isolation_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """On macOS the program refuses, says why, and names the flag that allows it."""
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(IsolationUnavailable, match=r"needs Linux, this is darwin.*--allow-unsandboxed"):
        Isolation()


def zygote_of(isolation: Isolation) -> int:
    """The process, or the bubblewrap that contains it."""
    assert isolation._first.zygote is not None
    assert isolation._first.zygote.pid is not None
    return isolation._first.zygote.pid


@linux
def test_the_zygote_shares_nothing_writable_and_has_one_thread(without: Isolation, tmp_path: Path) -> None:
    """What a child could write to and the next one reads would be a channel between candidates."""
    assert without.initialise(Job(HONEST, "resnet20", 10, 0, tmp_path / "w")).ok
    zygote = zygote_of(without)
    assert below(zygote) == set()
    regions = Path(f"/proc/{zygote}/maps").read_text().splitlines()
    assert [region for region in regions if region.split()[1][1::2] == "ws"] == []
    assert len(list(Path(f"/proc/{zygote}/task").iterdir())) == 1


def command_lines(processes: set[int]) -> list[bytes]:
    """What `ps` shows of each of them."""
    return [Path(f"/proc/{process}/cmdline").read_bytes() for process in processes]


@linux
@pytest.mark.parametrize("opened", ["isolation", "landlocked", "without"])
def test_ps_shows_nothing_of_the_configuration(opened: str, request: pytest.FixtureRequest) -> None:
    """`ps aux` on a machine of many users showed 12 kB of this user's paths, for as long as a search took."""
    zygote = zygote_of(request.getfixturevalue(opened))
    shown = command_lines({zygote} | below(zygote))
    assert shown
    for line in shown:
        assert len(line) < 1000
        assert not any(word in line for word in (b"site-packages", str(ROOT).encode(), b"landlock", b"ro-bind"))


WHO_AM_I = """
import os
def initialize_weights(model, config):
    print(os.getpid(), hash("x"), id(model) >> 14, [id(module) % 4096 for module in model.modules()][:8])
    for parameter in model.parameters():
        nn.init.normal_(parameter)
"""


def unlike(logs: list[str]) -> None:
    """The first two came from one interpreter, and the third from another, with nothing in common."""
    first, same, second = (line.split(maxsplit=3) for line in logs)
    assert first[1:] == same[1:]
    assert not set(first) & set(second)


@linux
def test_a_repetition_comes_from_an_interpreter_unlike_the_first(isolation: Isolation) -> None:
    """Equal weights from equal addresses prove nothing."""
    job = Job(WHO_AM_I, "resnet20", 10, 0)
    runs = [isolation.initialise(job), isolation.initialise(job), isolation.repeat(job)]
    assert len({run.sha256 for run in runs}) == 1, runs
    unlike([run.log.strip() for run in runs])


@linux
@pytest.mark.skipif(shutil.which("setarch") is None, reason="the program setarch is not installed")
def test_a_repetition_is_unlike_the_first_where_addresses_are_not_random() -> None:
    """Where a debugger or a user switched randomisation off, the zygotes had equal addresses."""
    code = f"""
from sandbox.isolate import Isolation, Job
with Isolation() as isolation:
    job = Job({WHO_AM_I!r}, "resnet20", 10, 0)
    runs = [isolation.initialise(job), isolation.initialise(job), isolation.repeat(job)]
    assert len({{run.sha256 for run in runs}}) == 1, runs
    print(*(run.log.strip() for run in runs), sep="\\n")
"""
    command = ["setarch", "--addr-no-randomize", sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    unlike(done.stdout.splitlines())


PROBE = "import json; from sandbox.isolate import probe; print(json.dumps(probe()))"


@linux
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else; as an ordinary user all tests are")
def test_both_levels_work_for_an_ordinary_user() -> None:
    """Who is not root gets the same levels."""
    import numpy

    private = [folder for folder in (ROOT, *ROOT.parents) if not folder.stat().st_mode & 0o001]
    if private:
        pytest.skip(f"an ordinary user cannot reach this checkout: {private[0]} is private")

    path = os.pathsep.join([str(ROOT), *{str(Path(module.__file__ or "").parents[1]) for module in (torch, numpy)}])
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, f"/usr/bin/{version}"):
        command = [python, "-c", PROBE]
        try:
            done = subprocess.run(
                command,
                user=12345,
                group=12345,
                extra_groups=[],
                env=environment,
                cwd="/",
                capture_output=True,
                text=True,
            )
        except (PermissionError, FileNotFoundError):
            continue
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["root"] is False
        for level, facts in found["levels"].items():
            assert facts["usable"] or obstacle_to(level), facts["reason"]
        return
    pytest.skip("no interpreter that an ordinary user may run (it lies in root's home)")
