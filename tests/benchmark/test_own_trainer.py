"""Trainers of a user's own that misbehave: one sentence for each, nothing hung, nothing changed for what follows."""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmark.executors import ProcessDied
from benchmark.lanes import UNHEARD
from benchmark.networks import Network, NetworkError, build, described
from benchmark.own_trainer import TrainCall, Trained, last_printed, own_metrics, run_trainer
from benchmark.sources import Source
from benchmark.task import Trainer
from benchmark.user_code import contained

NETWORK = "from torch import nn\n\n\ndef build():\n    return nn.Linear(2, 2)\n"


def trained(folder: Path, body: str, output: Path | None = None, **options: Any) -> Trained | str:
    """The answer of a trainer whose function has this body."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    (folder / "train.py").write_text(f"import os, threading\ndef train(model, *, seed, device, report):\n{lines}\n")
    (folder / "net.py").write_text(NETWORK)
    network = Network("net.py:build", None, sources=(Source("net", "net.py", NETWORK),))
    call = TrainCall(Trainer("train.py:train", folder, ()), network, None, 0, "cpu", output)
    return run_trainer(call, gpus=0, **options)


def test_a_trainer_that_ends_its_process(tmp_path: Path) -> None:
    """`agent task check` showed a traceback and exit code 1, and a search called it a failure of the machine."""
    said = trained(tmp_path, "open('tried', 'a').write('x')\nos._exit(3)")
    assert isinstance(said, str)
    assert "train train.py:train: its process ended with exit status 3 before the function returned" in said
    assert (tmp_path / "tried").read_text() == "xx"  # retried once, and no more


@pytest.mark.skipif(sys.platform != "linux", reason="forks are made on Linux only")
def test_trainers_are_fresh_forks_of_one_process(tmp_path: Path) -> None:
    """Each training imported torch, a second and a half. Nothing of one training is left in the next."""
    (tmp_path / "state.py").write_text("runs = 0\n")
    body = "import state\nstate.runs += 1\nreport(state.runs, parent=os.getppid(), own=os.getpid())\nreturn 1.0"
    first, second = trained(tmp_path, body), trained(tmp_path, body)
    assert isinstance(first, Trained)
    assert isinstance(second, Trained)
    seen = [run.curve[0].own or {} for run in (first, second)]
    assert seen[0]["parent"] == seen[1]["parent"] != os.getpid()
    assert seen[0]["own"] != seen[1]["own"]
    assert [run.curve[0].epoch for run in (first, second)] == [1, 1]


@pytest.mark.skipif(sys.platform != "linux", reason="forks are made on Linux only")
def test_a_trainer_that_kills_what_forked_it(tmp_path: Path) -> None:
    """The training fails, and the next one is forked by a new process."""
    said = trained(tmp_path, f"os.kill(os.getppid(), {int(signal.SIGKILL)})\nthreading.Event().wait()")
    assert isinstance(said, str)
    assert isinstance(trained(tmp_path, "return 0.5"), Trained)


def test_what_a_trainer_prints_can_be_read(tmp_path: Path) -> None:
    """It went to /dev/null: whoever looked for a fault with print saw nothing. It is there after a crash as well."""
    output = tmp_path / "printed.txt"
    body = (
        "for i in range(30): print('step', i)\nimport sys\nsys.stderr.write('1 %\\r2 %\\r')\n"
        "os.write(1, b'\\nraw\\n')\nprint('x' * 1000)\nos._exit(3)"
    )
    assert isinstance(trained(tmp_path, body, output), str)
    assert last_printed(output, 4) == ["step 29", "2 %", "raw", "x" * 200]
    assert last_printed(tmp_path / "none.txt", 4) == []


def test_what_a_trainer_prints_does_not_fill_the_disk(tmp_path: Path) -> None:
    output = tmp_path / "printed.txt"
    assert isinstance(trained(tmp_path, "for i in range(40): print('x' * 10**5)\nreturn 0.5", output), Trained)
    assert output.stat().st_size < 2**21


def test_only_the_process_that_was_called_answers(tmp_path: Path) -> None:
    """A forked child that returned as well answered too, and a thread that went on reporting garbled the answer."""
    body = (
        "threading.Thread(target=lambda: [report(1, loss=1) for _ in range(10**9)]).start()\n"
        "child = os.fork()\nif child:\n    assert os.waitpid(child, 0)[1] == 0\n    return 0.5\nreturn 0.7"
    )
    found = trained(tmp_path, body)
    assert isinstance(found, Trained), found
    assert found.score == 0.5


def test_a_trainer_that_never_returns(tmp_path: Path) -> None:
    """`agent task check` trained for ever."""
    said = trained(tmp_path, "while True: pass", seconds=0.5)
    assert said == "train train.py:train did not return within 0.5 s; --seconds gives it more"


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (-signal.SIGSEGV, "died of SIGSEGV"),
        (-signal.SIGKILL, "memory ran out"),
        (-35, "signal 35"),
        (0, "exit status 0"),
        (UNHEARD, "closed the connection"),
        (None, "closed the connection"),
    ],
)
def test_how_a_process_ended_is_said(status: int | None, said: str) -> None:
    assert said in ProcessDied("", status).how()


def test_a_users_code_leaves_torch_and_the_folder_as_they_were(tmp_path: Path) -> None:
    """A constructor that switched gradients off, or took float64, spoilt what the same process trained next."""
    before, threads = Path.cwd(), torch.get_num_threads()
    with contained():
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        torch.set_grad_enabled(False)
        torch.set_num_threads(threads + 1)
        os.chdir(tmp_path)
    assert torch.zeros(1).dtype == torch.float32
    assert torch.zeros(1).device.type == "cpu"
    assert torch.is_grad_enabled()
    assert (torch.get_num_threads(), Path.cwd()) == (threads, before)


def test_a_forked_process_does_not_go_on_with_ours() -> None:
    """A constructor that forked made two processes train and answer."""
    with contained():
        child = os.fork()
    assert os.waitpid(child, 0)[1] == 0


def test_a_constructor_that_never_returns_is_stopped() -> None:
    """`agent search` loaded the task file for an hour."""
    with pytest.raises(TimeoutError, match=r"did not return within 0\.2 s"), contained(0.2):
        threading.Event().wait()


@pytest.mark.parametrize("raised", ["KeyboardInterrupt", "GeneratorExit", "SystemExit(4)", "Odd()"])
def test_whatever_a_constructor_raises_is_said(raised: str) -> None:
    """Only exceptions were caught, so KeyboardInterrupt ended the process: "died twice"."""
    text = "class Odd(BaseException):\n    def __str__(self): raise ValueError\ndef build():\n"
    network = Network("net.py:build", None, sources=(Source("net", "net.py", f"{text}    raise {raised}\n"),))
    with pytest.raises(NetworkError, match=rf"{raised.partition('(')[0]}.*\(net.py line 4\)"):
        build(network, 0)


def test_an_error_names_the_users_line() -> None:
    with pytest.raises(ValueError, match="convert") as raised:
        exec(compile("\nfloat('x')", "/home/me/train.py", "exec"))
    assert described(raised.value) == "ValueError: could not convert string to float: 'x' (train.py line 2)"


@pytest.mark.parametrize("text", ["from benchmark import timer", "import agent.policy"])
def test_a_module_that_is_called_like_ours_is_said(text: str) -> None:
    """A helper benchmark.py beside the network gave "cannot import name 'timer' from 'benchmark'", with our path."""
    with pytest.raises(ImportError) as raised:
        exec(compile(text, "/home/me/net.py", "exec"))
    name = text.split()[1].partition(".")[0]
    said = f"; {name} is a package of this project here, so a module of yours needs another name (net.py line 1)"
    assert described(raised.value).endswith(said)


def test_what_a_trainer_reports_is_kept_if_it_is_a_number() -> None:
    """A tensor of three numbers, or a number beyond all floats, ended the training."""
    odd = {"a": torch.zeros(3), "b": None, "c": "x", "d": 10**400, "e": True, "f": torch.tensor(2.0), "g": math.inf}
    assert own_metrics(3, odd, 1.0).own == {"f": 2.0, "g": math.inf}
    for epoch in ("one", None, 1.5, math.nan, math.inf, torch.zeros(2)):
        with pytest.raises(TypeError, match="takes the number of an epoch, not"):
            own_metrics(epoch, {}, 1.0)  # type: ignore[arg-type]
