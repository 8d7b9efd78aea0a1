"""The built-in strategy on networks of torchvision and timm: each number acts where it should and nowhere else.

What each number should change is written down here by the names of the parameters, network by network.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from agent.spaces.base import BuiltIn
from agent.spaces.builtin import KNOBS, ROLES, Parameters, first_points
from agent.spaces.rendering import render
from benchmark.recipes import load_region
from benchmark.roles import found_roles, network_roles, roles_in_words
from sandbox.rules import check_region
from tests.agent.spaces.test_builtin import EVERYTHING
from tests.torchvision_models import torchvision_models

NOTHING = "(?!)"


class PreActivation(nn.Module):
    """A ResNet of He et al. 2016: norm and ReLU stand before each convolution, and nothing behind the last one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(8) for _ in range(4)])
        self.convs = nn.ModuleList([nn.Conv2d(8, 8, 3, padding=1) for _ in range(4)])
        self.last_norm, self.fc = nn.BatchNorm2d(8), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for first in (0, 2):
            branch = self.convs[first](self.norms[first](x).relu())
            x = x + self.convs[first + 1](self.norms[first + 1](branch).relu())
        logits: Tensor = self.fc(self.last_norm(x).relu().mean((2, 3)))
        return logits


class GroupNormNet(nn.Module):
    """Two blocks with GroupNorm, the second with a projection on its skip, and a hidden Linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU())
        self.one = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.Dropout(0.0))
        self.two = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 1), nn.GroupNorm(2, 16))
        self.project = nn.Conv2d(8, 16, 1)
        self.ends = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 10)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.one(x) + x
        logits: Tensor = self.ends((self.project(x) + self.two(x)).relu())
        return logits


class Untraceable(nn.Module):
    """The path depends on the data, so torch.fx gives up."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.fc = nn.Linear(3, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.norm(self.conv(x)) if x.mean() < 100 else x
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


@dataclass(frozen=True)
class Network:
    """A network and patterns for the names of its parameters; `gains` of branches without any are their `ends`."""

    build: Callable[[], nn.Module]
    ends: str = NOTHING
    gains: str = NOTHING
    skips: str = NOTHING
    head: str = NOTHING
    needs: str = "torchvision"


def _tv(make: Callable[[Any], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: make(torchvision_models())


def _timm(make: Callable[[Any], nn.Module]) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        torchvision_models()  # timm imports torchvision, too
        import timm

        return make(timm)

    return build


def _efficientnet(tv: Any) -> nn.Module:
    block = tv.efficientnet.MBConvConfig
    stages = [block(1, 3, 1, 16, 16, 1), block(4, 3, 2, 16, 24, 2), block(4, 5, 2, 24, 32, 2)]
    network: nn.Module = tv.efficientnet.EfficientNet(stages, dropout=0.0, num_classes=10, last_channel=64)
    return network


def _convnext(tv: Any) -> nn.Module:
    stages = [tv.convnext.CNBlockConfig(16, 32, 2), tv.convnext.CNBlockConfig(32, None, 1)]
    network: nn.Module = tv.ConvNeXt(stages, num_classes=10)
    return network


def _regnet(tv: Any) -> nn.Module:
    widths = tv.regnet.BlockParams.from_init_params(depth=4, w_0=16, w_a=16.0, w_m=2.0, group_width=8, se_ratio=0.25)
    network: nn.Module = tv.RegNet(widths, num_classes=10)
    return network


def _resnet(timm: Any, block: Any, **options: Any) -> nn.Module:
    """A ResNet-18 of narrow layers, and its ResNeXt."""
    widths = (8, 16, 24, 32)
    network: nn.Module = timm.models.ResNet(
        block, (2, 2, 2, 2), num_classes=10, stem_width=8, channels=widths, zero_init_last=False, **options
    )
    return network


NETWORKS: dict[str, Network] = {
    "resnet18": Network(
        _timm(lambda t: _resnet(t, t.models.resnet.BasicBlock)),
        ends=r"layer\d\.\d\.conv2\.weight",
        gains=r"layer\d\.\d\.bn2\.weight",
        skips=r"layer\d\.0\.downsample\.0\.weight",
        head=r"fc\.weight",
        needs="timm",
    ),
    "resnext": Network(
        _timm(lambda t: _resnet(t, t.models.resnet.Bottleneck, cardinality=4, base_width=16)),
        ends=r"layer\d\.\d\.conv3\.weight",
        gains=r"layer\d\.\d\.bn3\.weight",
        skips=r"layer\d\.0\.downsample\.0\.weight",
        head=r"fc\.weight",
        needs="timm",
    ),
    "preact resnet": Network(
        PreActivation, r"convs\.[13]\.weight", r"convs\.[13]\.weight", head=r"fc\.weight", needs=""
    ),
    "densenet": Network(_tv(lambda tv: tv.DenseNet(8, (2, 2), 16, num_classes=10)), head=r"classifier\.weight"),
    "mobilenet_v3": Network(
        _tv(lambda tv: tv.mobilenet_v3_small(num_classes=10, width_mult=0.35)),
        ends=r"features\.(3|5|6|7|8|10|11)\.block\.[23]\.0\.weight",
        gains=r"features\.(3|5|6|7|8|10|11)\.block\.[23]\.1\.weight",
        head=r"classifier\.3\.weight",
    ),
    "efficientnet": Network(
        _tv(_efficientnet),
        ends=r"features\.(1\.0\.block\.2|[23]\.1\.block\.3)\.0\.weight",
        gains=r"features\.(1\.0\.block\.2|[23]\.1\.block\.3)\.1\.weight",
        head=r"classifier\.1\.weight",
    ),
    "convnext": Network(
        _tv(_convnext),
        ends=r"features\.\d\.\d\.block\.5\.weight",
        gains=r"features\.\d\.\d\.layer_scale",
        head=r"classifier\.2\.weight",
    ),
    "vit_tiny": Network(
        _timm(lambda t: t.models.VisionTransformer(32, 8, num_classes=10, embed_dim=48, depth=2, num_heads=3)),
        ends=r"blocks\.\d\.(attn\.proj|mlp\.fc2)\.weight",
        gains=r"blocks\.\d\.(attn\.proj|mlp\.fc2)\.weight",
        head=r"head\.weight",
        needs="timm",
    ),
    "vit with LayerScale": Network(
        _timm(
            lambda t: t.models.VisionTransformer(
                32, 8, num_classes=10, embed_dim=32, depth=2, num_heads=2, init_values=0.1
            )
        ),
        ends=r"blocks\.\d\.(attn\.proj|mlp\.fc2)\.weight",
        gains=r"blocks\.\d\.ls[12]\.gamma",
        head=r"head\.weight",
        needs="timm",
    ),
    "vit of torchvision": Network(
        _tv(lambda tv: tv.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=10)),
        ends=r".*\.(self_attention\.out_proj|mlp\.3)\.weight",
        gains=r".*\.(self_attention\.out_proj|mlp\.3)\.weight",
        head=r"heads\.head\.weight",
    ),
    "mlp-mixer": Network(
        _timm(lambda t: t.models.MlpMixer(num_classes=10, img_size=32, patch_size=8, num_blocks=2, embed_dim=32)),
        ends=r"blocks\.\d\.mlp_(tokens|channels)\.fc2\.weight",
        gains=r"blocks\.\d\.mlp_(tokens|channels)\.fc2\.weight",
        head=r"head\.weight",
        needs="timm",
    ),
    "regnet": Network(
        _tv(_regnet),
        ends=r"trunk_output\..*\.f\.c\.0\.weight",
        gains=r"trunk_output\..*\.f\.c\.1\.weight",
        skips=r"trunk_output\..*\.proj\.0\.weight",
        head=r"fc\.weight",
    ),
    "squeezenet": Network(_tv(lambda tv: tv.squeezenet1_1(num_classes=10))),
    "group norm": Network(
        GroupNormNet,
        ends=r"(one\.0|two\.2)\.weight",
        gains=r"(one\.1|two\.3)\.weight",
        skips=r"project\.weight",
        head=r"ends\.4\.weight",
        needs="",
    ),
    "untraceable": Network(Untraceable, head=r"fc\.weight", needs=""),
}


@functools.lru_cache(maxsize=2)
def built(name: str) -> nn.Module:
    """The network as its constructors initialise it under a fixed seed."""
    needs = NETWORKS[name].needs
    if needs and importlib.util.find_spec(needs) is None:
        pytest.skip(f"{needs} is not installed")
    torch.manual_seed(0)
    return NETWORKS[name].build().eval()


@functools.lru_cache(maxsize=3)
def initialised(name: str, parameters: Parameters) -> dict[str, Tensor]:
    """Parameters by name after the code of a point has run on the network as built. Cached: look only."""
    model = built(name)
    kept = {key: value.clone() for key, value in model.state_dict().items()}
    torch.manual_seed(1)
    load_region(render(parameters, [name]))(model, {"arch": name, "num_classes": 10, "depth": 1})
    found = {key: value.detach().clone() for key, value in model.named_parameters()}
    model.load_state_dict(kept)
    return found


def expected(name: str, knob: str) -> set[str]:
    """The parameters that a number should change on a network, by their names and shapes."""
    network, model = NETWORKS[name], built(name)
    shapes = {key: tuple(value.shape) for key, value in model.named_parameters()}
    in_order = [key for key, shape in shapes.items() if len(shape) == 4 and key.endswith("weight")]
    convs, half = set(in_order), len(in_order) / 2  # the convolution in the middle of the depth has no slope
    flat = re.compile(r".*(weight|in_proj_weight)$")
    linears = {key for key, shape in shapes.items() if len(shape) == 2 and flat.match(key)}
    norms = {key for key, shape in shapes.items() if len(shape) == 1 and key.endswith("weight")}

    def matching(pattern: str) -> set[str]:
        return {key for key in shapes if re.fullmatch(pattern, key)}

    found = {
        "g_conv": convs,
        "depth_slope": {key for index, key in enumerate(in_order) if index != half},
        "identity_share": convs,
        "g_depthwise": {key for key in convs if shapes[key][1] == 1 and shapes[key][0] > 1},
        "shortcut_gain": matching(network.skips),
        "branch_last_alpha": matching(network.ends),
        "gamma_last": matching(network.gains),
        "gamma_rise": matching(network.gains),
        "bn_beta": {f"{key[:-6]}bias" for key in norms - matching(network.gains)},
        "g_hidden": linears - matching(network.head),
        "head_scale": matching(network.head),
    }[knob]
    multiplied = knob not in ("gamma_last", "gamma_rise", "bn_beta")
    return {key for key in found if not multiplied or model.get_parameter(key).any()}  # zero times a number is zero


@pytest.mark.parametrize("name", NETWORKS)
def test_each_number_acts_where_it_should_and_nowhere_else(name: str) -> None:
    """Moving one number changes the parameters of its role, and leaves every other as the constructors drew it."""
    for knob in KNOBS:
        base = Parameters(structure="dirac_mix") if knob.name == "identity_share" else Parameters()
        moved = dataclasses.replace(base, **{knob.name: getattr(EVERYTHING, knob.name)})
        before, after = initialised(name, base), initialised(name, moved)
        changed = {key for key, value in before.items() if not torch.equal(value, after[key])}
        assert changed == expected(name, knob.name), knob.name
        # A number is searched where it changes something.
        assert bool(changed) == (knob.role in found_roles(built(name)).roles), knob.name
    as_built = dict(built(name).named_parameters())
    assert all(torch.equal(value, as_built[key]) for key, value in initialised(name, Parameters()).items())


def _reached(model: nn.Module) -> set[str]:
    """The parameters that have a gradient in any of four steps of SGD. What is closed opens in the first of them."""
    reached: set[str] = set()
    torch.manual_seed(2)
    images, labels = torch.randn(6, 3, 32, 32), torch.arange(6)
    for _ in range(4):
        model.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
        for key, parameter in model.named_parameters():
            if parameter.grad is not None and bool(parameter.grad.ne(0).any()):
                assert torch.isfinite(parameter.grad).all(), key
                reached.add(key)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.sub_(0.05 * parameter.grad / parameter.grad.norm().clamp_min(1.0))
    return reached


POINTS = (
    EVERYTHING,
    Parameters(gamma_last=0.0, head_scale=0.0, branch_last_alpha=1.0, structure="orthogonal"),
    Parameters(gamma_last=0.0, head_scale=0.0, filter_norm=True, bn_beta=-0.2, g_conv=0.35),
)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_point_keeps_the_network_alive(name: str) -> None:
    """Gradients reach each parameter that they reach in the network as built, also with closed branches and heads."""
    model = built(name).train()
    try:
        kept = {key: value.clone() for key, value in model.state_dict().items()}
        alive = _reached(model)
        assert len(alive) > 0.9 * len(dict(model.named_parameters()))
        for point in POINTS:
            model.load_state_dict(kept)
            torch.manual_seed(1)
            load_region(render(point, [name]))(model, {"arch": name, "num_classes": 10, "depth": 1})
            assert all(module.training for module in model.modules())
            assert alive <= _reached(model)
    finally:
        model.load_state_dict(kept)
        model.eval()


def test_torchvisions_own_resnet_has_its_eight_branches() -> None:
    """Last norms, and projections on three skips."""
    model = _tv(lambda tv: tv.resnet18(num_classes=10))()
    assert roles_in_words(model) == "8 residual branches, 3 layers on skips, head fc"


def test_what_was_found_is_said() -> None:
    """The number of branches, and a network that torch.fx cannot trace."""
    assert roles_in_words(GroupNormNet()) == "2 residual branches, 1 layer on skips, head ends.4"
    assert roles_in_words(Untraceable()) == (
        "torch.fx cannot trace the network, so it counts as one without branches; head fc"
    )
    assert not network_roles(Untraceable())["traced"]


class Tied(nn.Module):
    """A language model whose head is its embedding, with a convolution under weight norm and a transposed one."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(12, 8), nn.Linear(8, 12, bias=False)
        self.head.weight = self.embed.weight
        self.up, self.down = nn.ConvTranspose1d(8, 8, 3, padding=1), nn.Conv1d(8, 8, 3, padding=1)
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))
        self.norm = nn.RMSNorm(8)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        x = x + self.down(self.up(self.norm(x).transpose(1, 2)).relu()).transpose(1, 2)
        logits: Tensor = self.head(self.normed(x))
        return logits


def test_embeddings_and_what_is_tied_to_them_stay_as_built() -> None:
    """A head that is an embedding is not scaled; weight norm keeps its own parameters; 1-d convolutions are ones."""
    torch.manual_seed(0)
    model = Tied()
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    load_region(render(EVERYTHING, ["tied"]))(model, {})
    changed = {key for key, value in model.named_parameters() if not torch.equal(value, before[key])}
    assert changed == {"up.weight", "down.weight"}
    load_region(render(Parameters(gamma_last=0.0), ["tied"]))(model, {})
    assert not model.down.weight.any()


def test_code_for_other_networks_is_accepted_and_says_its_base() -> None:
    """Each first point and the fullest one pass the rules of a region, in lines of the project's length."""
    for point in (*first_points(["cnn"]), EVERYTHING, Parameters()):
        text = render(point, ["cnn"])
        assert check_region(text) is None
        assert max(map(len, text.splitlines())) <= 120
        assert "type: ignore" not in text
        assert "constructors drew" in text


@pytest.mark.parametrize("arch", ROLES)
def test_code_for_our_own_networks_is_what_it_was(arch: str) -> None:
    """Recorded searches resume by comparing the text."""
    for point in (*first_points([arch]), EVERYTHING):
        assert render(point, [arch]) == render(point)


def test_a_search_on_a_foreign_network_proposes_that_code() -> None:
    """The space of a search with one unknown network writes for it, and calls its base by its name."""
    import optuna

    space = BuiltIn(["resnet20", "cnn"])
    known = BuiltIn(["cnn"], {"cnn": frozenset(found_roles(GroupNormNet()).roles)})
    assert "g_depthwise" in space.distributions()
    assert "g_depthwise" not in known.distributions()
    assert known.first()[0]["branch_last_alpha"] == 0.5
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial(dict(space.first()[0]))
    region, described = space.point(study.ask(dict(space.distributions())))
    assert described["strategy"] == "as built, branch ends × L^-0.5, last γ 0, head × 0.1"
    assert "def network_roles(model: nn.Module)" in region
