"""Recipes as functions on networks of other libraries: they work, and a warning says what they left out."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import nn

from agent.runs.stand_alone import stand_alone
from benchmark.models import build_model, init_config
from benchmark.recipes import get_recipe, load_for_any_network, load_region, recipe_names
from tests import foreign_networks
from tests.foreign_networks import Bottleneck, InvertedResidual, PreActivation, with_ends


def notes(recipe: str, model: nn.Module) -> list[str]:
    """Initialise the model by a recipe and return the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_for_any_network(get_recipe(recipe).region)(model, {"depth": 20})
    return [str(warning.message).partition(": ")[2] for warning in caught]


def names(model: nn.Module) -> list[str]:
    return [*dict(model.named_modules()), *dict(model.named_parameters()), *model.state_dict()]


def test_fixup_closes_the_blocks_of_other_libraries() -> None:
    """`fixup` did nothing to torchvision's resnet18, without a word: its blocks were not recognised."""
    model: Any = foreign_networks.resnet18()
    before = names(model)
    assert notes("fixup", model) == []
    blocks = [module for module in model if isinstance(module, foreign_networks.BasicBlock)]
    assert len(blocks) == 8
    assert all(not block.bn2.weight.any() and bool((block.bn1.weight == 1).all()) for block in blocks)
    for block in blocks:
        drawn = (2 / (9 * block.conv2.out_channels)) ** 0.5
        assert block.conv2.weight.std().item() == pytest.approx(drawn * 8**-0.5, rel=0.1)
        x = torch.rand(2, block.conv1.in_channels, 8, 8)
        skip = x if block.downsample is None else block.downsample(x)
        assert torch.equal(block(x), skip.relu())
    assert names(model) == before
    assert not any("shortcut" in module.__dict__ for module in model.modules())


def test_bottlenecks_and_inverted_residuals_are_closed_where_they_have_a_skip() -> None:
    """The end of a branch is found in the block's graph, so conv2 and bn2 of a Bottleneck are not taken for it."""
    model: Any = with_ends(Bottleneck(8), InvertedResidual(8, 8), InvertedResidual(8, 16), channels=16)
    assert notes("zero_last_gamma", model) == []
    bottleneck, closed, open_ = model[1], model[2], model[3]
    assert not bottleneck.bn3.weight.any()
    assert bool((bottleneck.bn2.weight == 1).all())
    assert not closed.conv[-1].weight.any()
    assert bool((open_.conv[-1].weight == 1).all())


def test_a_block_that_is_none_of_ours_is_left_out_and_named() -> None:
    """A norm before its convolution must not be zeroed, whatever it is called."""
    model: Any = with_ends(PreActivation(8))
    (note,) = notes("zero_last_gamma", model)
    assert note.startswith("PreActivation: not one residual branch that ends in a convolution and a norm")
    assert bool((model[1].bn2.weight == 1).all())
    assert notes("zero_last_gamma", foreign_networks.without_affine())[-1].startswith("there is no residual block")


def test_projections_of_other_libraries_count_as_shortcuts() -> None:
    """`rbb` scales the convolutions on skips, which torchvision calls downsample."""
    plain: Any = foreign_networks.resnet18()
    model: Any = foreign_networks.resnet18()
    for recipe, network in (("kaiming_normal", plain), ("rbb", model)):
        torch.manual_seed(0)
        notes(recipe, network)
    ours, theirs = model[3].downsample, plain[3].downsample
    torch.testing.assert_close(ours[0].weight, theirs[0].weight * 8**-0.5)


def test_values_for_parameters_that_are_not_there_are_named() -> None:
    """A norm without parameters and a Linear layer without bias crashed 19 recipes; now they lose what differs."""
    model: Any = with_ends(foreign_networks.BasicBlock(8, 8, affine=False))
    assert notes("kaiming_normal", model) == []
    assert model[1].bn2.weight is None
    assert notes("fixup", model) == ["the network has no 1.bn2.weight: the values for them are left out"]
    assert notes("kaiming_normal", foreign_networks.without_bias()) == []
    assert notes("torchvision_mobilenet", foreign_networks.without_bias()) == []
    assert "5.bias, 7.bias" in notes("pytorch_default", foreign_networks.without_bias())[0]


def test_what_a_strategy_does_not_set_is_named() -> None:
    """Other layers than it knows, weights behind a parametrisation, and a head that is not there."""
    model: Any = with_ends(nn.GroupNorm(2, 8), nn.ConvTranspose2d(8, 8, 3))
    (note,) = notes("kaiming_normal", model)
    assert note == "the strategy does not set 1.weight, 1.bias, 2.weight, 2.bias: left as before"
    nn.utils.parametrizations.weight_norm(model[0][0])
    assert "0.0.parametrizations.weight.original0" in notes("kaiming_normal", model)[0]
    assert notes("head_small", foreign_networks.without_linear()) == [
        "there is no Linear layer: what the strategy does to the last one does nothing"
    ]


@pytest.mark.parametrize(("recipe", "arch"), [("fixup", "mobilenetv2"), ("rbb", "resnet20"), ("idinit", "resnet20")])
def test_our_own_networks_get_the_same_numbers(recipe: str, arch: str) -> None:
    """On this project's networks both ways of loading a recipe are one: blocks found by graph are those by class."""
    one, two = build_model(arch, 10), build_model(arch, 10)
    for load, model in ((load_region, one), (load_for_any_network, two)):
        torch.manual_seed(0)
        load(get_recipe(recipe).region)(model, init_config(model, arch, 10))
    for (name, left), right in zip(one.named_parameters(), two.parameters(), strict=True):
        assert torch.equal(left, right), name


def as_module(region: str) -> Any:
    """The function of the region's stand-alone module."""
    scope: dict[str, Any] = {}
    exec(stand_alone(region, "a-run", 1), scope)
    return scope["initialize_weights"]


@pytest.mark.parametrize(
    ("load", "kind"),
    [(load_for_any_network, torch.bfloat16), (load_for_any_network, torch.float16), (as_module, torch.bfloat16)],
)
def test_half_precision_is_float32_rounded_once(load: Any, kind: torch.dtype) -> None:
    """orthogonal, orthogonal_standardised, delta_orthogonal and lsuv_noise failed: torch has no QR in half precision.

    lsuv_noise was silent, too, where its pictures are float32 and the network is not.
    """
    made: Any = with_ends(foreign_networks.BasicBlock(8, 8), foreign_networks.BasicBlock(8, 16, 2), channels=16)
    for recipe in recipe_names():
        whole, half = copy.deepcopy(made).to(kind).float(), copy.deepcopy(made).to(kind)
        for model in (whole, half):
            torch.manual_seed(0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                load(get_recipe(recipe).region)(model, {})
        for (name, one), other in zip(whole.state_dict().items(), half.state_dict().values(), strict=True):
            assert other.dtype == (one.dtype if not one.is_floating_point() else kind)
            assert torch.equal(one.to(other.dtype), other), (recipe, name)


def test_what_config_lacks_is_read_from_the_network() -> None:
    """`ravs`, `davs` and `dars` ended with KeyError: 'depth' where somebody gave them an empty config."""
    for recipe in ("ravs", "davs", "dars"):
        found = []
        config: Any
        for config in ({}, None, {"arch": "x", "num_classes": 10, "depth": 21}):
            model: Any = foreign_networks.resnet18()
            torch.manual_seed(0)
            load_for_any_network(get_recipe(recipe).region)(model, config)
            found.append(torch.cat([parameter.flatten() for parameter in model.parameters()]))
        assert torch.equal(found[0], found[1])
        assert torch.equal(found[0], found[2])
        load: Any
        for load in (load_for_any_network, as_module):
            with pytest.warns(UserWarning, match="does not set"):
                load("def initialize_weights(model, config):\n    assert config == 7\n")(model, 7)


def test_memory_that_is_shared_in_half_precision_stays_shared() -> None:
    """Two parameters on the same memory, as some libraries tie them, are still two names for it afterwards."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).to(torch.bfloat16)
    one, two = model[0].weight, model[1].weight
    assert isinstance(one, nn.Parameter)
    assert isinstance(two, nn.Parameter)
    two.data = one.data
    load_for_any_network(get_recipe("orthogonal").region)(model, {})
    assert one.data_ptr() == two.data_ptr()
    assert one.dtype == two.dtype == torch.bfloat16


def test_a_crash_in_half_precision_leaves_every_value() -> None:
    """The network keeps its kind and its numbers when the strategy fails in the middle."""
    model = foreign_networks.resnet18().to(torch.bfloat16)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    broken = "def initialize_weights(model, config):\n    nn.init.zeros_(model[0][0].weight)\n    raise RuntimeError\n"
    with pytest.raises(RuntimeError):
        load_for_any_network(broken)(model, {})
    after = model.state_dict()
    assert all(after[name].dtype == value.dtype and torch.equal(after[name], value) for name, value in before.items())


def test_a_crash_leaves_the_network_as_it_was() -> None:
    """What was lent for the call is taken away when the strategy fails, too."""
    model: Any = with_ends(foreign_networks.BasicBlock(8, 8, affine=False))
    before = names(model)
    broken = "def initialize_weights(model, config):\n    isinstance(model, BasicBlock)\n    config['nothing']\n"
    with pytest.raises(KeyError):
        load_for_any_network(broken)(model, {})
    assert names(model) == before
    assert model[1].bn1.weight is None
    assert "shortcut" not in model[1].__dict__
