"""A config as a region text: readable, self-contained, and the same tensors."""

from __future__ import annotations

import ast
import math
from typing import Any

import pytest
import torch
from torch import nn

from benchmark.initializers import (
    INITIALIZERS,
    InitCfg,
    InitConfigError,
    initialize,
    parse_init_cfg,
    region_from_init_cfg,
)
from benchmark.models import ARCHITECTURES, BasicBlock, InvertedResidual, build_model, init_config
from benchmark.recipes import load_region

DETECTOR: list[dict[str, Any]] = [
    {"type": "Kaiming", "layer": "Conv2d"},
    {"type": "Constant", "val": 1, "layer": ["_BatchNorm", "GroupNorm"]},
    {"type": "TruncNormal", "layer": "Linear", "std": 0.02, "bias_prob": 0.01},
]
CONFIGS: list[InitCfg] = [
    DETECTOR,
    [*DETECTOR, {"type": "Fixup", "layer": ["BasicBlock", "InvertedResidual"]}],
    {"type": "Normal", "std": 0.1, "layer": ["Conv2d", "Linear", "BatchNorm2d", "Nothing"]},
    *(
        {"type": kind, "layer": ["Conv2d", "Linear"]} | ({"val": 0.5} if kind == "Constant" else {})
        for kind in INITIALIZERS
        if kind not in ("Pretrained", "Fixup")
    ),
    {"type": "Kaiming", "layer": "_ConvNd", "groups_correct": True, "distribution": "uniform", "bias": -1},
]


def small() -> nn.Module:
    """Has every kind of layer and block that our networks have."""
    blocks = (BasicBlock(6, 6), BasicBlock(6, 8, 2), InvertedResidual(8, 8, 1, 3), InvertedResidual(8, 12, 2, 3))
    stem = (nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 10))


def set_by_region(cfg: InitCfg, model: nn.Module, arch: str) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(math.nan)
    torch.manual_seed(3)
    load_region(region_from_init_cfg(cfg))(model, init_config(model, arch, 10))
    return {name: value.detach() for name, value in model.named_parameters()}


def by_region(cfg: InitCfg, arch: str) -> dict[str, torch.Tensor]:
    return set_by_region(cfg, build_model(arch, 10), arch)


@pytest.mark.parametrize("cfg", CONFIGS)
def test_a_region_text_sets_what_initialize_sets(cfg: InitCfg) -> None:
    """Bit for bit where the config says something; torch's default elsewhere, so that nothing stays unset."""
    model = small()
    torch.manual_seed(3)
    log = initialize(model, cfg)
    made = set_by_region(cfg, small(), "small")
    for name, value in model.named_parameters():
        assert made[name].isfinite().all(), name
        if log[name].is_set:
            assert torch.equal(made[name], value), name
    assert any(line.is_set for line in log.parameters)


def test_overrides_are_exported() -> None:
    """By name alone, with a type of its own, and dotted."""
    cfg: Any = {
        "type": "Xavier",
        "layer": "Conv2d",
        "override": [{"name": "fc"}, {"name": "layer3.2.conv2", "type": "Constant", "val": 0}],
    }
    model = build_model("resnet20", 10)
    torch.manual_seed(3)
    initialize(model, cfg)
    made = by_region(cfg, "resnet20")
    for name in ("conv1.weight", "fc.weight", "fc.bias", "layer3.2.conv2.weight", "layer1.0.conv1.weight"):
        assert torch.equal(made[name], model.get_parameter(name)), name


def test_an_empty_config_gives_torchs_defaults() -> None:
    """As constructing the network does."""
    made = by_region([], "resnet20")
    torch.manual_seed(3)
    assert all(torch.equal(made[name], value) for name, value in build_model("resnet20", 10).named_parameters())


@pytest.mark.parametrize("cfg", CONFIGS)
def test_the_text_is_code_that_a_person_can_read(cfg: InitCfg) -> None:
    """Comments with each rule in words, no lint noise, lines that fit, one `initialize_weights`."""
    region = region_from_init_cfg(cfg)
    assert "type: ignore" not in region
    assert max(len(line) for line in region.splitlines()) <= 120
    assert region.endswith("\n")
    assert not region.endswith("\n\n")
    names = [node.name for node in ast.parse(region).body if isinstance(node, ast.FunctionDef)]
    assert names[-1] == "initialize_weights"
    assert len(names) == len(set(names))
    for entry in [cfg] if isinstance(cfg, dict) else cfg:
        assert f"    # {entry['type']}Init" in region  # type: ignore[index]


class Scale(nn.Module):
    """A layer of somebody's own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8))


@pytest.mark.parametrize("layer", ["LayerNorm", "_ConvNd", "_BatchNorm", "Linear", "Scale", "ConvTranspose2d"])
def test_layers_that_our_networks_lack_are_exported(layer: str) -> None:
    """A config for a transformer or a UNet became a comment, "nothing in this project's networks is called so".

    And `_BatchNorm` or `_ConvNd` meant the two-dimensional ones only, `Linear` not the one inside attention.
    """

    def make() -> nn.Module:
        norms = [nn.LayerNorm(8), nn.BatchNorm1d(8), nn.BatchNorm3d(8)]
        layers = [nn.Conv1d(8, 8, 3), nn.ConvTranspose2d(8, 8, 2), nn.MultiheadAttention(8, 2), nn.Linear(8, 8)]
        return nn.ModuleList([*norms, *layers, Scale()])

    cfg: InitCfg = {"type": "Constant", "val": 0.75, "bias": 0.25, "layer": layer}
    model = make()
    log = initialize(model, cfg)
    made = make()
    load_region(region_from_init_cfg(cfg))(made, {})
    assert any(line.is_set for line in log.parameters)
    for name, value in made.named_parameters():
        if log[name].is_set:
            assert torch.equal(value, model.get_parameter(name)), name


@pytest.mark.parametrize("layer", ["nn.Linear", '"); import os; ("', "", "*"])
def test_what_no_class_can_be_called_selects_nothing(layer: str) -> None:
    """The text of a config must not become code, nor select every module of the network."""
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    region = region_from_init_cfg({"type": "Constant", "val": 7, "layer": layer})
    load_region(region)(model, {})
    assert "os" not in [node.id for node in ast.walk(ast.parse(region)) if isinstance(node, ast.Name)]
    assert not any(bool((value == 7).any()) for value in model.parameters())


def test_many_classes_stand_on_lines_that_fit() -> None:
    """Names of torch.nn that one entry stands for are written out, and a line has 120 characters."""
    layers = ["_ConvNd", "_BatchNorm", "_InstanceNorm", "GroupNorm", "LayerNorm", "Linear", "Embedding"]
    region = region_from_init_cfg({"type": "Constant", "val": 1, "layer": layers})
    assert max(map(len, region.splitlines())) <= 120
    model = nn.ModuleList([nn.InstanceNorm3d(4, affine=True), nn.Embedding(3, 4)])
    load_region(region)(model, {})
    assert all(bool((value == 1).all()) for name, value in model.named_parameters() if name.endswith("weight"))


def test_what_cannot_be_exported_is_refused() -> None:
    """A region reads no files; a wrong config is as wrong here as in `initialize`."""
    with pytest.raises(InitConfigError, match=r"load from x\.pth: a region text can load no checkpoint"):
        region_from_init_cfg({"type": "Pretrained", "checkpoint": "x.pth"})
    with pytest.raises(InitConfigError, match="unknown initialiser 'Kaimng'; did you mean 'Kaiming'"):
        region_from_init_cfg({"type": "Kaimng"})


def test_every_architecture_runs_an_exported_config() -> None:
    """A config without overrides suits all networks."""
    for arch in ARCHITECTURES:
        assert all(value.isfinite().all() for value in by_region(DETECTOR, arch).values())


@pytest.mark.parametrize(
    "text",
    [
        '[{"type": "Kaiming", "layer": ["Conv2d"], "bias": -1, "override": null}]',
        "[{'type': 'Kaiming', 'layer': ['Conv2d'], 'bias': -1, 'override': None}]",
        "[dict(type='Kaiming', layer=['Conv2d'], bias=-1, override=None)]",
        "init_cfg = [\n    dict(type='Kaiming', layer=('Conv2d',), bias=-1, override=None),  # as in a config\n],\n",
    ],
)
def test_a_config_is_read_in_every_form(text: str) -> None:
    """JSON, a Python literal, calls of dict, and the line as it stands in a list of arguments."""
    assert parse_init_cfg(text) == [{"type": "Kaiming", "layer": ["Conv2d"], "bias": -1, "override": None}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "one expression is expected"),
        ("import os", "one expression is expected"),
        ("a = {}\nb = {}", "one expression is expected"),
        ("a = dict(init_cfg=dict(type='Normal'))\nb = dict(init_cfg=dict(type='Uniform'))", "2 different init_cfg"),
        ("[dict(type='Normal', std=9 ** 9 ** 9 ** 9)]", ": a number is out of range$"),
        ("dict(type='Kaiming', layer='Conv2d', type='Normal')", "line 1: .*: type is given twice"),
        ("[dict(type='Normal', std=math.sqrt(-1))]", "line 1"),
        ("[dict(type='Normal', std=os.urandom(1))]", "would have to be run"),
        ("[dict(type='Kaiming',\n      a=f())]", r"line 2: 'f\(\)' would have to be run"),
        ("dict([('type', 'Kaiming')])", "would have to be run"),
        ("dict(**base)", "would have to be run"),
        ("{**base, 'type': 'Kaiming'}", "would have to be run"),
        ("{['a']: 1}", "would have to be run"),
        ("[*open('x')]", "would have to be run"),
        ("[dict(type='Normal', std=float('inf'))]", "would have to be run"),
        ("init_cfg = [dict(type='Normal')]\ninit_cfg.append(dict(type='Kaiming'))", "line 2: what changes init_cfg"),
        ("init_cfg = [dict(type='Normal')]\ninit_cfg += [dict(type='Kaiming')]", "line 2: what changes init_cfg"),
        ("init_cfg = [dict(type='Normal')]\ninit_cfg[0]['std'] = 2", "line 2: what changes init_cfg"),
        ("init_cfg = [dict(type='Normal')]\nif True:\n    init_cfg = []", "line 2: what changes init_cfg"),
        ("m = dict(init_cfg=dict(type='Normal'))\nm['init_cfg'] = dict(type='Kaiming')", "2 different init_cfg"),
        ("a = dict(x=1)\n" + "a = [a, a, a]\n" * 40 + "init_cfg = a", "line 42"),
        ("init_cfg = [" + "[0] + " * 2000 + "[0]]", "a huge expression|would have to be run|neither JSON nor Python"),
        ("[1, 2", "neither JSON nor Python"),
        ("\0", "neither JSON nor Python"),
        ("(" * 5000, "neither JSON nor Python"),
        ("[" * 16_000, "neither JSON nor Python"),
        ("[" * 100_000, "not JSON, and too long for Python"),
    ],
)
def test_what_is_no_config_is_refused_with_the_line(text: str, message: str) -> None:
    """Nothing in the file is ever run."""
    with pytest.raises(InitConfigError, match=message):
        parse_init_cfg(text)


@pytest.mark.parametrize(
    ("text", "std"),
    [
        ("\ufeff[dict(type='Normal', std=0.5, layer='Conv2d')]", 0.5),
        ("[dict(type='Normal', std=math.sqrt(5), layer='Conv2d')]", 5**0.5),
        ("[dict(type='Normal', std=5 ** 0.5, layer='Conv2d')]", 5**0.5),
        ("[dict(type='Normal', std=- -1 / 100, layer='Conv2d')]", 0.01),
        ("import math\ninit_cfg = [dict(type='Normal', std=math.sqrt(5), layer='Conv2d')]", 5**0.5),
        ("from math import sqrt\ninit_cfg: list = [dict(type='Normal', std=sqrt(5), layer='Conv2d')]", 5**0.5),
        ("s = 0.25\ninit_cfg = [dict(type='Normal', std=s * 2, layer='Conv2d')]", 0.5),
        ("init_cfg = [dict(type=NormalInit, std=0.5, layer='Conv2d')]", 0.5),
        ('{"init_cfg": [{"type": "Normal", "std": 0.5, "layer": "Conv2d"}]}', 0.5),
        ("dict(init_cfg=[dict(type='Normal', std=0.5, layer='Conv2d')])", 0.5),
        ("import math as m\ninit_cfg = [dict(type='Normal', std=m.sqrt(5), layer='Conv2d')]", 5**0.5),
        ("from math import sqrt as root\ninit_cfg = [dict(type='Normal', std=root(5), layer='Conv2d')]", 5**0.5),
        ("from x import NormalInit as N\ninit_cfg = [dict(type=N, std=0.5, layer='Conv2d')]", 0.5),
        ("[dict(type=mmengine.model.NormalInit, std=0.5, layer='Conv2d')]", 0.5),
        ("from torch import nn\ninit_cfg = [dict(type='Normal', std=0.5, layer=nn.Conv2d)]", 0.5),
        ("import torch.nn as n\ninit_cfg = [dict(type='Normal', std=float(max(0.5, 0)), layer=n.Conv2d)]", 0.5),
        ("one = [dict(type='Normal', std=abs(-0.5), layer='Conv2d')]\ninit_cfg = [*one]", 0.5),
        ("import math\ncfg = [dict(type='Normal', std=math.sqrt(5), layer='Conv2d')]", 5**0.5),
        ("base = dict(type='Normal', std=0.5)\ninit_cfg = [dict(**base, layer='Conv2d')]", 0.5),
        ("base = dict(type='Normal', std=2)\ninit_cfg = [] + [{**base, 'layer': 'Conv2d'} | dict(std=0.5)]", 0.5),
        ("Net(init_cfg=[dict(type='Normal', std=0.5, layer='Conv2d')])", 0.5),
        (
            "class Net(BaseModule):\n    def __init__(self, init_cfg=None):\n"
            "        init_cfg = init_cfg or [dict(type='Xavier')]\n        super().__init__(init_cfg=init_cfg)\n"
            "class Own(Net):\n    def __init__(self, init_cfg=[dict(type='Normal', std=0.5, layer='Conv2d')]): ...\n",
            0.5,
        ),
        (
            "_base_ = ['../base.py']\nimport os\nroot = os.getcwd()\n"
            "model = dict(type='ResNet', depth=50, data=load(root),\n"
            "    backbone=dict(init_cfg=[dict(type='Normal', std=0.5, layer='Conv2d')]), head=dict(init_cfg=None))\n"
            "optimizer = dict(type='SGD', lr=0.1)\n",
            0.5,
        ),
    ],
)
def test_configs_as_people_write_them(text: str, std: float) -> None:
    """`a=math.sqrt(5)`, a class as type, an import above, a whole config file or a BOM were refused."""
    assert parse_init_cfg(text) == [{"type": "Normal", "std": pytest.approx(std), "layer": "Conv2d"}]


def test_the_last_assignment_counts() -> None:
    """A file that assigns `init_cfg` twice was initialised with the first one, without a word."""
    text = "init_cfg = [dict(type='Normal', layer='Linear')]\ninit_cfg = dict(type='Xavier', layer='Linear')"
    assert parse_init_cfg(text) == {"type": "Xavier", "layer": "Linear"}
