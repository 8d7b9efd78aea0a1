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
