"""Checkpoints: a training that was killed ends as if it had not been."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmark.checkpoint import Checkpoint
from benchmark.results import EpochMetrics
from benchmark.store import checkpoint_folder
from benchmark.tasks import Recipe
from benchmark.train import TrainingOutcome, train
from tests.benchmark.test_train import coloured_noise, curve_without_clock, small_net

RECIPE = Recipe(epochs=6, lr=0.05, batch_size=16)


def run(
    path: Path | None, *, kill_after: int | None = None, identity: str = "a"
) -> tuple[TrainingOutcome, nn.Module, list[int]]:
    """Train with a checkpoint after every epoch, and kill this process with -9 when an epoch is reported."""
    heard: list[int] = []

    def hear(metrics: EpochMetrics) -> None:
        heard.append(metrics.epoch)
        if metrics.epoch == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

    model = small_net()
    checkpoint = None if path is None else Checkpoint(path, identity, every=0.0)
    # Every second epoch is evaluated, so that a checkpoint falls between two evaluations.
    data = coloured_noise(120, 50)
    return train(model, data, RECIPE, seed=0, precision="fp32", on_epoch=hear, checkpoint=checkpoint), model, heard


@pytest.fixture(scope="module")
def whole() -> tuple[TrainingOutcome, nn.Module, list[int]]:
    return run(None)


def test_a_killed_training_ends_as_if_it_had_not_been(
    tmp_path: Path, whole: tuple[TrainingOutcome, nn.Module, list[int]]
) -> None:
    """kill -9 in the middle: the second process begins after the last checkpoint; weights and curve are the same."""
    path = tmp_path / "folder" / "one.safetensors"
    script = "import pathlib, sys; from tests.benchmark.test_checkpoint import run; "
    script += "run(pathlib.Path(sys.argv[1]), kill_after=4)"
    killed = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.exists()
    outcome, model, heard = run(path)
    expected, reference, all_heard = whole
    assert all_heard == [2, 4, 6]
    assert heard == [4, 6]  # the kill came before the checkpoint of epoch 4
    assert curve_without_clock(outcome.curve) == curve_without_clock(expected.curve)
    assert outcome.step_zero == expected.step_zero
    for name, value in reference.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)
    times = [metrics.seconds for metrics in outcome.curve]
    assert times == sorted(times)  # the clock goes on where it was


@pytest.mark.parametrize("harm", ["of something else", "cut", "not there", "a folder"])
def test_a_file_that_does_not_fit_is_not_used(
    harm: str, tmp_path: Path, whole: tuple[TrainingOutcome, nn.Module, list[int]]
) -> None:
    """Another identity, half a file, none, or a folder: the training begins anew and has the same result."""
    path = tmp_path / "one.safetensors"
    if harm in ("of something else", "cut"):
        run(path, identity="b" if harm == "of something else" else "a")
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    if harm == "a folder":
        path.mkdir()
    outcome, _, heard = run(path)
    assert heard == [2, 4, 6]
    assert curve_without_clock(outcome.curve) == curve_without_clock(whole[0].curve)


def test_runs_share_no_folder_and_old_ones_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hidden results are never shared between runs, so their checkpoints are not either."""
    monkeypatch.setenv("INITSEARCH_CACHE_DIR", str(tmp_path))
    first = checkpoint_folder(tmp_path / "runs" / "a")
    assert first != checkpoint_folder(tmp_path / "runs" / "b")
    first.mkdir(parents=True)
    (first / "x").touch()
    assert checkpoint_folder(tmp_path / "runs" / "a") == first
    assert first.exists()
    month_ago = time.time() - 31 * 86400
    os.utime(first, (month_ago, month_ago))
    checkpoint_folder(tmp_path / "runs" / "b")
    assert not first.exists()


class Tied(nn.Module):
    """Two layers share a weight, a buffer is a view of another, and a module keeps a dict in its state."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.one, self.two = nn.Linear(3 * 32 * 32, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.two.weight = self.one.weight
        self.head = nn.Linear(8, 10)
        table = torch.arange(4.0)
        self.register_buffer("table", table)
        self.register_buffer("part", table[1:3])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.two(self.one(self.start(x.flatten(1)).relu()).relu()).relu())
        return out

    def get_extra_state(self) -> dict[str, int]:
        return {"version": 1}

    def set_extra_state(self, state: dict[str, int]) -> None:
        assert state == {"version": 1}


class Stop(Exception):
    """Ends a training."""


def test_a_network_with_tied_weights_has_checkpoints(tmp_path: Path) -> None:
    """A training of over two minutes ended with "Some tensors share memory" at its first checkpoint.

    Without tied weights a module with a state of its own did: "'dict' object has no attribute 'detach'".
    """
    data, path = coloured_noise(60, 10), tmp_path / "one.safetensors"

    def trained(stop: int | None) -> tuple[TrainingOutcome, nn.Module, list[int]]:
        torch.manual_seed(0)
        model, heard = Tied(), []

        def hear(metrics: EpochMetrics) -> None:
            heard.append(metrics.epoch)
            if metrics.epoch == stop:
                raise Stop

        checkpoint = Checkpoint(path, "a", every=0.0)
        recipe = Recipe(epochs=4, lr=0.05, batch_size=16)
        return (
            train(model, data, recipe, seed=0, precision="fp32", on_epoch=hear, checkpoint=checkpoint),
            model,
            heard,
        )

    whole, expected, _ = trained(None)
    path.unlink()
    with pytest.raises(Stop):
        trained(3)
    outcome, model, heard = trained(None)
    assert heard == [3, 4]  # the first two epochs were in the checkpoint
    assert curve_without_clock(outcome.curve) == curve_without_clock(whole.curve)
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), expected.parameters(), strict=True))


def test_a_type_that_the_file_cannot_hold_costs_only_the_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A buffer of complex128 ended the training with a KeyError when the first checkpoint was due."""
    model = small_net()
    model.register_buffer("phases", torch.ones(3, dtype=torch.complex128))
    checkpoint = Checkpoint(tmp_path / "one.safetensors", "a", every=0.0)
    recipe = Recipe(epochs=2, lr=0.05, batch_size=16)
    outcome = train(model, coloured_noise(40, 20), recipe, seed=0, precision="fp32", checkpoint=checkpoint)
    assert outcome.status == "ok"
    assert "no checkpoint of this training could be written: torch.complex128" in capsys.readouterr().err
