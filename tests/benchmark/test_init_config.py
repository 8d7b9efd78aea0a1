"""`initialize` from a config: what it sets, what it logs, and what it says about configs and modules that are wrong."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmark.initializers import (
    INITIALIZERS,
    InitArgumentError,
    InitConfigError,
    UninitializableModuleError,
    UnknownInitializerError,
    UnknownSubmoduleError,
    initialize,
    kaiming_init,
    log_function,
    register,
)
from benchmark.initializers.pretrained import load_pretrained
from benchmark.initializers.registry import LayerRule
from benchmark.initializers.rules import KaimingInit
from benchmark.models import build_model, init_config
from benchmark.recipes import get_recipe, load_region


class Toy(nn.Module):
    """Two convolutions, a norm and a Linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3)
        self.conv2 = nn.Conv2d(8, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 2)


def test_the_log_says_which_rule_set_which_parameter() -> None:
    """The manual's example: Kaiming for convolutions, Xavier for one of them, nothing for the rest."""
    model = Toy()
    cfg = {"type": "Kaiming", "layer": ["Conv2d"], "override": {"name": "conv2", "type": "Xavier"}}
    log = initialize(model, cfg)
    kaiming = "KaimingInit: a=0, mode=fan_out, nonlinearity=relu, distribution =normal, bias=0"
    xavier = "XavierInit: gain=1, distribution=normal, bias=0"
    assert [log[name].rule for name in ("conv1.weight", "conv1.bias")] == [kaiming] * 2
    # MMEngine's log credits Kaiming with conv2.bias, which went from zero to zero under Xavier.
    assert [log[name].rule for name in ("conv2.weight", "conv2.bias")] == [xavier] * 2
    assert log.unset == ("norm.weight", "norm.bias", "head.weight", "head.bias")
    assert log["head.bias"].rule == "The value is the same before and after calling `init_weights` of Toy"
    assert f"conv1.weight - torch.Size([8, 3, 3, 3]): \n{kaiming}" in str(log)
    weight = model.conv1.weight.detach().double()
    line = log["conv1.weight"]
    assert (line.mean, line.std, line.norm) == pytest.approx(
        (weight.mean().item(), weight.std(correction=0).item(), weight.norm().item())
    )
    assert (line.shape, line.dtype) == ((8, 3, 3, 3), "float32")
    assert not log.warnings
    assert [line.name for line in log] == [name for name, _ in model.named_parameters()]
    assert len(log) == 8
    json.dumps(log.as_json())


def test_a_checksum_tells_equal_numbers_from_equal_bits() -> None:
    """Zero and minus zero differ, as do the same bits in another shape."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(4, 1))
    initialize(model, {"type": "Constant", "val": 0.0, "layer": "Linear"})
    plain = initialize(model, [])
    with torch.no_grad():
        model.get_parameter("0.weight").neg_()
    negated = initialize(model, [])
    assert plain["0.weight"].checksum != negated["0.weight"].checksum
    assert plain["1.weight"].checksum != plain["0.weight"].checksum
    assert plain["1.bias"].checksum == negated["1.bias"].checksum


class Own(nn.Module):
    """A module that initialises itself, and counts."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)
        self.scale = nn.Parameter(torch.full((2,), 5.0))
        self.calls = 0

    def init_weights(self) -> None:
        self.calls += 1
        nn.init.constant_(self.conv.weight, 9)


def test_a_childs_own_init_weights_runs_last_and_is_named() -> None:
    """What a child does itself wins over the config, and only what it changed is put down to it."""
    model = nn.Sequential(Own(), nn.Sequential(Own()))
    log = initialize(model, {"type": "Kaiming", "layer": "Conv2d"})
    assert model.get_parameter("0.conv.weight").item() == 9
    assert log["0.conv.weight"].rule == "Initialized by user-defined `init_weights` in Own"
    assert log["0.conv.bias"].rule.startswith("KaimingInit")
    assert not log["0.scale"].is_set
    assert log["1.0.conv.weight"].rule.startswith("KaimingInit")
    assert log.warnings == (
        "the init_weights of 1.0 is not called: only the module's own children are asked, as in MMEngine",
    )


class Zeros(nn.Module):
    """The manual's ToyConv, whose fresh memory may hold what it is filled with."""

    def __init__(self) -> None:
        super().__init__()
        self.custom_weight = nn.Parameter(torch.ones(1, 1, 1, 1))
        self.custom_bias = nn.Parameter(torch.zeros(1))
        self.other = nn.Parameter(torch.zeros(1))

    def init_weights(self) -> None:
        with torch.no_grad():
            self.custom_weight = self.custom_weight.fill_(1)  # type: ignore[assignment]
            self.custom_bias = self.custom_bias.fill_(0)  # type: ignore[assignment]


def test_a_child_may_write_what_was_there() -> None:
    """Zeros over zeros were put down as not set; what it does not write to stays unset."""
    log = initialize(nn.Sequential(Zeros()), [])
    assert log["0.custom_weight"].rule == "Initialized by user-defined `init_weights` in Zeros"
    assert log["0.custom_bias"].rule == "Initialized by user-defined `init_weights` in Zeros"
    assert log.unset == ("0.other",)


def test_a_child_that_says_it_is_initialised_is_left_alone() -> None:
    """`is_init`, as MMEngine's modules have it."""
    child = Own()
    child.is_init = True  # type: ignore[assignment]
    initialize(nn.Sequential(child), [])
    assert child.calls == 0


class Needy(Own):
    """Its init_weights wants to know something."""

    def init_weights(self, std: float) -> None:  # type: ignore[override]
        """Never called."""


def test_a_child_that_needs_an_argument_is_refused_before_anything_is_touched() -> None:
    """The config had been applied already when the call failed, with a TypeError that named no child."""
    model = nn.Sequential(nn.Conv2d(1, 1, 1), Needy())
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(InitConfigError, match=r"the init_weights of 1 \(Needy\) .* takes \(std: 'float'\).*missing"):
        initialize(model, {"type": "Kaiming", "layer": "Conv2d"})
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


class Failing(Own):
    """Changes all that a module has, and then fails as it is told to."""

    def __init__(self, failure: BaseException, buffer: Tensor) -> None:
        super().__init__()
        self.register_buffer("seen", buffer)
        self.failure = failure

    def init_weights(self) -> None:
        """Write in place and anew, freeze, register, take away, parametrise; then raise."""
        super().init_weights()
        self.scale.data = torch.full((7,), math.nan)
        self.conv.weight.requires_grad_(False)
        self.conv.bias = None
        self.get_buffer("seen").fill_(3)
        self.register_parameter("more", nn.Parameter(torch.ones(1)))
        self.added = nn.Linear(1, 1)
        self.is_init = True
        nn.utils.parametrizations.weight_norm(self.conv)
        raise self.failure


def state(model: nn.Module) -> dict[str, Any]:
    """All that a failed call must leave alone."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {
        "values": {name: (id(one), one.tolist(), one.requires_grad, one.data_ptr()) for name, one in tensors.items()},
        "modules": {name: (id(one), type(one), sorted(vars(one))) for name, one in model.named_modules()},
    }


@pytest.mark.parametrize(
    "failure", [RuntimeError("mine"), MemoryError(), torch.OutOfMemoryError("CUDA"), KeyboardInterrupt()]
)
def test_a_child_that_fails_leaves_the_module_as_it_was(failure: BaseException) -> None:
    """The config, and what the child had done before it failed, stayed behind."""
    memory = torch.zeros(2, 3)
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1), Own(), Failing(failure, memory[0]))
    before = state(model)
    with pytest.raises(type(failure)) as raised:
        initialize(
            model, [{"type": "Kaiming", "layer": "Conv2d"}, {"type": "Constant", "val": 3, "layer": "_BatchNorm"}]
        )
    assert raised.value is failure
    assert state(model) == before
    assert not memory.any()


def test_a_failure_in_the_middle_of_the_rules_leaves_the_module_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule of one's own may fail at its second module, and a hook of the module while its checkpoint is loaded."""

    def second(module: nn.Module, bias: float) -> None:
        nn.init.zeros_(module.weight)  # type: ignore[arg-type]
        if module is model.conv2:
            raise ValueError("second")

    model = Toy()
    monkeypatch.setattr(INITIALIZERS["Dirac"], "function", second)
    before = state(model)
    with pytest.raises(ValueError, match="second"):
        initialize(model, {"type": "Dirac", "layer": "Conv2d"})
    assert state(model) == before
    with pytest.raises(ValueError, match="second"):
        log_function(model, lambda module: second(model.conv2, 0), "mine")
    assert state(model) == before


def test_a_hook_that_fails_while_a_checkpoint_is_loaded_leaves_the_module_as_it_was(tmp_path: Path) -> None:
    """`load_pretrained` had then loaded half of it."""
    model, other = Toy(), Toy()
    torch.save(other.state_dict(), tmp_path / "toy.pt")

    def fail(*_: object) -> None:
        raise RuntimeError("hook")

    hook = model.head.register_load_state_dict_pre_hook(fail)  # type: ignore[no-untyped-call]
    before = state(model)
    with pytest.raises(RuntimeError, match="hook"):
        load_pretrained(model, str(tmp_path / "toy.pt"))
    with pytest.raises(RuntimeError, match="hook"):
        initialize(
            model,
            [{"type": "Kaiming", "layer": "Conv2d"}, {"type": "Pretrained", "checkpoint": str(tmp_path / "toy.pt")}],
        )
    assert state(model) == before
    hook.remove()
    load_pretrained(model, str(tmp_path / "toy.pt"))
    assert torch.equal(model.conv1.weight, other.conv1.weight)


class Once(Own):
    """As MMEngine's modules: it remembers that it has been initialised."""

    is_init = False

    def init_weights(self) -> None:
        """Count, fill and remember."""
        super().init_weights()
        self.is_init = True


def test_a_second_call_says_what_it_undoes() -> None:
    """What a child had done itself was overwritten by the second call, in silence."""
    model = nn.Sequential(Once())
    cfg = {"type": "Kaiming", "layer": "Conv2d"}
    assert not initialize(model, cfg).warnings
    assert model.get_parameter("0.conv.weight").item() == 9
    (warning,) = initialize(model, cfg).warnings
    assert warning.startswith("the init_weights of 0 has run before (is_init) and does not run again: the config has")
    assert not initialize(model, {"type": "Constant", "val": 1, "layer": "Linear"}).warnings[1:]
    model[0].is_init = False  # type: ignore[assignment]
    assert not initialize(model, cfg).warnings
    assert model.get_parameter("0.conv.weight").item() == 9


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
@pytest.mark.parametrize("norm", [nn.utils.parametrizations.weight_norm, nn.utils.weight_norm, nn.utils.spectral_norm])
@pytest.mark.parametrize("layer", ["Conv2d", "Toy"])
def test_a_computed_weight_is_refused(norm: Any, layer: str) -> None:
    """Under weight_norm the numbers went into a tensor that the next forward pass computes anew."""
    model = Toy()
    norm(model.conv2)
    before = [parameter.clone() for parameter in model.parameters()]
    cfg = {"type": "Kaiming", "layer": "Conv2d"} if layer == "Conv2d" else {"type": "Fixup", "layer": "Toy"}
    with pytest.raises(
        InitConfigError, match=r"cannot set the weight of a .*Conv2d: it is computed from other parameters"
    ):
        initialize(model, [{"type": "Normal", "layer": "Linear"}, cfg])
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    initialize(model, {"type": "Kaiming", "layer": "Linear"})


def test_functions_refuse_a_computed_weight() -> None:
    """`kaiming_init(conv)` under weight_norm had no effect, without a word."""
    conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 1, 1))
    with pytest.raises(ValueError, match=r"the weight of a ParametrizedConv2d is computed from other parameters"):
        kaiming_init(conv)
    with pytest.raises(ValueError, match="the weight of a Conv2d is computed from other parameters"):
        kaiming_init(nn.utils.spectral_norm(nn.Conv2d(1, 1, 1)))


def test_overrides_reach_nested_submodules_by_their_dotted_name() -> None:
    """`layer1.0.conv2` works; MMEngine knows direct attributes only."""
    model = build_model("resnet20", 10)
    log = initialize(model, {"type": "Constant", "val": 2, "override": {"name": "layer1.0.conv2"}})
    assert [line.name for line in log.parameters if line.is_set] == ["layer1.0.conv2.weight"]


def test_a_layer_whose_parameters_have_other_names_is_said() -> None:
    """`layer="MultiheadAttention"` or `"LSTM"` matched, set nothing, and no warning said so."""
    model = nn.ModuleList([nn.MultiheadAttention(8, 2), nn.LSTM(4, 4), nn.BatchNorm2d(3, affine=False)])
    log = initialize(model, {"type": "Constant", "val": 2, "layer": ["MultiheadAttention", "LSTM", "BatchNorm2d"]})
    assert not any(line.is_set for line in log.parameters)
    lstm, attention = log.warnings
    assert lstm.startswith("ConstantInit sets `weight` and `bias`; the parameters of a LSTM have other names")
    assert attention.endswith("a MultiheadAttention have other names and are left alone: in_proj_weight, in_proj_bias")


def test_nothing_to_do_is_said() -> None:
    """An empty config, an entry without layer and override, and a layer that matches nothing: warnings, no change."""
    for cfg, warning in (
        ([], "init_cfg is empty"),
        ({}, "init_cfg is empty"),
        ({"type": "Kaiming"}, "KaimingInit has neither `layer` nor `override`"),
        ({"type": "Kaiming", "layer": []}, "neither `layer` nor `override`"),
        ({"type": "Kaiming", "layer": "Conv3d"}, "layer 'Conv3d' matches no module"),
    ):
        model = Toy()
        before = [parameter.clone() for parameter in model.parameters()]
        log = initialize(model, cfg)
        assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
        assert len(log.unset) == 8
        assert len(log.warnings) == 1
        assert warning in log.warnings[0]
    log = initialize(Toy(), {"type": "Kaiming", "layer": ["Conv2d", "Conv3d"]})
    assert log.warnings == ("KaimingInit: layer 'Conv3d' matches no module, so nothing is touched for it",)


@pytest.mark.parametrize(
    ("cfg", "error", "message"),
    [
        (None, InitArgumentError, r"init_cfg must be a dict or a list of dicts, not None \(NoneType\)"),
        (["Kaiming"], InitArgumentError, r"init_cfg\[0\] must be a dict, not 'Kaiming' \(str\)"),
        ({"layer": "Conv2d"}, UnknownInitializerError, "^init_cfg needs the key 'type'"),
        (
            {"type": "kaiming"},
            UnknownInitializerError,
            r"unknown initialiser 'kaiming'; did you mean 'Kaiming'\? Known: ",
        ),
        ({"type": 7}, InitArgumentError, r"type must be the name of an initialiser or its class, not 7 \(int\)"),
        ({"type": dict}, InitArgumentError, "type must be"),
        (
            {"type": "Kaiming", "nonlinarity": "relu"},
            InitArgumentError,
            "no argument 'nonlinarity'; did you mean 'nonlinearity'",
        ),
        ({"type": "Constant"}, InitArgumentError, "ConstantInit needs the argument 'val'"),
        ({"type": "Pretrained"}, InitArgumentError, "PretrainedInit needs the argument 'checkpoint'"),
        ({"type": "Pretrained", "checkpoint": "x", "layer": "Conv2d"}, InitArgumentError, "no argument 'layer'"),
        ({"type": "Kaiming", "a": "0"}, InitArgumentError, r"a must be a finite number, not '0' \(str\)"),
        ({"type": "Kaiming", "bias": True}, InitArgumentError, r"bias must be a finite number, not True \(bool\)"),
        ({"type": "Constant", "val": math.nan}, InitArgumentError, r"val must be a finite number, not nan \(float\)"),
        ({"type": "Normal", "std": math.inf}, InitArgumentError, "std must be a finite number"),
        ({"type": "Uniform", "b": 10**400}, InitArgumentError, "b must be a finite number"),
        ({"type": "Xavier", "gain": -1}, InitConfigError, "gain must not be negative, it is -1"),
        ({"type": "Kaiming", "bias_prob": 1}, InitConfigError, "bias_prob must lie between 0 and 1, not 1"),
        (
            {"type": "Kaiming", "mode": "fan_avg"},
            InitArgumentError,
            "mode must be 'fan_in' or 'fan_out', not 'fan_avg'",
        ),
        ({"type": "Kaiming", "nonlinearity": "swish"}, InitConfigError, "nonlinearity: Unsupported nonlinearity swish"),
        ({"type": "Xavier", "distribution": "cauchy"}, InitArgumentError, "distribution must be 'normal' or 'uniform'"),
        ({"type": "Normal", "std": -1}, InitConfigError, "std must not be negative"),
        ({"type": "TruncNormal", "std": 0}, InitConfigError, "std must be positive"),
        ({"type": "TruncNormal", "a": 3}, InitConfigError, "lower bound a=3 lies above the upper bound b=2"),
        ({"type": "Uniform", "a": 3}, InitConfigError, "lower bound a=3"),
        ({"type": "VarianceScaling", "scale": 0}, InitConfigError, "scale must be positive"),
        (
            {"type": "Kaiming", "layer": ("Conv2d",)},
            InitArgumentError,
            "layer must be a string or a list of strings or None",
        ),
        ({"type": "Kaiming", "layer": ["Conv2d", 3]}, InitArgumentError, "layer must be"),
        (
            {"type": "Kaiming", "override": 3},
            InitArgumentError,
            r"init_cfg: override must be a dict or a list of dicts",
        ),
        ({"type": "Kaiming", "override": [3]}, InitArgumentError, r"init_cfg.override\[0\] must be a dict"),
        (
            {"type": "Kaiming", "override": {"type": "Xavier"}},
            InitConfigError,
            "init_cfg.override needs the key 'name'",
        ),
        (
            {"type": "Kaiming", "override": {"name": "conv1", "bias": 1}},
            InitConfigError,
            r"needs the key 'type' beside .*bias",
        ),
        (
            {"type": "Kaiming", "override": {"name": "conv3"}},
            UnknownSubmoduleError,
            r"no submodule 'conv3'; did you mean 'conv",
        ),
        (
            {"type": "Kaiming", "override": {"name": "weight"}},
            UnknownSubmoduleError,
            "Its children: conv1, conv2, norm, head",
        ),
        (
            {"type": "Kaiming", "layer": "BatchNorm2d"},
            InitConfigError,
            r"BatchNorm2d, of shape \(8,\): its formula needs 2 dim",
        ),
        ({"type": "Fixup", "layer": "Toy", "override": {"name": "conv1"}}, InitConfigError, "Fixup counts the blocks"),
        ({"type": "Orthogonal", "override": {"name": "norm"}}, InitConfigError, "OrthogonalInit cannot set the weight"),
    ],
)
def test_a_wrong_config_names_the_key_and_touches_nothing(cfg: Any, error: type[Exception], message: str) -> None:
    """The first of two entries is fine; the second is wrong, and the model is as before."""
    model = Toy()
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(error, match=message):
        initialize(model, cfg)
    if isinstance(cfg, dict):
        with pytest.raises(error, match=message.replace("init_cfg", r"init_cfg\[1\]").replace("^", "")):
            initialize(model, [{"type": "Normal", "layer": "Conv2d"}, cfg])
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_the_config_is_not_changed() -> None:
    """One config can serve many modules."""
    cfg = [
        {"type": "Kaiming", "layer": ["Conv2d"], "override": [{"name": "conv2", "type": "Xavier"}, {"name": "head"}]}
    ]
    before = json.dumps(cfg)
    initialize(Toy(), cfg)
    assert json.dumps(cfg) == before


def test_a_rule_class_can_stand_for_its_name() -> None:
    """`type=KaimingInit`, as in MMEngine's new-style configs."""
    assert initialize(Toy(), {"type": KaimingInit, "layer": "Linear"})["head.bias"].rule.startswith("KaimingInit")


def test_one_can_register_an_initialiser_of_ones_own() -> None:
    """A new name works in configs and in the log; a name that is taken is refused."""

    @register("Sevens")
    class SevensInit(LayerRule):
        function = staticmethod(lambda module, bias: nn.init.constant_(module.weight, 7))

    try:
        model = Toy()
        log = initialize(model, {"type": "Sevens", "layer": "Linear"})
        assert (model.head.weight == 7).all()
        assert log["head.weight"].rule == "SevensInit: bias=0"
        with pytest.raises(ValueError, match="'Sevens' is registered already"):
            register("Sevens")(SevensInit)
    finally:
        del INITIALIZERS["Sevens"]


def test_tied_parameters_are_listed_under_each_name() -> None:
    """Both names show the one tensor's rule, and a warning says that they are one."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Conv2d(4, 4, 1))
    head = nn.Linear(4, 4)
    head.weight = model[0].weight  # type: ignore[assignment]
    model.append(head)
    log = initialize(model, [{"type": "Kaiming", "layer": "Conv2d"}, {"type": "Xavier", "override": {"name": "2"}}])
    assert log["0.weight"].rule == log["2.weight"].rule == "XavierInit: gain=1, distribution=normal, bias=0"
    assert log["0.weight"].checksum == log["2.weight"].checksum
    assert not log["0.bias"].is_set
    assert log.warnings == ("0.weight and 2.weight are one tensor: the last rule that sets any of them counts",)


def test_meta_and_lazy_parameters_are_refused_by_name() -> None:
    """torch would silently do nothing; the error says what to do first."""
    with torch.device("meta"):
        model = Toy()
    with pytest.raises(UninitializableModuleError, match=r"no storage to fill: conv1.weight, .*to_empty"):
        initialize(model, {"type": "Kaiming", "layer": "Conv2d"})
    with pytest.raises(UninitializableModuleError, match=r"0.weight, 0.bias"):
        initialize(nn.Sequential(nn.LazyLinear(3)), {"type": "Kaiming", "layer": "Linear"})


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("kind", [name for name in INITIALIZERS if name not in ("Pretrained", "Fixup")])
def test_every_initialiser_takes_empty_frozen_and_reduced_precision_parameters(kind: str) -> None:
    """No crash, no NaN: elements that are not there, requires_grad=False, float16 and bfloat16."""
    cfg: dict[str, Any] = {"type": kind, "layer": ["Linear", "Conv2d"]} | ({"val": 1} if kind == "Constant" else {})
    empty = nn.Sequential(nn.Linear(0, 3), nn.Linear(3, 0), nn.Linear(0, 0))
    log = initialize(empty, cfg)
    assert "0.weight has no elements: there is nothing to set" in log.warnings
    assert (log["0.weight"].mean, log["0.weight"].std, log["0.weight"].norm) == (0, 0, 0)
    for dtype in (torch.float16, torch.bfloat16):
        model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Conv2d(8, 8, 3, groups=4), nn.Linear(8, 4)).to(dtype)
        for parameter in model.requires_grad_(False).parameters():
            parameter.fill_(math.nan)
        log = initialize(model, cfg)
        assert not log.unset
        for parameter in model.parameters():
            assert parameter.isfinite().all()
            assert not parameter.requires_grad
            assert parameter.dtype == dtype


def test_a_recipe_can_be_logged_as_well() -> None:
    """`agent baselines --explain`: what a recipe sets counts as set, also where a norm's bias stays zero."""
    model = build_model("resnet20", 10)
    fixup = load_region(get_recipe("fixup").region)
    log = log_function(model, lambda m: fixup(m, init_config(m, "resnet20", 10)), "fixup")
    assert not log.unset
    assert {line.rule for line in log.parameters} == {"fixup"}
    log = log_function(nn.Linear(2, 2), lambda m: nn.init.zeros_(m.bias), "half")  # type: ignore[arg-type]
    assert log.unset == ("weight",)
