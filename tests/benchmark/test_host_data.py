"""Pictures that find no room on the device are sent in blocks, and nothing else changes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from benchmark import device_data, host_data, steps
from benchmark.data_stream import DataStream, in_blocks
from benchmark.device_data import DeviceData, needed, on_device, placement
from benchmark.host_data import HostData
from benchmark.results import EpochMetrics
from benchmark.tasks import Recipe
from benchmark.train import train
from tests.benchmark.test_steps import NoGpu
from tests.benchmark.test_train import Pictures, coloured_noise, curve_without_clock, small_net

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=2, lr=0.05, batch_size=16)
RECIPES = {
    "crops": RECIPE,
    "single picture left": dataclasses.replace(RECIPE, batch_size=17),
    "no augmentation, limits": dataclasses.replace(RECIPE, crop_padding=0, flip=False, train_limit=70, test_limit=20),
}


def leave_no_room(patch: pytest.MonkeyPatch) -> None:
    """The device has room for 200 kB of pictures, of which the training's take 0.9 MB; a block has 49 pictures."""
    patch.setattr(device_data, "room_for_data", lambda device: 200_000.0)
    patch.setattr(host_data, "BLOCK_BYTES", 49 * 3 * 40 * 40)
    evaluate_eight(patch)


def evaluate_eight(patch: pytest.MonkeyPatch) -> None:
    """An evaluation's forward pass has eight pictures."""
    patch.setattr(host_data, "EVAL_BATCH", 8)
    patch.setattr("benchmark.train.EVAL_BATCH", 8)


@pytest.fixture
def no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_no_room(monkeypatch)


def trained(data: Pictures, recipe: Recipe) -> tuple[list[EpochMetrics], dict[str, torch.Tensor]]:
    model = small_net()
    outcome = train(model, data, recipe, seed=3, precision="fp32")
    return curve_without_clock(outcome.curve), model.state_dict()


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("captured", [False, True], ids=["eager", "captured"])
def test_the_same_weights_and_curve_bit_for_bit(name: str, captured: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with captured steps, which read each block where they read the first one."""
    data, recipe = coloured_noise(120, 30), RECIPES[name]
    with pytest.MonkeyPatch.context() as patch:
        evaluate_eight(patch)
        expected = trained(data, recipe)
    leave_no_room(monkeypatch)
    if captured:
        monkeypatch.setattr(steps, "Gpu", NoGpu)
        monkeypatch.setattr(NoGpu, "captured", [])
        monkeypatch.setattr("benchmark.train.open_steps", lambda kernels, device, seed: steps.Captured(device, seed))
    assert isinstance(on_device(data, recipe, CPU), HostData)
    curve, weights = trained(data, recipe)
    assert curve == expected[0]
    assert all(torch.equal(weights[key], value) for key, value in expected[1].items())


def test_the_stream_hands_out_the_same_pictures(no_room: None) -> None:
    """Batch by batch: pictures, labels and draws, over two epochs."""
    data = coloured_noise(120, 30)
    host = HostData(data, RECIPE, CPU)
    assert host.block == 49
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device_data, "room_for_data", lambda device: 1e9)
        whole = on_device(data, RECIPE, CPU)
    assert isinstance(whole, DeviceData)
    streams = [
        DataStream(120, 16, torch.Generator().manual_seed(0), CPU, fetch=one.fetch, block=one.block)
        for one in (whole, host)
    ]
    for _ in range(2):
        for sizes in zip(*(stream.begin_epoch() for stream in streams), strict=True):
            assert sizes[0] == sizes[1]
            (picks, draws), (places, same_draws) = (stream.take(sizes[0]) for stream in streams)
            assert torch.equal(draws, same_draws)
            assert torch.equal(whole.train_images[picks], host.train_images[places])
            assert torch.equal(whole.train_labels[picks], host.train_labels[places])
    tests = torch.cat([host.test_images[:size].clone() for size in host.test_blocks()])
    assert torch.equal(tests, whole.test_images)
    assert len(host.test_images) < len(tests)


def test_blocks_hold_whole_batches() -> None:
    """A batch that is larger than a block is a block of its own."""
    batches = [torch.zeros(size) for size in (4, 4, 4, 9, 4, 1)]
    assert [[len(batch) for batch in block] for block in in_blocks(batches, 8)] == [[4, 4], [4], [9], [4, 1]]


def test_normalised_and_repeated_grey_pictures_are_sent_too(no_room: None) -> None:
    """float32 arrays keep their values; channels that share memory are read as they are."""
    data = coloured_noise(120, 30)
    grey = data.train_images[:, :1].expand(-1, 3, -1, -1)
    for images in (data.train_images.float(), grey):
        host = HostData(dataclasses.replace(data, train_images=images), RECIPE, CPU)
        picks = torch.tensor([5, 100, 7])
        host.fetch(picks)
        assert host.train_images.dtype == images.dtype
        assert torch.equal(host.train_images[:3, 4:-4, 4:-4].permute(0, 3, 1, 2), images[picks])


def test_where_the_pictures_are_is_said(no_room: None) -> None:
    """`agent task check` prints the sentence; it says nothing where all of them find room."""
    data = coloured_noise(120, 30)
    assert needed(data, RECIPE) == 120 * 3 * 40 * 40 + 30 * 3 * 32 * 32 * 4
    assert placement(data, RECIPE, CPU) == (
        "the pictures (0.00088 GB) stay in host memory and are sent in blocks of at most 49: the device has room for "
        "0.00019 GB of them"
    )
    assert placement(data, dataclasses.replace(RECIPE, train_limit=4, test_limit=4), CPU) is None


def test_a_killed_training_goes_on_with_the_same_blocks(no_room: None, tmp_path: Path) -> None:
    """The order of an epoch comes from the data's generator, which a checkpoint holds."""
    from benchmark.checkpoint import Checkpoint

    class Killed(Exception):
        pass

    def kill(metrics: EpochMetrics) -> None:
        if metrics.epoch == 2:
            raise Killed

    data, recipe = coloured_noise(120, 30), dataclasses.replace(RECIPE, epochs=3)
    expected = trained(data, recipe)
    checkpoint = Checkpoint(tmp_path / "one.safetensors", "one", every=0.0)
    with pytest.raises(Killed):
        train(small_net(), data, recipe, seed=3, precision="fp32", on_epoch=kill, checkpoint=checkpoint)
    model = small_net()
    outcome = train(model, data, recipe, seed=3, precision="fp32", checkpoint=checkpoint)
    assert curve_without_clock(outcome.curve) == expected[0]
    assert all(torch.equal(model.state_dict()[key], value) for key, value in expected[1].items())
