"""The trainer: learns, repeats itself exactly, follows the protocol's schedule, and survives divergence."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from benchmark.data_stream import split_into_batches
from benchmark.models import build_model
from benchmark.results import EpochMetrics
from benchmark.sgd import CosineSgd
from benchmark.tasks import Recipe
from benchmark.train import stream_seed, train

RECIPE = Recipe(epochs=3, lr=0.05, batch_size=16)


@dataclass(frozen=True)
class Pictures:
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    num_classes: int = 10
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.25, 0.25, 0.25)


def coloured_noise(train_count: int = 120, test_count: int = 30) -> Pictures:
    """Ten classes of noise, each with a colour of its own: learnt within a few steps."""
    generator = torch.Generator().manual_seed(0)
    colours = torch.randint(40, 215, (10, 3, 1, 1), generator=generator)
    labels = torch.arange(train_count + test_count) % 10
    noise = torch.randint(-40, 40, (len(labels), 3, 32, 32), generator=generator)
    images = (colours[labels] + noise).to(torch.uint8)
    return Pictures(images[:train_count], labels[:train_count], images[train_count:], labels[train_count:])


def small_net(num_classes: int = 10) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(32, num_classes),
    )


def curve_without_clock(curve: tuple[EpochMetrics, ...]) -> list[EpochMetrics]:
    return [metrics.model_copy(update={"seconds": 0.0}) for metrics in curve]


def test_compiled_steps_give_the_same_training() -> None:
    """What a GPU will run as recorded graphs: traced on the CPU, the same losses, accuracies and weights come out."""
    plain, traced = small_net(), small_net()
    first = train(plain, coloured_noise(40, 10), RECIPE, seed=0, precision="fp32")
    second = train(traced, coloured_noise(40, 10), RECIPE, seed=0, precision="fp32", backend="aot_eager")
    for one, other in zip(first.curve, second.curve, strict=True):
        assert other.train_loss == pytest.approx(one.train_loss, rel=1e-4)
        assert other.test_acc == one.test_acc
    for name, weight in plain.state_dict().items():
        torch.testing.assert_close(traced.state_dict()[name], weight, rtol=1e-3, atol=1e-5)


def test_steps_are_those_of_torch() -> None:
    """The numbers of torch.optim.SGD under its cosine, bit by bit: stored results stay valid."""
    recipe = Recipe(epochs=4, lr=0.05, momentum=0.9, weight_decay=5e-4)
    ours, theirs = small_net(), small_net()
    optimizer = CosineSgd(ours.parameters(), recipe, fused=False)
    reference = torch.optim.SGD(theirs.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(reference, T_max=4)
    for epoch in range(4):
        for step in range(3):
            for model, forget in ((ours, optimizer.forget_gradients), (theirs, reference.zero_grad)):
                torch.manual_seed(10 * epoch + step)
                forget()
                model(torch.randn(4, 3, 32, 32)).square().sum().backward()
            optimizer.step()
            reference.step()
        optimizer.end_epoch()
        schedule.step()
        assert optimizer.lr == schedule.get_last_lr()[0]
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other)


def test_training_starts_without_what_it_does_not_use() -> None:
    """Each process of a search spent seconds on importing torch's compiler, sympy and scipy.stats, and used none.

    Whoever only wants embedded data does not wait for torchvision either.
    """
    script = """
import sys, torch
from tests.benchmark.test_train import RECIPE, coloured_noise, small_net
from benchmark.train import train
from benchmark.data import load_dataset
before = set(sys.modules)
train(small_net(), coloured_noise(40, 10), RECIPE, seed=0)
load_dataset("tiny")
print(sorted({"torch._dynamo", "sympy", "scipy.stats"} & (set(sys.modules) - before)), "torchvision" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[] False\n"


@pytest.mark.parametrize("arch", ["resnet20", "mobilenetv2"])
def test_both_precisions_train_alike(arch: str) -> None:
    """Without native bfloat16 the loop computes in float32: from the same weights the first losses agree."""
    losses = []
    for precision in ("fp32", "bf16"):
        torch.manual_seed(0)
        model = build_model(arch, 10)
        recipe = dataclasses.replace(RECIPE, epochs=1, lr=0.01, batch_size=8)
        outcome = train(model, coloured_noise(16, 4), recipe, seed=0, precision=precision)
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        losses.append(outcome.curve[0].train_loss)
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert losses[0] != losses[1]  # they did compute differently


def test_learns_and_reports_every_epoch() -> None:
    """A network learns an easy task far above chance; `on_epoch` hears what the curve holds."""
    heard: list[EpochMetrics] = []
    recipe = dataclasses.replace(RECIPE, epochs=8)
    outcome = train(small_net(), coloured_noise(), recipe, seed=0, precision="fp32", on_epoch=heard.append)
    assert outcome.status == "ok"
    assert tuple(heard) == outcome.curve
    assert [metrics.epoch for metrics in heard] == list(range(1, 9))
    assert heard[-1].test_acc > 60
    assert heard[-1].train_loss < heard[0].train_loss
    assert not outcome.step_zero.suspicious


def test_learning_rate_follows_the_public_protocol() -> None:
    """Printed at the end of epochs 160…200 of 200: 0.009549 0.005450 0.002447 0.000616 0.000000."""
    recipe = Recipe(epochs=200, lr=0.1, batch_size=4)
    outcome = train(nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)), coloured_noise(4, 1), recipe, seed=0)
    printed = [f"{outcome.curve[epoch - 1].lr:.6f}" for epoch in (160, 170, 180, 190, 200)]
    assert printed == ["0.009549", "0.005450", "0.002447", "0.000616", "0.000000"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_same_seed_same_numbers(precision: str) -> None:
    """Two runs of one seed agree to the last bit, whatever the caller drew before; another seed differs."""

    def run(seed: int) -> tuple[list[EpochMetrics], list[Tensor]]:
        model = build_model("resnet20", 10)
        torch.manual_seed(3)
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.1)
        torch.rand(torch.seed() % 7)
        recipe = dataclasses.replace(RECIPE, epochs=2)
        outcome = train(model, coloured_noise(16, 4), recipe, seed=seed, precision=precision)
        return curve_without_clock(outcome.curve), [parameter.detach() for parameter in model.parameters()]

    curve, weights = run(0)
    again, weights_again = run(0)
    assert curve == again
    assert all(torch.equal(a, b) for a, b in zip(weights, weights_again, strict=True))
    other, _ = run(1)
    assert curve != other


def test_a_large_test_set_is_evaluated_less_often() -> None:
    """Where every epoch would cost over a tenth of the time, some are skipped, never the last."""
    recipe = dataclasses.replace(RECIPE, epochs=5)
    outcome = train(small_net(), coloured_noise(120, 60), recipe, seed=0, precision="fp32")
    assert [metrics.epoch for metrics in outcome.curve] == [2, 4, 5]


def test_leaves_the_global_random_state_alone() -> None:
    """Training draws from its own streams: what the caller draws next is the same with and without it."""
    model = small_net()
    before = torch.get_rng_state()
    train(model, coloured_noise(), RECIPE, seed=0)
    assert torch.equal(before, torch.get_rng_state())


def test_divergence_is_a_status_and_never_a_nan_accuracy() -> None:
    """An absurd learning rate ends early as `diverged`; every accuracy in the curve is a number."""
    recipe = dataclasses.replace(RECIPE, lr=1e20, epochs=5)
    outcome = train(small_net(), coloured_noise(), recipe, seed=0, precision="fp32")
    assert outcome.status == "diverged"
    assert 1 <= len(outcome.curve) < 5
    assert all(math.isfinite(m.test_acc) and math.isfinite(m.train_acc) for m in outcome.curve)
    assert outcome.curve[-1].test_acc <= 30


def test_a_mask_of_infinities_is_no_divergence() -> None:
    """A transformer with a causal mask as a buffer, −inf where nothing may be seen, always counted as diverged."""
    net = small_net()
    net.register_buffer("mask", torch.full((4, 4), -math.inf).triu(1))
    assert train(net, coloured_noise(), RECIPE, seed=0, precision="fp32").status == "ok"
    net.register_buffer("seen", torch.zeros(1))

    def spoil(module: nn.Module, *_: object) -> None:
        net.seen.fill_(math.nan)  # type: ignore[operator]

    net.register_forward_hook(spoil)
    assert train(net, coloured_noise(), RECIPE, seed=0, precision="fp32").status == "diverged"


@pytest.mark.parametrize(("tested", "limit"), [(257, None), (30, 1)])
def test_a_single_left_over_test_picture_is_evaluated(tested: int, limit: int | None) -> None:
    """257 test pictures, evaluated 256 at a time, ended a training of an MLP before its first step.

    A BatchNorm1d refuses one picture: "Expected more than 1 value per channel when training".
    """
    layers = [nn.Flatten(), nn.Linear(3 * 32 * 32, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 10)]
    recipe = Recipe(epochs=1, lr=0.05, batch_size=16, test_limit=limit)
    outcome = train(nn.Sequential(*layers), coloured_noise(40, tested), recipe, seed=0, precision="fp32")
    assert (outcome.status, len(outcome.curve)) == ("ok", 1)


@pytest.mark.parametrize(
    "buffer",
    [
        torch.zeros(1, 2, 3, 4, 5),
        torch.eye(4).to_sparse(),
        torch.ones(3, dtype=torch.complex64).conj(),
        torch.arange(3),
        torch.zeros(2).to(torch.float8_e4m3fn),
    ],
    ids=["five dimensions", "sparse", "complex", "whole numbers", "8 bits"],
)
def test_buffers_of_any_kind(buffer: Tensor) -> None:
    """A buffer with five dimensions had "required rank 4 tensor", and isfinite is not for all types."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3 * 32 * 32, 10)
            self.register_buffer("kept", buffer)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(x.flatten(1))
            return out

    recipe = Recipe(epochs=1, lr=0.001, batch_size=16)
    assert train(Net(), coloured_noise(40, 20), recipe, seed=0, precision="fp32").status == "ok"


def test_limits_keep_the_first_pictures() -> None:
    """`train_limit` and `test_limit` train and test on exactly the first so many pictures."""
    data = coloured_noise()
    limited = dataclasses.replace(RECIPE, train_limit=40, test_limit=10)
    cut = Pictures(data.train_images[:40], data.train_labels[:40], data.test_images[:10], data.test_labels[:10])
    a = train(small_net(), data, limited, seed=0, precision="fp32")
    b = train(small_net(), cut, RECIPE, seed=0, precision="fp32")
    assert curve_without_clock(a.curve) == curve_without_clock(b.curve)


@pytest.mark.parametrize(("count", "sizes"), [(32, [16, 16]), (35, [16, 16, 3]), (33, [16, 17]), (9, [9]), (1, [1])])
def test_batches_cover_every_image_once(count: int, sizes: list[int]) -> None:
    """No image is dropped, none comes twice, and none trains alone, where batch normalisation would fail."""
    batches = split_into_batches(count, 16, torch.Generator().manual_seed(0))
    assert [len(batch) for batch in batches] == sizes
    assert sorted(torch.cat(batches).tolist()) == list(range(count))


def test_a_batch_of_one_is_refused() -> None:
    """A batch size of 1 is refused in words instead of failing inside a batch normalisation."""
    with pytest.raises(ValueError, match="at least two images"):
        train(small_net(), coloured_noise(), dataclasses.replace(RECIPE, batch_size=1), seed=0)


def test_streams_are_unrelated() -> None:
    """The stream of the data is another one than that of the model, and than the bare seed."""
    assert len({stream_seed("data", 0), stream_seed("model", 0), stream_seed("data", 1), 0}) == 4
