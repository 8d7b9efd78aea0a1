"""What must hold on a GPU. Each check is a function that raises AssertionError, or returns a line for the record.

They need torch, this package and its dependencies; no pytest, no network. `device="cpu"` runs them with the eager path
and small networks, which tests the checks themselves.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmark.augment import Normalizer, crop, pad_images
from benchmark.checkpoint import Checkpoint
from benchmark.data_stream import DataStream
from benchmark.executors import LocalExecutor, Parent
from benchmark.lane_rate import noise
from benchmark.models import build_model
from benchmark.results import EpochMetrics
from benchmark.tasks import Recipe
from benchmark.train import TrainingOutcome, train

NETWORKS = ("resnet20", "resnet56", "vgg16bn", "mobilenetv2")
_DATA_SEED = 3


@dataclass(frozen=True)
class Setting:
    """Where the checks run."""

    device: str = "cuda"
    networks: tuple[str, ...] = NETWORKS
    lanes: int = 8
    batch_size: int = 128
    steps: int = 20
    kernels: str = "auto"
    precision: str = "auto"

    @property
    def recipe(self) -> Recipe:
        """One epoch of `steps` batches, the last of which is smaller."""
        return Recipe(epochs=1, lr=0.01, batch_size=self.batch_size)

    @property
    def pictures(self) -> int:
        """Pictures of an epoch."""
        return (self.steps - 1) * self.batch_size + self.batch_size // 2


def fresh(arch: str) -> nn.Module:
    """A network with the same weights each time. Not thread-safe, because constructors draw from torch's generator."""
    torch.manual_seed(1)
    return build_model(arch, 100)


def digest(model: nn.Module) -> str:
    """A hash of all weights and running statistics."""
    values = (value.detach().cpu().contiguous().numpy().tobytes() for value in model.state_dict().values())
    return hashlib.sha256(b"".join(values)).hexdigest()[:16]


def run(
    setting: Setting,
    model: nn.Module,
    *,
    seed: int = 0,
    recipe: Recipe | None = None,
    device: str | None = None,
    kernels: str | None = None,
    precision: str | None = None,
    on_epoch: Callable[[EpochMetrics], None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> TrainingOutcome:
    """Train `model` on noise as `setting` says."""
    return train(
        model,
        noise(setting.pictures, setting.pictures // 4),  # as few as give an evaluation after every epoch
        recipe or setting.recipe,
        seed=seed,
        device=device or setting.device,
        precision=precision or setting.precision,
        kernels=kernels or setting.kernels,
        on_epoch=on_epoch,
        checkpoint=checkpoint,
    )


def check_streams(setting: Setting) -> str:
    """Order, crops and pixels of three epochs are those of the CPU, bit for bit."""
    data = noise(setting.pictures, 8)

    def pixels(device: str) -> list[Tensor]:
        where = torch.device(device)
        stream = DataStream(setting.pictures, setting.batch_size, torch.Generator().manual_seed(_DATA_SEED), where)
        padded = pad_images(data.train_images.to(where), 4)
        normalize = Normalizer(data.mean, data.std, where)
        found = []
        for _ in range(3):
            for size in stream.begin_epoch():
                picks, draws = stream.take(size)
                images = crop(padded, picks, draws, 4, flip=True)
                found += [picks.cpu(), images.cpu(), normalize(images).cpu()]
        return found

    for one, other in zip(pixels("cpu"), pixels(setting.device), strict=True):
        assert torch.equal(one, other), "the GPU trains on other pictures than the CPU"
    return f"{3 * setting.steps} batches are equal"


def check_graphs(setting: Setting) -> str:
    """Captured and eager steps have the same losses on fresh pictures, within rounding; with dropout, its noise too."""
    words = []
    for arch in setting.networks:
        losses = {
            kernels: run(setting, fresh(arch), kernels=kernels, precision="fp32").curve[0]
            for kernels in (setting.kernels, "eager")
        }
        captured, eager = losses[setting.kernels], losses["eager"]
        tolerance = 0.05 if arch.startswith("vgg") else 0.01
        difference = abs(captured.train_loss - eager.train_loss) / eager.train_loss
        assert difference < tolerance, f"{arch}: {captured.train_loss} captured, {eager.train_loss} eager"
        words.append(f"{arch} {difference:.1e}")
    return "relative differences of the training loss: " + ", ".join(words)


def check_cpu_and_gpu(setting: Setting) -> str:
    """The first steps of a training have the losses of the CPU, within rounding."""
    short = Setting(device=setting.device, batch_size=32, steps=4, kernels=setting.kernels)
    here = run(short, fresh("resnet20"), precision="fp32").curve[0].train_loss
    cpu = run(short, fresh("resnet20"), device="cpu", kernels="eager", precision="fp32").curve[0].train_loss
    difference = abs(here - cpu) / cpu
    assert difference < 0.01, f"{here} on {setting.device}, {cpu} on the CPU"
    return f"training loss {here:.4f} and {cpu:.4f}"


def check_lanes(setting: Setting) -> str:
    """The weights after some steps are the same alone, again, and beside other lanes, bit for bit."""
    words = []
    for arch in setting.networks:
        model = fresh(arch)
        run(setting, model)
        alone = digest(model)
        again = fresh(arch)
        run(setting, again)
        assert digest(again) == alone, f"{arch}: twice alone gave different weights"
        models = [fresh(arch) for _ in range(setting.lanes)]
        with ThreadPoolExecutor(setting.lanes) as pool:
            trainings = [
                pool.submit(run, setting, other, seed=0 if lane % 2 == 0 else lane) for lane, other in enumerate(models)
            ]
        for training in trainings:
            training.result()
        for lane in range(0, setting.lanes, 2):
            assert digest(models[lane]) == alone, f"{arch}: lane {lane} of {setting.lanes} gave different weights"
        words.append(f"{arch} {alone}")
    return f"alone, again and beside {setting.lanes - 1} others: " + ", ".join(words)


def check_failures(setting: Setting) -> str:
    """A lane that raises and one that diverges leave the third one's weights as they are alone."""
    arch = setting.networks[0]
    alone = fresh(arch)
    run(setting, alone)
    fine, wild, broken = fresh(arch), fresh(arch), fresh(arch)

    class Broken(Exception):
        pass

    def raises(metrics: EpochMetrics) -> None:
        raise Broken

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(run, setting, fine)
        absurd = Recipe(epochs=3, lr=1e20, batch_size=setting.batch_size)
        second = pool.submit(run, setting, wild, recipe=absurd)
        third = pool.submit(run, setting, broken, on_epoch=raises)
    assert isinstance(third.exception(), Broken)
    assert second.result().status == "diverged", second.result().status
    assert first.result().status == "ok"
    assert digest(fine) == digest(alone)
    return "one raised, one diverged, one is as alone"


def killed_training(setting: Setting, path: Path, *, kill_after: int | None) -> str:
    """Train with a checkpoint after every epoch; kill this process with -9 at an epoch, or return the weights."""

    def hear(metrics: EpochMetrics) -> None:
        if metrics.epoch == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

    model = fresh("vgg8bn")
    recipe = Recipe(epochs=4, lr=0.01, batch_size=setting.batch_size)
    run(setting, model, recipe=recipe, on_epoch=hear, checkpoint=Checkpoint(path, "check", every=0.0))
    return digest(model)


def check_checkpoints(setting: Setting) -> str:
    """A training that was killed with -9 ends with the weights of one that was not."""
    small = Setting(device=setting.device, batch_size=32, steps=4, kernels=setting.kernels)
    with tempfile.TemporaryDirectory() as folder:
        expected = killed_training(small, Path(folder) / "whole", kill_after=None)
        path = Path(folder) / "killed"
        script = (
            "import pathlib, sys; from tests.gpu.checks import Setting, killed_training; "
            "killed_training(Setting(device=sys.argv[2], batch_size=32, steps=4, kernels=sys.argv[3]), "
            "pathlib.Path(sys.argv[1]), kill_after=3)"
        )
        command = [sys.executable, "-c", script, str(path), small.device, small.kernels]
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, check=False)
        assert done.returncode == -signal.SIGKILL, f"exit status {done.returncode}"
        assert path.exists(), "the killed process left no checkpoint"
        assert killed_training(small, path, kill_after=None) == expected
    return f"weights {expected}"


@dataclass(frozen=True)
class LaneCall:
    """Trains a network in a lane and returns its weights. Says with a file that it began."""

    setting: Setting
    arch: str
    seed: int

    _building = threading.Lock()

    def __call__(self, parent: Parent) -> str:
        with self._building:
            model = fresh(self.arch)
        run(self.setting, model, seed=self.seed)
        return digest(model)


def check_memory(setting: Setting) -> str:
    """On a card that is almost full fewer lanes train; each evaluation has its result, and the user is told."""
    if not setting.device.startswith("cuda"):
        return "not run: needs a GPU"
    arch = "vgg16bn"
    alone = fresh(arch)
    run(setting, alone)
    expected = digest(alone)
    del alone
    torch.cuda.empty_cache()
    said: list[str] = []
    free, _ = torch.cuda.mem_get_info()
    full = torch.empty(max(0, free - 4 * 2**30), dtype=torch.uint8, device="cuda")
    try:
        with LocalExecutor(setting.lanes, threads=1, gpus=1, say=said.append) as executor:
            futures = [executor.submit(LaneCall(setting, arch, 0), timeout=300) for _ in range(setting.lanes)]
            found = {future.result() for future in futures}
    finally:
        del full
        torch.cuda.empty_cache()
    assert found == {expected}, found
    return "; ".join(said) or "all lanes fitted into 4 GiB"


CHECKS: tuple[Callable[[Setting], str], ...] = (
    check_streams,
    check_cpu_and_gpu,
    check_graphs,
    check_lanes,
    check_failures,
    check_checkpoints,
    check_memory,
)


def timed(check: Callable[[Setting], str], setting: Setting) -> tuple[bool, str, float]:
    """Run a check: whether it held, its line, and its seconds."""
    started = time.perf_counter()
    try:
        line, held = check(setting), True
    except Exception as error:  # noqa: BLE001 - the other checks go on
        traceback.print_exc()
        line, held = f"{type(error).__name__}: {error}", False
    return held, line, time.perf_counter() - started
