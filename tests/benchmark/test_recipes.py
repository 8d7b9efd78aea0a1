"""The recipe library: self-contained texts that do what they say. `agent check` on each: test_check_recipes.py."""

from __future__ import annotations

import ast
import builtins
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark import recipes
from benchmark.models import ARCHITECTURES, BasicBlock, InvertedResidual, build_model, init_config
from benchmark.recipes import RECIPES, REGION_NAMES, UnknownRecipeError, get_recipe, load_region, recipe_names

RECORDED = ("ravs", "dars", "fixup_plus_plus", "davs", "rbb")
TRANSCRIPT = (
    Path(__file__).resolve().parents[2] / "../shared/transcripts/dl-weight-initialization__deepseek-reasoner.json"
)


def initialised(region: str, arch: str, seed: int = 0, num_classes: int = 10) -> nn.Module:
    """The network `arch`, its parameters poisoned with NaN and then set by the region text under `seed`."""
    model = build_model(arch, num_classes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(math.nan)
    torch.manual_seed(seed)
    load_region(region)(model, init_config(model, arch, num_classes))
    return model


def by_recipe(name: str, arch: str, seed: int = 0) -> nn.Module:
    return initialised(get_recipe(name).region, arch, seed)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def layers(model: nn.Module, *kinds: type[nn.Module]) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, kinds)]


def assert_same(left: nn.Module, right: nn.Module) -> None:
    other = weights(right)
    for name, value in weights(left).items():
        assert torch.equal(value, other[name]), name


@pytest.mark.parametrize("name", recipe_names())
def test_a_region_text_needs_nothing_but_the_names_in_scope(name: str) -> None:
    """An agent can start from any recipe: no import, no name from elsewhere, small, and it ends its last line."""
    region = get_recipe(name).region
    tree = ast.parse(region)
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    stored = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    arguments = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    assert read - stored - defined - arguments - set(dir(builtins)) <= set(REGION_NAMES)
    assert region.endswith("\n")
    assert not region.endswith("\n\n")
    assert len(region.encode()) < 16_000


def test_the_regions_texts_are_as_tidy_as_the_rest(tmp_path: Path) -> None:
    """A person who reads `agent baselines --show NAME` sees code that lint and format would leave alone."""
    for name in recipe_names():
        (tmp_path / f"{name}.py").write_text(get_recipe(name).region, encoding="utf-8")
    settings = str(Path(recipes.__file__).resolve().parents[2] / "pyproject.toml")
    names = json.dumps(list(REGION_NAMES))
    for arguments in (["check", "-q", "--config", f"builtins={names}"], ["format", "--check", "-q"]):
        command = [sys.executable, "-m", "ruff", *arguments, "--config", settings, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if "No module named ruff" in done.stderr:
            pytest.skip("ruff is not installed")
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_library_lists_what_the_folder_holds() -> None:
    """No recipe file is forgotten in the table, and every entry says in one line what it is and where it comes from."""
    folder = Path(recipes.__file__).parent
    assert {path.name.removesuffix(".py.txt") for path in folder.glob("*.py.txt")} == set(recipe_names())
    assert list(RECIPES) == list(recipe_names())
    assert recipe_names()[0] == "kaiming_normal"
    for recipe in RECIPES.values():
        assert 20 < len(recipe.description) <= 120
        assert recipe.source


def test_idinit_is_a_padded_identity_and_silences_branches() -> None:
    """One input per output and identity in τ of a square layer, repeated where it is not square; branches near zero."""
    model = by_recipe("idinit", "resnet20")
    ends = {id(block.conv2) for block in layers(model, BasicBlock)}
    for module in layers(model, nn.Conv2d, nn.Linear):
        matrix = module.weight.detach().flatten(1)
        rows, columns = matrix.shape
        short = min(rows, columns)
        pattern = torch.arange(rows).unsqueeze(1) % short == torch.arange(columns) % short
        assert not matrix[~pattern].any()
        if id(module) in ends:
            torch.testing.assert_close(matrix[pattern].abs(), torch.full_like(matrix[pattern], 1e-6))
            equal = (
                matrix @ torch.ones(columns // short * short).reshape(-1, 1)[:columns] if columns > short else matrix
            )
            assert equal.abs().max() <= 1.01e-6
        else:
            assert (matrix[pattern] - 1).abs().max() < 1e-5
            assert len(matrix[pattern].unique()) > 1
    for block in layers(model, BasicBlock):
        images = torch.rand(4, block.conv1.in_channels, 8, 8)
        torch.testing.assert_close(block.train()(images), F.relu(block.shortcut(images)), atol=1e-2, rtol=0)


def test_sinusoidal_filters_are_their_waves() -> None:
    """Row i is a · sin(i · (2πj/n + 2π/m)), the variance is 2 / (m + n), and no seed matters."""
    model = by_recipe("sinusoidal", "vgg8bn")
    for module in layers(model, nn.Conv2d, nn.Linear):
        matrix = module.weight.detach().flatten(1).double()
        m, n = matrix.shape
        assert matrix.var().item() == pytest.approx(2 / (m + n), rel=1e-3)
        amplitude = matrix.abs().max().item()
        for i, j in ((1, 0), (2, n // 3), (m // 2, n - 1)):
            phase = i * (2 * math.pi * j / n + 2 * math.pi / m)
            assert matrix[i - 1, j].item() == pytest.approx(amplitude * math.sin(phase), abs=1e-2 * amplitude)
    assert_same(model, by_recipe("sinusoidal", "vgg8bn", seed=7))


@pytest.mark.parametrize("arch", ["resnet20", "mobilenetv2"])
def test_standardised_filters_have_mean_zero_and_one_norm(arch: str) -> None:
    """Each filter by itself; Linear layers stay orthogonal."""
    model = by_recipe("orthogonal_standardised", arch)
    for conv in layers(model, nn.Conv2d):
        filters = conv.weight.detach().flatten(1)
        fan_in = filters.shape[1]
        torch.testing.assert_close(filters.mean(dim=1), torch.zeros(len(filters)), atol=1e-6, rtol=0)
        expected = torch.full((len(filters),), math.sqrt(2 / fan_in))
        torch.testing.assert_close(filters.std(dim=1, correction=0), expected)
    if arch == "resnet20":
        cosines = F.normalize(model.get_parameter("layer1.0.conv1.weight").detach().flatten(1), dim=1)
        assert (cosines @ cosines.T - torch.eye(16)).abs().max() < 0.2


def test_rising_gamma_follows_its_law() -> None:
    """0.1 + 0.12 · √((i + 1) / L) from the first residual branch to the last; other norms and blocks stay at 1."""
    for arch, kind, count in (("resnet20", BasicBlock, 9), ("mobilenetv2", InvertedResidual, 10)):
        model = by_recipe("rising_gamma", arch)
        blocks = [block for block in layers(model, kind) if getattr(block, "use_residual", True)]
        last = [block.bn2 if kind is BasicBlock else block.conv[-1] for block in blocks]
        expected = [0.1 + 0.12 * math.sqrt((index + 1) / count) for index in range(count)]
        assert [norm.weight[0].item() for norm in last] == pytest.approx(expected)
        assert sum(bool((norm.weight != 1).any()) for norm in layers(model, nn.BatchNorm2d)) == count
    assert_same(by_recipe("rising_gamma", "vgg8bn"), by_recipe("kaiming_normal", "vgg8bn"))


def test_gains_decay_along_the_depth() -> None:
    """Convolution l of L is kaiming_normal's times exp(-l / L)."""
    plain, model = by_recipe("kaiming_normal", "resnet20"), by_recipe("gain_decay", "resnet20")
    convs = layers(model, nn.Conv2d)
    for index, (drawn, faded) in enumerate(zip(layers(plain, nn.Conv2d), convs, strict=True)):
        torch.testing.assert_close(faded.weight, drawn.weight * math.exp(-index / len(convs)))


@pytest.mark.parametrize("arch", ["resnet20", "vgg8bn", "mobilenetv2"])
def test_lsuv_gives_every_layer_unit_variance(arch: str) -> None:
    """On noise that it has not seen, near 1 for every convolution and Linear layer; norms are as new."""
    model = by_recipe("lsuv_noise", arch).train()
    found: list[float] = []
    for layer in layers(model, nn.Conv2d, nn.Linear):
        layer.register_forward_hook(lambda _layer, _inputs, outputs: found.append(outputs.std().item()))
    for norm in layers(model, nn.BatchNorm2d):
        assert norm.num_batches_tracked == 0
        assert not norm.running_mean.any()
        assert (norm.running_var == 1).all()
    torch.manual_seed(99)
    with torch.no_grad():
        model(torch.randn(32, 3, 32, 32))
    assert found == pytest.approx([1.0] * len(found), abs=0.25)
    assert len(found) == len(layers(model, nn.Conv2d, nn.Linear))


def test_lsuv_does_without_a_picture_size_that_does_not_fit() -> None:
    """A network for other pictures keeps its orthogonal weights, and no hook stays behind."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 62 * 62, 2))
    load_region(get_recipe("lsuv_noise").region)(model, {})
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_an_unknown_recipe_is_refused_with_a_suggestion() -> None:
    """`agent search --start fixupp` says what was meant."""
    with pytest.raises(
        UnknownRecipeError, match=r"^unknown recipe 'fixupp'; did you mean 'fixup'\? Known recipes: "
    ) as it:
        get_recipe("fixupp")
    assert isinstance(it.value, KeyError)
    assert "nothing_alike" not in RECIPES


def test_recorded_strategies_scale_by_their_formulas() -> None:
    """A recorded strategy is the kaiming_normal drawn with the same seed, times the factor its own formula gives."""
    for arch in ("resnet20", "vgg8bn", "mobilenetv2"):
        base = by_recipe("kaiming_normal", arch)
        depth = len(layers(base, nn.Conv2d, nn.Linear))
        residual = arch != "vgg8bn"
        blocks = len(layers(base, BasicBlock, InvertedResidual))
        for name in ("dars", "davs", "fixup_plus_plus", "rbb"):
            model = by_recipe(name, arch)
            last = {id(block.conv2) for block in layers(model, BasicBlock)}
            last |= {id(block.conv[-2]) for block in layers(model, InvertedResidual)}
            projections = {id(block.shortcut[0]) for block in layers(model, BasicBlock) if len(block.shortcut)}
            for index, (plain, conv) in enumerate(zip(layers(base, nn.Conv2d), layers(model, nn.Conv2d), strict=True)):
                factor = 1.0
                if name == "dars" and residual:
                    factor = (1 + index / depth) ** -0.5
                elif name == "davs":
                    factor = (1 + index / depth) ** -0.25
                elif name == "rbb" and id(conv) in last | projections:
                    factor = blocks**-0.5
                elif name == "fixup_plus_plus" and residual:
                    factor = (blocks**-0.5 if id(conv) in last else 1) * (0.5**0.5 if conv.kernel_size == (1, 1) else 1)
                torch.testing.assert_close(conv.weight, plain.weight * factor, msg=f"{name} {arch} {index}")
            beta = 0.01 if name == "dars" else 0.0
            assert all((norm.bias == torch.tensor(beta)).all() for norm in layers(model, nn.BatchNorm2d))


def test_ravs_forces_the_deviation_of_every_convolution() -> None:
    """The strategy's quirk is kept: the standard deviation depends on depth alone."""
    model = by_recipe("ravs", "resnet20")
    depth = len(layers(model, nn.Conv2d, nn.Linear))
    for index, conv in enumerate(layers(model, nn.Conv2d)):
        assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / (1 + index / depth)), rel=1e-4)


@pytest.mark.skipif(not TRANSCRIPT.exists(), reason="../shared with the recorded conversation is not here")
@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("name", RECORDED)
def test_recorded_strategies_equal_the_recorded_code(name: str, arch: str) -> None:
    """The rewritten strategies give the recorded code's tensors, bit for bit, under the same seed."""
    messages = json.loads(TRANSCRIPT.read_text(encoding="utf-8"))["messages"]
    edits = [message["tool_input"]["content"] for message in messages if message.get("tool_name") == "edit"]
    recorded = edits[RECORDED.index(name)]
    for num_classes in (10, 100):
        expected = initialised(recorded, arch, seed=42, num_classes=num_classes)
        assert_same(initialised(get_recipe(name).region, arch, seed=42, num_classes=num_classes), expected)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_pytorch_default_is_what_constructing_the_network_gives(arch: str) -> None:
    """The recipe draws the same numbers, in the same order, as `build_model` itself does."""
    torch.manual_seed(3)
    assert_same(build_model(arch, 10), by_recipe("pytorch_default", arch, seed=3))


@pytest.mark.parametrize("name", ["torchvision_resnet", "torchvision_squeezenet", "torchvision_mobilenet"])
def test_torchvision_recipes_equal_constructing_and_then_torchvisions_loop(name: str) -> None:
    """Bit for bit what torchvision's constructors would leave behind, had they built our network."""
    torch.manual_seed(5)
    if name == "torchvision_mobilenet":
        expected = build_model("resnet20", 10)
        torch.manual_seed(5)  # this loop sets everything, so the recipe has no need to construct first
    else:
        expected = build_model("resnet20", 10)
    for module in expected.modules():
        if isinstance(module, nn.Conv2d):
            if name == "torchvision_squeezenet":
                nn.init.kaiming_uniform_(module.weight)
            else:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear) and name == "torchvision_mobilenet":
            nn.init.normal_(module.weight, 0, 0.01)
            nn.init.zeros_(module.bias)
    assert_same(by_recipe(name, "resnet20", seed=5), expected)


def test_googlenet_weights_follow_the_truncated_normal() -> None:
    """Cut off at two standard deviations of 0.01, which leaves 88 % of that deviation; biases stay torch's."""
    model = by_recipe("torchvision_googlenet", "vgg8bn")
    values = torch.cat([module.weight.detach().flatten() for module in layers(model, nn.Conv2d, nn.Linear)])
    assert values.abs().max() <= 0.02
    assert values.std().item() == pytest.approx(0.01 * 0.8796, rel=0.005)
    assert all(linear.bias.abs().max() > 0 for linear in layers(model, nn.Linear))


def test_a_convolution_as_classifier_is_small_in_squeezenets_recipe() -> None:
    """A network that ends in a convolution gets SqueezeNet's N(0, 0.01²) there, and a zero bias."""
    classifier = nn.Conv2d(64, 100, 1)
    model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), classifier)
    torch.manual_seed(0)
    load_region(get_recipe("torchvision_squeezenet").region)(model, {})
    assert classifier.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert classifier.bias is not None
    assert not classifier.bias.any()


@pytest.mark.parametrize("name", ["zero_last_gamma", "fixup", "zero_init"])
def test_residual_blocks_start_as_their_skip(name: str) -> None:
    """In an identity block the input comes out again, however many blocks follow each other."""
    resnet, mobilenet = by_recipe(name, "resnet20").train(), by_recipe(name, "mobilenetv2").train()
    for block in layers(resnet, BasicBlock):
        images = torch.rand(4, block.conv1.in_channels, 8, 8)
        assert torch.equal(block(images.clone()), F.relu(block.shortcut(images)))
    for block in layers(mobilenet, InvertedResidual):
        images = torch.rand(4, block.conv[0].in_channels, 8, 8)
        out = block(images.clone())
        assert torch.equal(out, images) if block.use_residual else out.std() > 0.1


def test_fixup_scales_the_branches_by_the_number_of_branches() -> None:
    """9 branches in ResNet-20, 10 blocks with a skip in MobileNetV2; nothing to scale in VGG."""
    for arch, branches in (("resnet20", 9), ("mobilenetv2", 10), ("vgg8bn", 0)):
        plain, model = by_recipe("kaiming_normal", arch), by_recipe("fixup", arch)
        ratios = [
            (scaled.weight.norm() / drawn.weight.norm()).item()
            for scaled, drawn in zip(layers(model, nn.Conv2d), layers(plain, nn.Conv2d), strict=True)
        ]
        scaled_ratios = [ratio for ratio in ratios if abs(ratio - 1) > 1e-6]
        assert len(scaled_ratios) == branches
        assert scaled_ratios == pytest.approx([branches**-0.5 if branches else 1] * branches)


@pytest.mark.parametrize(("name", "learns"), [("fixup", True), ("fixup_plus_plus", False), ("rbb", False)])
def test_zeroing_blocks_without_a_skip_kills_mobilenet(name: str, learns: bool) -> None:
    """The recorded strategies' fault on the hidden network: no gradient reaches anything but the last bias."""
    model = by_recipe(name, "mobilenetv2").train()
    torch.manual_seed(0)
    F.cross_entropy(model(torch.randn(8, 3, 32, 32)), torch.arange(8)).backward()  # type: ignore[no-untyped-call]
    reached = [key for key, value in model.named_parameters() if value.grad is not None and value.grad.any()]
    assert "classifier.bias" in reached
    assert "features.0.weight" in reached if learns else reached == ["classifier.bias"]


@pytest.mark.parametrize("name", ["kaiming_normal", "lecun", "orthogonal"])
def test_the_plain_recipes_are_their_formulas(name: str) -> None:
    """Scale of each layer, orthonormal filters times √2, norms (1, 0), biases zero."""
    model = by_recipe(name, "vgg16bn")
    for module in layers(model, nn.Conv2d, nn.Linear):
        matrix = module.weight.detach().flatten(1)
        outputs, inputs = matrix.shape
        kernel = module.weight[0, 0].numel()
        if name == "orthogonal":
            product = matrix @ matrix.T if outputs <= inputs else matrix.T @ matrix
            torch.testing.assert_close(product, 2 * torch.eye(len(product)), atol=1e-4, rtol=0)
        else:
            gradients = name == "kaiming_normal" and isinstance(module, nn.Conv2d)
            variance = (1 if name == "lecun" else 2) / (outputs * kernel if gradients else inputs)
            sampling = 4 / math.sqrt(2 * matrix.numel())
            assert matrix.std().item() == pytest.approx(math.sqrt(variance), rel=sampling)
        assert module.bias is None or not module.bias.any()
    for norm in layers(model, nn.BatchNorm2d):
        assert (norm.weight == 1).all()
        assert not norm.bias.any()


def test_head_small_shrinks_the_logits_alone() -> None:
    """A tenth of kaiming_normal's last layer, also where there are several Linear layers."""
    plain, model = by_recipe("kaiming_normal", "vgg16bn"), by_recipe("head_small", "vgg16bn")
    *hidden, head = layers(model, nn.Linear)
    *plain_hidden, plain_head = layers(plain, nn.Linear)
    assert torch.equal(head.weight, plain_head.weight * 0.1)
    assert all(torch.equal(one.weight, other.weight) for one, other in zip(hidden, plain_hidden, strict=True))


def test_gradinit_like_has_its_two_numbers() -> None:
    """Convolutions 1.5 times kaiming_normal's, 0.3 in the last norm of every branch, one elsewhere."""
    plain, model = by_recipe("kaiming_normal", "resnet20"), by_recipe("gradinit_like", "resnet20")
    for scaled, drawn in zip(layers(model, nn.Conv2d), layers(plain, nn.Conv2d), strict=True):
        assert torch.equal(scaled.weight, drawn.weight * 1.5)
    last = {id(block.bn2) for block in layers(model, BasicBlock)}
    for norm in layers(model, nn.BatchNorm2d):
        assert (norm.weight == (torch.tensor(0.3) if id(norm) in last else 1.0)).all()


def test_dirac_mix_shares_the_norm_between_identity_and_noise() -> None:
    """Half of a filter bank's squared norm is the identity, and the whole is as large as kaiming_normal's."""
    plain, model = by_recipe("kaiming_normal", "vgg16bn"), by_recipe("dirac_mix", "vgg16bn")
    conv, drawn = layers(model, nn.Conv2d)[9], layers(plain, nn.Conv2d)[9]
    identity = F.normalize(nn.init.dirac_(torch.empty_like(conv.weight)).flatten(), dim=0)
    norm = drawn.weight.norm().item()
    assert conv.weight.norm().item() == pytest.approx(norm, rel=0.01)
    assert (conv.weight.flatten() @ identity).item() == pytest.approx(math.sqrt(0.5) * norm, rel=0.01)


def test_delta_orthogonal_convolutions_scale_every_picture_by_root_two() -> None:
    """Lengths and angles of whole feature maps are kept, but for the gain, wherever a layer does not narrow."""
    model = by_recipe("delta_orthogonal", "mobilenetv2")
    torch.manual_seed(0)
    for conv in layers(model, nn.Conv2d):
        if conv.stride == (1, 1) and conv.out_channels >= conv.in_channels:
            first, second = torch.randn(2, conv.in_channels, 5, 5)
            with torch.no_grad():
                out_first, out_second = conv(torch.stack([first, second]))
            assert (out_first * out_second).sum().item() == pytest.approx(2 * (first * second).sum().item(), abs=0.05)
            assert out_first.norm().item() == pytest.approx(math.sqrt(2) * first.norm().item(), rel=1e-4)


def test_zero_init_holds_zeros_and_one_size_of_number() -> None:
    """ZerO: square layers pass their input through; a widening one spreads it without loss."""
    model = by_recipe("zero_init", "vgg16bn")
    for module in layers(model, nn.Conv2d, nn.Linear):
        sizes = module.weight.detach().abs().unique()
        assert len(sizes[sizes > 0]) == 1
    for conv in layers(model, nn.Conv2d):
        images = torch.randn(2, conv.in_channels, 4, 4)
        with torch.no_grad():
            out = conv(images)
        if conv.in_channels == conv.out_channels:
            assert torch.equal(out, images)
        else:  # 3, 64, 128, 256 widen to a power of two: an isometry
            assert out.norm().item() == pytest.approx(images.norm().item(), rel=1e-5)


def test_groups_correct_differs_from_kaiming_normal_by_the_root_of_the_groups() -> None:
    """Only depthwise convolutions change; ResNet's and VGG's numbers stay."""
    for arch in ("resnet20", "mobilenetv2"):
        plain, model = by_recipe("kaiming_normal", arch), by_recipe("kaiming_groups_correct", arch)
        for conv, drawn in zip(layers(model, nn.Conv2d), layers(plain, nn.Conv2d), strict=True):
            torch.testing.assert_close(conv.weight, drawn.weight * math.sqrt(conv.groups))
