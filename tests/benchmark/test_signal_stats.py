"""Signal statistics at step 0: measured right, without leaving a trace, and blunt about networks that cannot learn."""

from __future__ import annotations

import json
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.data import load_dataset
from benchmark.models import ARCHITECTURES, build_model, init_config
from benchmark.recipes import get_recipe, load_region
from benchmark.signal_stats import SignalStatistics, signal_statistics
from benchmark.signal_table import HEADER, measure, row


def batch(size: int = 8, classes: int = 10) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(size, 3, 32, 32, generator=generator), torch.arange(size) % classes


def network(recipe: str, arch: str) -> nn.Module:
    model = build_model(arch, 10)
    torch.manual_seed(0)
    load_region(get_recipe(recipe).region)(model, init_config(model, arch, 10))
    return model


def of_recipe(recipe: str, arch: str) -> SignalStatistics:
    return signal_statistics(network(recipe, arch), *batch())


def test_scales_of_a_network_computed_by_hand() -> None:
    """Two Linear layers and a ReLU, against the same numbers written out."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(inplace=True), nn.Linear(5, 3))
    images, labels = torch.randn(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
    first, last = model.get_submodule("1"), model.get_submodule("3")
    hidden = first(images.flatten(1)).detach().requires_grad_()
    logits = last(F.relu(hidden))
    loss = F.cross_entropy(logits, labels)
    (gradient,) = torch.autograd.grad(loss, hidden)
    found = signal_statistics(model, images, labels)
    assert found.loss == pytest.approx(loss.item())
    assert found.uniform_loss == pytest.approx(math.log(3))
    assert found.logit_scale == pytest.approx(logits.sub(logits.mean(1, keepdim=True)).square().mean().sqrt().item())
    assert [layer.name for layer in found.layers] == ["1", "3"]
    assert found.layers[0].activation_scale == pytest.approx(hidden.square().mean().sqrt().item())
    assert found.layers[0].gradient_scale == pytest.approx(4 * gradient.square().mean().sqrt().item())
    weight = gradient.T @ images.flatten(1)
    assert found.layers[0].relative_gradient == pytest.approx(
        (weight.norm() / first.get_parameter("weight").norm()).item()
    )
    dead = (hidden <= 0).all(0).float().mean().item()
    assert found.relus[0].dead_share == pytest.approx(dead)
    assert found.dead_relu_share == pytest.approx(dead)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_network_is_measured_and_left_as_it_was(arch: str) -> None:
    """All layers are there; weights, buffers, gradients, mode and random numbers do not change; twice is the same."""
    model = network("kaiming_normal", arch).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    found = signal_statistics(model, *batch())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.training
    assert not any(module._forward_hooks for module in model.modules())
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert sorted(layer.name for layer in found.layers) == sorted(names)
    assert all(layer.activation_scale > 0 and layer.gradient_scale > 0 for layer in found.layers)
    assert found.faults == ()
    assert len(found.branches) == {"resnet20": 9, "resnet56": 27, "vgg8bn": 0, "vgg16bn": 0, "mobilenetv2": 10}[arch]
    assert found == signal_statistics(model, *batch())
    json.dumps(found.as_json())


def test_branch_to_skip_shows_zero_initialised_branches() -> None:
    """Fixup's branches are zero. kaiming_normal's first branch is as large as its skip; later ratios are smaller."""
    for arch in ("resnet20", "mobilenetv2"):
        assert {branch.branch_to_skip for branch in of_recipe("fixup", arch).branches} == {0.0}
    ratios = [branch.branch_to_skip for branch in of_recipe("kaiming_normal", "resnet56").branches]
    assert ratios[8] < ratios[0]  # the skip grows through a stage of identity shortcuts
    quiet = [branch.branch_to_skip for branch in of_recipe("gradinit_like", "resnet56").branches]
    assert max(quiet) < 0.6


def test_head_small_shows_in_the_logits_and_the_loss() -> None:
    """head_small gives a tenth of the logits, and nearly the loss of uniform predictions."""
    plain, small = of_recipe("kaiming_normal", "vgg16bn"), of_recipe("head_small", "vgg16bn")
    assert small.logit_scale == pytest.approx(plain.logit_scale / 10, rel=1e-4)
    assert abs(small.loss - small.uniform_loss) < 0.1 * abs(plain.loss - plain.uniform_loss) + 0.01


def test_a_network_that_cannot_learn_is_called_so() -> None:
    """RBB zeroes MobileNetV2's blocks without a skip: everything behind them is dead. Others overflow, or are zero."""
    rbb = of_recipe("rbb", "mobilenetv2")
    assert rbb.faults == ("no gradient reaches any weight",)
    assert rbb.dead_relu_share > 0.9
    assert any("times its weight" in fault for fault in of_recipe("zero_init", "vgg16bn").faults)
    model = network("kaiming_normal", "resnet20")
    nn.init.zeros_(model.get_parameter("fc.weight"))
    assert signal_statistics(model, *batch()).faults == ("no gradient reaches any convolution",)
    nn.init.constant_(model.get_parameter("conv1.weight"), 3e38)
    assert signal_statistics(model, *batch()).faults[0] == "the forward pass overflows, first in conv1"


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Flatten(), nn.Linear(3 * 32 * 32, 10)],
        [nn.Flatten(1, 2), nn.Conv1d(96, 10, 32), nn.Flatten()],
        [nn.Unflatten(1, (1, 3)), nn.Conv3d(1, 10, (3, 32, 32)), nn.Flatten()],
        [nn.Conv2d(3, 10, 32), nn.BatchNorm2d(10), nn.Flatten()],
    ],
    ids=["MLP", "1-d", "3-d", "2-d"],
)
def test_a_network_without_convolutions_of_two_dimensions_has_no_fault_for_it(layers: list[nn.Module]) -> None:
    """`--screen` rejected every candidate of an MLP ("no gradient reaches any convolution") and of a 1-d network.

    A network with a Conv3d ended in a traceback: "required rank 4 tensor to use channels_last format".
    """
    assert signal_statistics(nn.Sequential(*layers), *batch()).faults == ()


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
def test_weights_that_are_computed_are_measured_around() -> None:
    """A network with the old weight_norm or spectral_norm could neither be screened nor shown on the page."""
    conv = nn.utils.weight_norm(nn.Conv2d(3, 4, 3))
    other = nn.utils.spectral_norm(nn.Conv2d(4, 4, 3))
    new = nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 3))
    model = nn.Sequential(conv, other, new, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    found = signal_statistics(model, *batch())
    assert found.faults == ()
    assert [layer.kind for layer in found.layers] == ["Linear"]


def test_dead_channels_of_relu6_are_those_at_either_end() -> None:
    """Channels held below 0 or above 6 pass no gradient; the one in between does."""
    conv = nn.Conv2d(3, 3, 1)
    nn.init.zeros_(conv.weight)
    with torch.no_grad():
        assert conv.bias is not None
        conv.bias.copy_(torch.tensor([-1.0, 3.0, 9.0]))
    model = nn.Sequential(conv, nn.ReLU6(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    found = signal_statistics(model, torch.randn(2, 3, 4, 4), torch.tensor([0, 1]))
    assert found.relus[0].dead_share == pytest.approx(2 / 3)


def test_a_batch_that_does_not_fit_is_refused() -> None:
    """Too few images, as many labels as images, labels that the network has no output for."""
    model = network("kaiming_normal", "resnet20")
    images, labels = batch()
    with pytest.raises(ValueError, match=r"N ≥ 2, not \(1, 3, 32, 32\) and \(1,\)"):
        signal_statistics(model, images[:1], labels[:1])
    with pytest.raises(ValueError, match=r"and \(3,\)"):
        signal_statistics(model, images, labels[:3])
    with pytest.raises(ValueError, match="labels must lie in 0…9"):
        signal_statistics(model, images, labels + 5)


def test_the_table_has_a_row_for_a_recipe_on_a_network() -> None:
    """`python -m benchmark.signal_table`: as many cells as the header, the same for the same seed."""
    data = load_dataset("tiny")
    for recipe, arch, cell in (("fixup", "resnet20", "0.00"), ("rbb", "mobilenetv2", "no gradient reaches any weight")):
        line = row(recipe, arch, measure(recipe, arch, data, batch=16))
        assert line.count("|") == HEADER.splitlines()[0].count("|")
        assert f"| {cell} |" in line
        assert line == row(recipe, arch, measure(recipe, arch, data, batch=16))
