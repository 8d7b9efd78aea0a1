"""What the bounds in docs/tasks.md were measured with: `python docs/task_bounds_measured.py check`, `… training` and
`… starts`.

`check` times `agent task check` on a folder of 2,000 pictures, beside a folder of eight. `training` runs a training of
over a minute inside an evaluation and, at the same time on another core, the same training by a plain call. It compares
their CPU seconds: two trainings side by side suffer alike from whatever else the machine does. `starts` times trainings
by a trainer that returns at once, one after the other as a slot runs them.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

NETWORK = """\
from torch import nn


def build(num_classes):
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, stride=2, padding=1), nn.GroupNorm(4, 32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.GroupNorm(4, 64), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, num_classes),
    )
"""
TRAINER = """\
import torch
from torch.nn import functional as F


def train(model, *, seed, device, report):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(512, 3, 32, 32, generator=generator)
    labels = torch.randint(0, 10, (512,), generator=generator)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for epoch in range(1, EPOCHS + 1):
        for start in range(0, 512, 64):
            loss = F.cross_entropy(model(images[start : start + 64]), labels[start : start + 64])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        report(epoch, val_loss=loss.item())
    return loss.item()
"""


def write_pictures(folder: Path, count: int, size: int) -> None:
    """Colour PNGs of ten classes (two for few pictures), four fifths for training."""
    from PIL import Image

    random = np.random.default_rng(0)
    classes = 10 if count >= 100 else 2
    for index in range(count):
        split = "test" if index // classes % 5 == 4 or (count < 10 and index >= count // 2) else "train"
        place = folder / split / f"class{index % classes}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(place / f"{index}.png")


def check() -> dict[str, Any]:
    """Wall and CPU seconds of `agent task check` on eight and on 2,000 pictures of 64×64, in an empty cache."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "net.py").write_text(NETWORK)
        for count in (8, 2000):
            write_pictures(folder / f"pictures{count}", count, 64)
            task = folder / f"pictures{count}.toml"
            task.write_text(f'[[visible]]\nnetwork = "net.py:build"\ndata = "pictures{count}"\nbatch_size = 64\n')
            environment = {**os.environ, "INITSEARCH_CACHE_DIR": str(folder / f"cache{count}")}
            words = [sys.executable, "-m", "agent", "task", "check", str(task), "--workers", "1"]
            started, used = time.perf_counter(), sum(os.times()[2:4])
            subprocess.run(words, env=environment, check=True, capture_output=True)
            found[f"check_{count}_s"] = round(time.perf_counter() - started, 1)
            found[f"check_{count}_cpu_s"] = round(sum(os.times()[2:4]) - used, 1)
    beyond = {kind: round(found[f"check_2000{kind}"] - found[f"check_8{kind}"], 1) for kind in ("_s", "_cpu_s")}
    return {**found, **{f"beyond_start{kind}": seconds for kind, seconds in beyond.items()}}


def tree_seconds(root: int, without: int) -> float:
    """CPU seconds of a process and of all below it, those that have ended too; not of the child `without`."""
    ticks: dict[int, float] = {}
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1])
            ticks[int(entry.name)] = sum(map(int, fields[11:15]))
    below = {root}
    while more := {pid for pid, parent in parents.items() if parent in below and pid != without} - below:
        below |= more
    return sum(ticks.get(pid, 0.0) for pid in below) / os.sysconf("SC_CLK_TCK")


def plain(work: PlainTraining | PlainOwn, ready: Connection) -> None:
    """A process that gets ready, waits for the other one, then does the work and tells its CPU seconds."""
    work.get_ready()
    ready.send("ready")
    ready.recv()
    started = time.process_time() + sum(os.times()[2:4])
    work()
    ready.send(time.process_time() + sum(os.times()[2:4]) - started)


def training(epochs: int, *, own: bool) -> dict[str, Any]:
    """CPU seconds of one training inside an evaluation, and of the same training alone."""
    from agent.clock import Clock
    from agent.config import load_config
    from agent.evaluation.batches import Candidate
    from agent.evaluation.workbench import open_workbench
    from agent.profiles import baseline_region, resolve_profile
    from agent.progress import Progress
    from benchmark.store import LayeredStore, ResultStore

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["INITSEARCH_CACHE_DIR"] = str(folder / "cache")
        (folder / "net.py").write_text(
            NETWORK.replace("(num_classes)", "()").replace("num_classes", "10") if own else NETWORK
        )
        (folder / "train.py").write_text(TRAINER.replace("EPOCHS", str(epochs)))
        task = '[[visible]]\nnetwork = "net.py:build"\n'
        if own:
            task += 'train = "train.py:train"\nmetric = "val_loss"\ndirection = "minimize"\n'
        else:
            write_pictures(folder / "pictures", 2000, 32)
            task += f'data = "pictures"\nepochs = {epochs}\n'
        (folder / "task.toml").write_text(task)
        profile, _ = resolve_profile(str(folder / "task.toml"))
        config = load_config({"profile": str(folder / "task.toml"), "workers": 1})
        here, there = multiprocessing.get_context("spawn").Pipe()
        work = PlainOwn(folder) if own else PlainTraining(str(folder / "task.toml"))
        alone = multiprocessing.get_context("spawn").Process(target=plain, args=(work, there))
        alone.start()
        with open_workbench(config, Clock(), Progress(), evaluations=1, threads=1) as workbench:
            here.recv()
            before = tree_seconds(os.getpid(), alone.pid or 0)
            here.send("go")
            workbench.evaluator.evaluate(
                [Candidate("baseline", baseline_region(profile))],
                profile.visible,
                (0,),
                results=LayeredStore(ResultStore(folder / "results")),
            )
            inside = tree_seconds(os.getpid(), alone.pid or 0) - before
        outside = float(here.recv())
        alone.join()
    return {"inside_s": round(inside, 1), "plain_s": round(outside, 1), "ratio": round(inside / outside, 4)}


def starts(count: int = 6) -> dict[str, Any]:
    """Wall seconds of the first such training and the mean of the others."""
    from benchmark.networks import Network
    from benchmark.own_trainer import TrainCall, run_trainer
    from benchmark.sources import Source
    from benchmark.task import Trainer

    text = "from torch import nn\n\n\ndef build():\n    return nn.Linear(2, 2)\n"
    with tempfile.TemporaryDirectory() as name:
        Path(name, "net.py").write_text(text)
        Path(name, "train.py").write_text("def train(model, *, seed, device, report):\n    return 1.0\n")
        network = Network("net.py:build", None, sources=(Source("net", "net.py", text),))
        call = TrainCall(Trainer("train.py:train", Path(name), ()), network, None, 0, "cpu")
        seconds = []
        for _ in range(count):
            started = time.perf_counter()
            run_trainer(call, gpus=0)
            seconds.append(time.perf_counter() - started)
    return {"first_s": round(seconds[0], 2), "later_s": round(sum(seconds[1:]) / (count - 1), 2)}


class PlainTraining:
    """The training of a task with data, called directly."""

    def __init__(self, file: str) -> None:
        self.file = file

    def get_ready(self) -> None:
        """Import torch, read the data and build the network, which a search does once for many trainings."""
        import torch

        from agent.profiles import resolve_profile
        from benchmark import networks
        from benchmark.data.prepared import load_task_data
        from benchmark.train import train

        torch.set_num_threads(1)
        task = resolve_profile(self.file)[0].visible[0]
        assert task.network is not None
        model, data = networks.build(task.network, 0), load_task_data(task.data, task.dataset, None)
        self.work: Callable[[], object] = lambda: train(model, data, task.recipe, seed=0, device="cpu")

    def __call__(self) -> None:
        self.work()


class PlainOwn:
    """A user's own trainer, run as its owner runs it: a Python process that imports torch, builds and trains."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get_ready(self) -> None:
        """Nothing: each training of such a trainer has a process of its own, here as in a search."""

    def __call__(self) -> None:
        code = "import torch; torch.set_num_threads(1); import net, train; "
        code += "train.train(net.build(), seed=0, device='cpu', report=lambda epoch, **metrics: None)"
        subprocess.run([sys.executable, "-c", code], cwd=self.folder, check=True)


def main(words: list[str]) -> None:
    """Print one line of JSON for each measurement."""
    if words[:1] == ["check"]:
        print(json.dumps(check()))
    if words[:1] == ["starts"]:
        print(json.dumps(starts()))
    for own in (False, True) if words[:1] == ["training"] else ():
        epochs = int(words[1]) if len(words) > 1 else 100
        print(json.dumps({"own_trainer": own, **training(epochs * (3 if own else 1), own=own)}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
