"""Bit for bit the tensors of MMEngine 0.10.7: for the same seed and config, over everything a config can say.

Needs the optional extra: pip install 'initsearch[parity]'.
"""

from __future__ import annotations

import copy
import itertools
import math
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmark.initializers import INITIALIZERS, CheckpointError, InitConfigError, initialize
from benchmark.initializers import modules as ours
from benchmark.initializers.registry import LayerRule
from benchmark.models import build_model

pytest.importorskip("mmengine", reason="mmengine is not installed; the extra `parity` brings it")
mmengine_model: Any = pytest.importorskip("mmengine.model")
registry: Any = pytest.importorskip("mmengine.registry")

Cfg = dict[str, Any]
NONLINEARITIES = typing.get_args(typing.get_type_hints(nn.init.calculate_gain)["nonlinearity"])


class ChildOfConv(nn.Conv2d):
    """Matched by `layer="Conv2d"`, for that is its direct base class."""


class GrandchildOfConv(ChildOfConv):
    """Not matched by `layer="Conv2d"`: MMEngine looks one class up only."""


class Mixed(nn.Module):
    """Every kind of module a rule can meet: biases and none, groups, norms, nesting, subclasses, no weights at all."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8, bias=False)
        self.child = ChildOfConv(8, 4, (1, 3))
        self.grandchild = GrandchildOfConv(4, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.stack = nn.Sequential(
            nn.Linear(4, 6), nn.ReLU(), nn.Sequential(nn.Linear(6, 5, bias=False), nn.Linear(5, 2))
        )
        self.up = nn.ConvTranspose2d(4, 2, 2)
        self.flat = nn.Conv1d(4, 2, 3)
        self.no_affine = nn.BatchNorm2d(4, affine=False)


def assert_equal(cfg: Cfg | list[Cfg], build: Callable[[], nn.Module] = Mixed) -> None:
    """MMEngine's `initialize` and ours leave the same bits and the same random state behind."""
    torch.manual_seed(0)
    theirs = build()
    mine = copy.deepcopy(theirs)
    torch.manual_seed(1)
    mmengine_model.initialize(theirs, copy.deepcopy(cfg))
    their_state = torch.get_rng_state()
    torch.manual_seed(1)
    initialize(mine, cfg)
    assert torch.equal(torch.get_rng_state(), their_state), cfg
    for (name, expected), got in zip(theirs.named_parameters(), mine.parameters(), strict=True):
        assert torch.equal(got.view(torch.int32), expected.view(torch.int32)), f"{name}: {cfg}"


def biases() -> Iterator[Cfg]:
    yield from ({}, {"bias": 0.25}, {"bias": -3}, {"bias_prob": 0.01}, {"bias": 1, "bias_prob": 0.7})


def formulas() -> Iterator[Cfg]:
    """Every initialiser with every value of its arguments that takes another path, and a few that do not."""
    for val in (0, 1, -2.5):
        yield {"type": "Constant", "val": val}
    for gain, distribution in itertools.product((1, 0.02, math.sqrt(2)), ("normal", "uniform")):
        yield {"type": "Xavier", "gain": gain, "distribution": distribution}
    for mean, std in ((0, 1), (0.5, 0.01), (0, 0)):
        yield {"type": "Normal", "mean": mean, "std": std}
    for mean, std, a, b in (
        (0, 1, -2, 2),
        (0, 0.02, -2, 2),
        (0, 0.01, -0.02, 0.02),
        (0.3, 0.7, -0.1, 1.9),
        (0, 1, 1, 3),
    ):
        yield {"type": "TruncNormal", "mean": mean, "std": std, "a": a, "b": b}
    for a, b in ((0, 1), (-0.1, 0.1), (0, 0)):
        yield {"type": "Uniform", "a": a, "b": b}
    yield {"type": "Caffe2Xavier"}
    for a, mode, nonlinearity, distribution in itertools.product(
        (0, 0.3), ("fan_in", "fan_out"), NONLINEARITIES, ("normal", "uniform")
    ):
        yield {"type": "Kaiming", "a": a, "mode": mode, "nonlinearity": nonlinearity, "distribution": distribution}
    yield from ({"type": kind} for kind in ("Xavier", "Normal", "TruncNormal", "Uniform", "Kaiming"))


def one_of_each() -> list[Cfg]:
    return [
        {"type": "Constant", "val": 0.5, "bias": 2},
        {"type": "Xavier", "distribution": "uniform", "bias": 1},
        {"type": "Normal", "std": 0.1},
        {"type": "TruncNormal", "std": 0.1, "bias_prob": 0.1},
        {"type": "Uniform", "a": -1},
        {"type": "Kaiming", "nonlinearity": "leaky_relu", "a": 0.1},
        {"type": "Caffe2Xavier", "bias": 0.3},
    ]


def test_there_is_something_to_compare() -> None:
    """Guards the tests below against an empty list of nonlinearities or a rule that nobody compares."""
    assert len(NONLINEARITIES) >= 12
    compared = {cfg["type"] for cfg in formulas()} | {"Pretrained"}
    assert compared == set(registry.WEIGHT_INITIALIZERS.module_dict)
    assert compared <= set(INITIALIZERS)


@pytest.mark.parametrize("kind", ["Constant", "Xavier", "Normal", "TruncNormal", "Uniform", "Caffe2Xavier", "Kaiming"])
def test_every_formula_and_every_form_of_bias(kind: str) -> None:
    """All arguments of an initialiser, with each way to give a bias."""
    cases = [{**cfg, **bias} for cfg in formulas() if cfg["type"] == kind for bias in biases()]
    for case in cases:
        assert_equal({**case, "layer": ["Conv2d", "Linear"]})


@pytest.mark.parametrize(
    "layer",
    [
        "Conv2d",
        "_ConvNd",
        "Module",
        "ChildOfConv",
        "Nothing",
        ["Conv2d"],
        ["Linear", "Conv2d"],
        ["Linear", "Nope"],
        [],
        None,
    ],
)
def test_every_form_of_layer(layer: str | list[str] | None) -> None:
    """Class names, direct base classes, lists, names that match nothing, and none at all."""
    for cfg in one_of_each():
        for_all = cfg["type"] in ("Constant", "Normal", "TruncNormal", "Uniform")
        if layer == "Module" and not for_all:
            continue  # nothing directly below Module but Linear and containers; covered by the others
        assert_equal({**cfg, "layer": layer} if layer is not None else cfg)


@pytest.mark.parametrize(
    "override",
    [
        {"name": "conv"},
        {"name": "stack"},
        {"name": "conv", "type": "Constant", "val": 3, "bias": 4},
        {"name": "stack", "type": "Xavier", "distribution": "uniform"},
        {"name": "stack", "type": "Normal", "std": 0.1, "layer": "Conv2d"},
        [{"name": "conv"}, {"name": "up", "type": "TruncNormal", "std": 0.5, "bias_prob": 0.2}],
        [{"name": "stack", "type": "Kaiming", "mode": "fan_in"}, {"name": "stack"}],
        [],
    ],
)
@pytest.mark.parametrize("layer", [None, "Conv2d", ["Conv2d", "Linear"]])
def test_every_form_of_override(override: Cfg | list[Cfg], layer: str | list[str] | None) -> None:
    """By name alone, with a type of its own, in a list, beside a layer and without one."""
    for cfg in one_of_each():
        assert_equal({**cfg, "override": override} | ({} if layer is None else {"layer": layer}))


def test_lists_of_entries_in_order() -> None:
    """Later entries win, overrides belong to their entry, and random numbers are drawn in MMEngine's order."""
    override = {"name": "stack", "type": "Uniform", "a": -0.1, "b": 0.1}
    assert_equal([{**cfg, "layer": "Conv2d"} for cfg in one_of_each()])
    assert_equal([{"type": "Kaiming", "layer": "Conv2d", "override": override}, {"type": "Xavier", "layer": "Linear"}])
    assert_equal(
        [{"type": "Xavier", "layer": "Linear"}, {"type": "Constant", "val": 1, "layer": ["_BatchNorm", "Linear"]}]
    )
    assert_equal([])


def test_whole_networks() -> None:
    """The project's own networks under a typical detector's config."""
    cfg: list[Cfg] = [
        {"type": "Kaiming", "layer": "Conv2d"},
        {"type": "Constant", "val": 1, "layer": ["_BatchNorm", "GroupNorm"]},
        {"type": "TruncNormal", "layer": "Linear", "std": 0.02},
    ]
    for arch in ("resnet20", "mobilenetv2"):
        assert_equal(cfg, lambda arch=arch: build_model(arch, 10))  # type: ignore[misc]


def test_tied_and_shared_modules_are_visited_as_often() -> None:
    """A module that hangs in two places draws its numbers twice, as it does there."""

    def build() -> nn.Module:
        shared = nn.Linear(4, 4)
        tied = nn.Linear(4, 4)
        tied.weight = shared.weight
        return nn.Sequential(shared, nn.Sequential(shared, nn.Linear(4, 4)), tied)

    assert_equal({"type": "Xavier", "layer": "Linear"}, build)


def test_frozen_and_reduced_precision_parameters() -> None:
    """requires_grad=False is initialised all the same; bf16 and half get the same bits."""
    for dtype in (torch.bfloat16, torch.float16):
        for cfg in one_of_each():
            torch.manual_seed(0)
            theirs = Mixed().to(dtype).requires_grad_(False)
            mine = copy.deepcopy(theirs)
            torch.manual_seed(1)
            mmengine_model.initialize(theirs, {**cfg, "layer": ["Conv2d", "Linear"]})
            torch.manual_seed(1)
            initialize(mine, {**cfg, "layer": ["Conv2d", "Linear"]})
            for expected, got in zip(theirs.parameters(), mine.parameters(), strict=True):
                assert torch.equal(got.view(torch.int16), expected.view(torch.int16)), (dtype, cfg)


@pytest.mark.parametrize("cfg", [{**cfg, **bias} for cfg in one_of_each() for bias in biases()])
def test_the_log_names_a_rule_in_mmengines_words(cfg: Cfg) -> None:
    """`KaimingInit: a=0, mode=fan_out, …`, number for number and space for space."""
    arguments = {key: value for key, value in cfg.items() if key != "type"}
    rule = INITIALIZERS[cfg["type"]](**arguments)
    assert isinstance(rule, LayerRule)
    assert rule.describe() == registry.WEIGHT_INITIALIZERS.build(cfg)._get_init_info()


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("constant_init", {"val": 2, "bias": 1}),
        ("xavier_init", {}),
        ("xavier_init", {"gain": 2, "bias": 1, "distribution": "uniform"}),
        ("normal_init", {}),
        ("normal_init", {"mean": 1, "std": 0.1, "bias": 1}),
        ("trunc_normal_init", {}),
        ("trunc_normal_init", {"mean": 0.1, "std": 0.3, "a": -0.2, "b": 0.5, "bias": 1}),
        ("uniform_init", {}),
        ("uniform_init", {"a": -1, "b": 0.5, "bias": 1}),
        ("kaiming_init", {}),
        ("kaiming_init", {"a": 0.3, "mode": "fan_in", "nonlinearity": "leaky_relu", "distribution": "uniform"}),
        ("caffe2_xavier_init", {}),
        ("caffe2_xavier_init", {"bias": 3}),
    ],
)
def test_the_functions_on_a_module(function: str, arguments: Cfg) -> None:
    """`kaiming_init(conv)` and the others, defaults included; a module without weights is left alone."""
    for build in (lambda: nn.Conv2d(3, 5, 3), lambda: nn.Linear(4, 3, bias=False), nn.ReLU):
        torch.manual_seed(0)
        theirs = build()
        mine = copy.deepcopy(theirs)
        torch.manual_seed(1)
        getattr(mmengine_model, function)(theirs, **arguments)
        torch.manual_seed(1)
        getattr(ours, function)(mine, **arguments)
        for expected, got in zip(theirs.parameters(), mine.parameters(), strict=True):
            assert torch.equal(got, expected)
    for prior in (0.01, 0.1, 0.5, 0.99):
        assert ours.bias_init_with_prob(prior) == mmengine_model.bias_init_with_prob(prior)


class Custom(nn.Module):
    """Initialises itself."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(2, 2, 1)
        self.scale = nn.Parameter(torch.empty(3))

    def init_weights(self) -> None:
        nn.init.normal_(self.inner.weight, std=7.0)
        with torch.no_grad():
            self.scale = self.scale.fill_(1)  # type: ignore[assignment]  # as MMEngine's manual writes it


class Plain(nn.Module):
    """A network with children that have an init_weights of their own: one directly, one inside a plain container."""

    def __init__(self) -> None:
        super().__init__()
        self.custom = Custom()
        self.conv = nn.Conv2d(2, 2, 1)
        self.box = nn.Sequential(Custom())


@pytest.mark.parametrize("pretrained", [False, True])
def test_init_weights_of_children_as_in_basemodule(tmp_path: Path, pretrained: bool) -> None:
    """A child's own init_weights runs after the config; one inside a plain container does not; a checkpoint wins."""

    class Base(mmengine_model.BaseModule):  # type: ignore[misc]
        def __init__(self, init_cfg: Any) -> None:
            super().__init__(init_cfg)
            self.custom = Custom()
            self.conv = nn.Conv2d(2, 2, 1)
            self.box = nn.Sequential(Custom())

    torch.manual_seed(5)
    cfg: list[Cfg] = [{"type": "Kaiming", "layer": "Conv2d", "override": {"name": "conv", "type": "Xavier"}}]
    if pretrained:
        torch.save(Plain().state_dict(), tmp_path / "it.pth")
        cfg.insert(0, {"type": "Pretrained", "checkpoint": str(tmp_path / "it.pth")})
    torch.manual_seed(0)
    theirs, mine = Base(cfg), Plain()
    mine.load_state_dict(theirs.state_dict())
    torch.manual_seed(1)
    theirs.init_weights()
    torch.manual_seed(1)
    log = initialize(mine, cfg)
    for (name, expected), got in zip(theirs.named_parameters(), mine.parameters(), strict=True):
        assert torch.equal(got, expected), name
    assert any("init_weights of box.0 is not called" in warning for warning in log.warnings)


def test_pretrained_with_a_prefix(tmp_path: Path) -> None:
    """The part of a checkpoint below `backbone.` goes into the backbone, here and there."""
    backbone = Mixed()
    torch.save(
        {"state_dict": {f"backbone.{key}": value for key, value in backbone.state_dict().items()}}, tmp_path / "b.pth"
    )
    for prefix in ("backbone", "backbone."):
        assert_equal({"type": "Pretrained", "checkpoint": str(tmp_path / "b.pth"), "prefix": prefix})


@pytest.mark.parametrize(
    "cfg",
    [
        "Kaiming",
        {"layer": "Conv2d"},
        {"type": "Kaimng", "layer": "Conv2d"},
        {"type": 3, "layer": "Conv2d"},
        {"type": "Kaiming", "layr": "Conv2d"},
        {"type": "Constant", "layer": "Conv2d"},
        {"type": "Kaiming", "layer": 3},
        {"type": "Kaiming", "layer": "Conv2d", "bias": "0"},
        {"type": "Kaiming", "layer": "Conv2d", "bias_prob": "0.1"},
        {"type": "Kaiming", "layer": "Conv2d", "override": "conv"},
        {"type": "Kaiming", "layer": "Conv2d", "override": {"type": "Xavier"}},
        {"type": "Kaiming", "layer": "Conv2d", "override": {"name": "conv", "bias": 1}},
        {"type": "Kaiming", "layer": "Conv2d", "override": {"name": "nothing"}},
        {"type": "Kaiming", "layer": "BatchNorm2d"},
        {"type": "Kaiming", "layer": "Conv2d", "nonlinearity": "swoosh"},
        {"type": "Normal", "layer": "Conv2d", "std": -1},
        {"type": "Uniform", "layer": "Conv2d", "a": 2},
    ],
)
def test_what_mmengine_refuses_is_refused_in_a_way_its_users_catch(cfg: Any) -> None:
    """Our error is also one of the type that MMEngine raises there, but for its asserts."""
    with pytest.raises((KeyError, TypeError, ValueError, RuntimeError)) as theirs:
        mmengine_model.initialize(Mixed(), cfg)
    with pytest.raises(InitConfigError) as mine:
        initialize(Mixed(), cfg)
    if theirs.type is not RuntimeError or "attribute" in str(
        theirs.value
    ):  # torch's own RuntimeErrors are not MMEngine's
        assert isinstance(mine.value, theirs.type)


def test_a_missing_checkpoint_is_an_error_in_both(tmp_path: Path) -> None:
    """Ours says where it looked."""
    cfg = {"type": "Pretrained", "checkpoint": str(tmp_path / "no.pth")}
    with pytest.raises(FileNotFoundError):
        mmengine_model.initialize(Mixed(), cfg)
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        initialize(Mixed(), cfg)
