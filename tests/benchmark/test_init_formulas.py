"""Each initialiser by the property that defines it: variance, orthogonality, identity, a silent block."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor, nn

from benchmark.initializers import (
    InitConfigError,
    bias_init_with_prob,
    delta_orthogonal_init,
    dirac_init,
    fixup_init,
    initialize,
    kaiming_init,
    lecun_normal_init,
    orthogonal_init,
    trunc_normal_init,
    variance_scaling_init,
    xavier_init,
    zero_module,
    zero_ones_init,
)
from benchmark.initializers.tensors import fans, hadamard
from benchmark.models import BasicBlock, InvertedResidual


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def apply(module: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        out: Tensor = module(images)
    return out


def gradient_of_input(module: nn.Module, images: Tensor, gradient: Tensor) -> Tensor:
    images = images.clone().requires_grad_()
    (found,) = torch.autograd.grad(module(images), images, gradient)
    return found


def test_fans_count_what_reaches_what() -> None:
    """A convolution's fans counted by hand: feed one 1 through it and see how many outputs it reaches."""
    for groups in (1, 4, 8):
        conv = nn.Conv2d(8, 16, 3, padding=2, groups=groups, bias=False)
        nn.init.ones_(conv.weight)
        image = torch.zeros(1, 8, 9, 9)
        image[0, 0, 4, 4] = 1
        fan_in, fan_out = fans(conv.weight, groups)
        assert int(apply(conv, image).sum()) == fan_out
        assert int(apply(conv, torch.ones(1, 8, 9, 9))[0, 0, 4, 4]) == fan_in
    with pytest.raises(ValueError, match=r"shape \(3,\) has no fan"):
        fans(torch.empty(3))


@pytest.mark.parametrize(
    ("initialise", "variance"),
    [
        (lambda layer: xavier_init(layer, gain=2), lambda fan_in, fan_out: 4 * 2 / (fan_in + fan_out)),
        (lambda layer: xavier_init(layer, distribution="uniform"), lambda fan_in, fan_out: 2 / (fan_in + fan_out)),
        (kaiming_init, lambda fan_in, fan_out: 2 / fan_out),
        (lambda layer: kaiming_init(layer, mode="fan_in", distribution="uniform"), lambda fan_in, fan_out: 2 / fan_in),
        (lecun_normal_init, lambda fan_in, fan_out: 1 / fan_in),
        (variance_scaling_init, lambda fan_in, fan_out: 1 / fan_in),
        (lambda layer: variance_scaling_init(layer, 3, "fan_avg", "uniform"), lambda i, o: 3 / ((i + o) / 2)),
        (lambda layer: variance_scaling_init(layer, 2, "fan_out", "normal"), lambda fan_in, fan_out: 2 / fan_out),
    ],
)
def test_the_variance_is_the_formulas(
    initialise: Callable[[nn.Module], None], variance: Callable[[int, int], float]
) -> None:
    """Within 1 % over 147,456 weights; the bias is zero."""
    conv = nn.Conv2d(64, 256, 3)
    initialise(conv)
    assert conv.weight.var().item() == pytest.approx(variance(64 * 9, 256 * 9), rel=0.01)
    assert abs(conv.weight.mean().item()) < 0.01 * conv.weight.std().item()
    assert conv.bias is not None
    assert not conv.bias.any()


def test_the_cut_normals_are_cut() -> None:
    """TruncNormal's bounds are absolute; VarianceScaling's are two deviations of what is cut, and leave no more."""
    linear = nn.Linear(512, 512)
    trunc_normal_init(linear, mean=1, std=2, a=0, b=3)
    assert linear.weight.min() >= 0
    assert linear.weight.max() <= 3
    assert linear.weight.mean().item() == pytest.approx(stats.truncnorm(-0.5, 1, loc=1, scale=2).mean(), abs=0.01)
    variance_scaling_init(linear)
    bound = 2 / math.sqrt(512) / 0.87962566
    assert linear.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    assert linear.weight.abs().max().item() <= bound * (1 + 1e-6)


def test_groups_correct_keeps_the_scale_of_gradients() -> None:
    """Through torch's depthwise layer a gradient shrinks by √groups; counted right, it keeps its scale, times √2."""
    images, gradient = torch.randn(8, 64, 16, 16), torch.randn(8, 64, 16, 16)
    conv = nn.Conv2d(64, 64, 3, padding=1, groups=64, bias=False, padding_mode="circular")
    kaiming_init(conv)
    shrunk = gradient_of_input(conv, images, gradient).std().item()
    kaiming_init(conv, groups_correct=True)
    kept = gradient_of_input(conv, images, gradient).std().item()
    assert shrunk == pytest.approx(math.sqrt(2) / 8, rel=0.15)
    assert kept == pytest.approx(math.sqrt(2), rel=0.15)
    kaiming_init(conv, mode="fan_in")  # fan_in is right in torch
    assert apply(conv, images).std().item() == pytest.approx(math.sqrt(2), rel=0.15)
    torch.manual_seed(1)
    kaiming_init(conv, mode="fan_in", groups_correct=True)
    corrected = conv.weight.clone()
    torch.manual_seed(1)
    kaiming_init(conv, mode="fan_in")
    assert torch.equal(conv.weight, corrected)


@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (4, 9)])
def test_orthogonal_rows_or_columns(shape: tuple[int, int]) -> None:
    """WᵀW or WWᵀ, whichever is smaller, is gain² times the identity."""
    linear = nn.Linear(shape[1], shape[0])
    orthogonal_init(linear, gain=3)
    weight = linear.weight.detach()
    gram = weight.T @ weight if shape[0] >= shape[1] else weight @ weight.T
    torch.testing.assert_close(gram, 9 * torch.eye(min(shape)), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: nn.Conv2d(6, 6, 3, padding=1),
        lambda: nn.Conv2d(4, 12, (3, 5), padding=(1, 2)),
        lambda: nn.Conv2d(8, 16, 3, padding=1, groups=4),
        lambda: nn.Conv2d(8, 8, 3, padding=1, groups=8),
        lambda: nn.Conv1d(5, 7, 3, padding=1),
        lambda: nn.Linear(5, 8),
    ],
)
def test_delta_orthogonal_is_an_isometry(layer: Callable[[], Any]) -> None:
    """Any two inputs keep their inner product, times gain²; the neighbours of a pixel are not looked at."""
    module = layer()
    delta_orthogonal_init(module, gain=0.5)
    size = {2: (), 3: (6,), 4: (6, 6)}[module.weight.dim()]
    first, second = torch.randn(2, getattr(module, "in_channels", None) or module.in_features, *size)
    out_first, out_second = apply(module, torch.stack([first, second]))
    assert (out_first * out_second).sum().item() == pytest.approx(0.25 * (first * second).sum().item(), abs=1e-4)
    assert out_first.norm().item() == pytest.approx(0.5 * first.norm().item(), rel=1e-5)


def test_delta_orthogonal_matrices_differ_between_groups_and_have_both_signs() -> None:
    """A depthwise layer gets ±gain at random, not one sign for all."""
    conv = nn.Conv2d(64, 64, 3, groups=64)
    delta_orthogonal_init(conv, gain=2)
    centres = conv.weight[:, 0, 1, 1]
    assert centres.abs().eq(2).all()
    assert 16 < int((centres > 0).sum()) < 48
    assert conv.weight.count_nonzero() == 64


def test_dirac_passes_channels_through() -> None:
    """As many channels as both sides have, within each group; a Linear layer becomes the identity."""
    images = torch.randn(2, 4, 5, 5)
    conv = nn.Conv2d(4, 6, 3, padding=1)
    dirac_init(conv)
    assert torch.equal(apply(conv, images), torch.cat([images, torch.zeros(2, 2, 5, 5)], 1))
    grouped = nn.Conv2d(4, 4, 3, padding=1, groups=2)
    dirac_init(grouped)
    assert torch.equal(apply(grouped, images), images)
    linear = nn.Linear(4, 4)
    dirac_init(linear)
    assert torch.equal(apply(linear, images[..., 0, 0]), images[..., 0, 0])


def test_hadamard_columns_are_orthogonal_signs() -> None:
    """H Hᵀ = n · I with entries ±1."""
    for size in (1, 2, 4, 32):
        matrix = hadamard(size)
        assert matrix.abs().eq(1).all()
        assert torch.equal(matrix @ matrix.T, size * torch.eye(size))


@pytest.mark.parametrize(("inputs", "outputs"), [(8, 8), (9, 4), (3, 16), (5, 12), (1, 8)])
def test_zero_ones_draws_nothing_and_breaks_the_symmetry_of_padding(inputs: int, outputs: int) -> None:
    """Zeros and one size of number; the identity where it can be; no output that is silent for every input."""
    state = torch.get_rng_state()
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    torch.set_rng_state(state)
    zero_ones_init(conv)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(set(conv.weight.detach().abs().flatten().tolist()) - {0.0}) == 1
    images = torch.randn(2, inputs, 4, 4)
    out = apply(conv, images)
    if outputs <= inputs:
        assert torch.equal(out, images[:, :outputs])
    else:
        assert out.flatten(2).norm(dim=2).min() > 0
        if outputs & (outputs - 1) == 0:  # a power of two: nothing is cut off the Hadamard matrix
            assert out.norm().item() == pytest.approx(images.norm().item(), rel=1e-5)


def test_fixup_makes_blocks_with_a_norm_silent() -> None:
    """Each block returns its skip; the last convolutions shrink by the root of the number of blocks that have one."""
    with_skip, without = InvertedResidual(8, 8, 1, 4), InvertedResidual(8, 16, 2, 4)
    blocks: list[nn.Module] = [BasicBlock(8, 8), BasicBlock(8, 16, stride=2), with_skip, without]
    for block in blocks:
        block.apply(lambda module: kaiming_init(module) if isinstance(module, nn.Conv2d) else None)
    last = [
        *(block.get_parameter("conv2.weight") for block in blocks[:2]),
        *(block.get_parameter("conv.6.weight") for block in blocks[2:]),
    ]
    before = [weight.norm().item() for weight in last]
    touched = fixup_init(blocks)
    ratios = [weight.norm().item() / old for weight, old in zip(last, before, strict=True)]
    assert ratios == pytest.approx([3**-0.5] * 3 + [1])
    assert len(touched) == 6
    images = torch.rand(2, 8, 6, 6)
    assert torch.equal(apply(blocks[0], images), images)
    assert torch.equal(apply(with_skip, images), images)
    assert apply(without, images).std() > 0.5
    projection = blocks[1].get_submodule("shortcut")
    assert torch.equal(apply(blocks[1], images), F.relu(apply(projection, images)))


class Bare(nn.Module):
    """A residual block without norms, as Fixup was made for."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(4, 4) for _ in range(3)))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.layers(x)
        return out


def test_fixup_without_norms_follows_the_papers_rules() -> None:
    """m = 3 layers in each of L = 16 branches: the last is zero, the others are scaled by 16^(-1/4) = 1/2."""
    blocks: list[nn.Module] = [Bare() for _ in range(16)]
    for block in blocks:
        for index in range(3):
            nn.init.ones_(block.get_parameter(f"layers.{index}.weight"))
            nn.init.zeros_(block.get_parameter(f"layers.{index}.bias"))
    fixup_init(blocks)
    for block in blocks:
        values = [set(block.get_parameter(f"layers.{index}.weight").flatten().tolist()) for index in range(3)]
        assert values == [{0.5}, {0.5}, {0.0}]
        vectors = torch.randn(3, 4)
        assert torch.equal(apply(block, vectors), vectors)


class PreActivation(nn.Module):
    """Norm and ReLU before each convolution: the branch ends in a convolution (He et al. 2016)."""

    def __init__(self, skip_first: bool = False) -> None:
        super().__init__()
        if skip_first:
            self.skip = nn.Identity()
        self.bn1, self.conv1 = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1, bias=False)
        if not skip_first:
            self.skip = nn.Identity()  # registered last: was taken for the end of the branch

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv1(F.relu(self.bn1(x)))
        out = self.conv2(F.relu(self.bn2(out)))
        out += self.skip(x)
        return out


class Projected(nn.Module):
    """A skip through a convolution and a norm, called by no name that one could know, and registered last."""

    def __init__(self, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(4, 8, 3, padding=1), norm(8)
        self.conv2, self.norm2 = nn.Conv2d(8, 8, 3, padding=1), norm(8)
        self.proj, self.norm3 = nn.Conv2d(4, 8, 1), norm(8)

    def forward(self, x: Tensor) -> Tensor:
        branch: Tensor = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(branch + self.norm3(self.proj(x)))


class Encoder(nn.Module):
    """Two additions in one block, as in a transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.mix = nn.LayerNorm(4), nn.Linear(4, 4)
        self.norm2, self.mlp = nn.LayerNorm(4), nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4), nn.Dropout())

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mix(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class ActivationLast(nn.Module):
    """An activation stands between the norm and the addition: a norm of zero would be dead for ever."""

    def __init__(self, norm: nn.Module | None = None, act: nn.Module | None = None) -> None:
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(4, 4, 3, padding=1), norm or nn.BatchNorm2d(4), act or nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.act(self.norm(self.conv(x)))
        return out


class Untraceable(nn.Module):
    """Its forward looks at values."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if x.sum() > 0 else x


class NoSkip(nn.Module):
    """Called a residual block, but without a skip, as timm's `has_skip` can say."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class NormAct(nn.BatchNorm2d):
    """A norm of timm's kind, which holds its activation, and computes on its own."""

    def __init__(self, width: int, act: nn.Module | None = None) -> None:
        super().__init__(width)
        self.drop, self.act = nn.Identity(), act or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        assert x.ndim == 4
        mean, variance = (None, None) if self.training else (self.running_mean, self.running_var)
        out: Tensor = self.act(self.drop(F.batch_norm(x, mean, variance, self.weight, self.bias, self.training)))
        return out


NORMS: list[Callable[[int], nn.Module]] = [
    nn.BatchNorm2d,
    nn.SyncBatchNorm,
    lambda width: nn.InstanceNorm2d(width, affine=True),
    lambda width: nn.GroupNorm(2, width),
    NormAct,
]


@pytest.mark.parametrize(
    "build",
    [
        PreActivation,
        lambda: PreActivation(skip_first=True),
        Encoder,
        *(lambda norm=norm: Projected(norm) for norm in NORMS),
    ],
)
def test_fixup_finds_the_branch_in_the_graph(build: Callable[[], nn.Module]) -> None:
    """Pre-activation blocks died for ever, and a child registered last was taken for the branch's end.

    The block is silent, and after one step of the parameters that it zeroed, gradients reach everything.
    """
    block = build()
    block.apply(lambda module: kaiming_init(module) if isinstance(module, nn.Conv2d | nn.Linear) else None)
    touched = fixup_init([block])
    assert touched
    block.eval()
    inputs = torch.randn(8, 4) if isinstance(block, Encoder) else torch.randn(4, 4, 6, 6)
    if not isinstance(block, Projected):
        assert torch.equal(apply(block, inputs), inputs)
    elif not isinstance(block.norm2, nn.SyncBatchNorm):
        skip = F.relu(apply(block.norm3, apply(block.proj, inputs)))
        torch.testing.assert_close(apply(block, inputs), skip)
    for _ in range(2):
        block.zero_grad()
        (block(inputs) * torch.randn_like(block(inputs))).sum().backward()
        for parameter in block.parameters():
            parameter.data -= 0.01 * (parameter.grad if parameter.grad is not None else 0)
    weights = {name: one for name, one in block.named_parameters() if one.dim() > 1}
    assert all(one.grad is not None and bool(one.grad.any()) for one in weights.values()), list(weights)


def test_fixup_leaves_alone_what_it_would_kill() -> None:
    """A norm before a ReLU and blocks without a skip are not zeroed; what is unknown is said, or refused."""
    cut, silent = NoSkip(), PreActivation()
    fixup_init([cut, silent])
    assert bool(cut.norm.weight.all())
    inside = ActivationLast(NormAct(4, nn.ReLU()), nn.Identity())
    odd_ones = (ActivationLast(), "something else"), (inside, "something else"), (Untraceable(), "cannot be traced")
    for odd, words in odd_ones:
        network = nn.Sequential(odd, PreActivation())
        before = {name: value.clone() for name, value in odd.named_parameters()}
        log = initialize(network, {"type": "Fixup", "layer": [type(odd).__name__, "PreActivation"]})
        assert any(words in warning for warning in log.warnings)
        assert all(torch.equal(value, before[name]) for name, value in odd.named_parameters())
        with pytest.raises(InitConfigError, match="no branch that ends"):
            initialize(odd, {"type": "Fixup", "layer": type(odd).__name__})


def test_zero_module_silences_and_returns_the_module() -> None:
    """Every parameter below is zero, so that a residual branch that ends in it adds nothing."""
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Linear(2, 2))
    assert zero_module(module) is module
    assert not any(parameter.any() for parameter in module.parameters())


def test_bias_for_a_probability() -> None:
    """Through a sigmoid the bias gives the probability back."""
    for prior in (0.01, 0.3, 0.5, 0.999):
        assert torch.sigmoid(torch.tensor(bias_init_with_prob(prior), dtype=torch.float64)).item() == pytest.approx(
            prior
        )


def test_zero_initialised_branches_learn() -> None:
    """Seed 003's question: from zero, one step later the filters differ from each other and from zero."""
    block = BasicBlock(4, 4)
    block.apply(lambda module: kaiming_init(module) if isinstance(module, nn.Conv2d) else None)
    zero_module(block.conv2)
    images, target = torch.randn(8, 4, 6, 6), torch.randn(8, 4, 6, 6)
    F.mse_loss(block(images), target).backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        assert block.conv2.weight.grad is not None
        block.conv2.weight -= 1e-4 * block.conv2.weight.grad
    filters = block.conv2.weight.detach().flatten(1)
    assert filters.norm(dim=1).min() > 0
    assert torch.pdist(F.normalize(filters)).min() > 0.1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_truncated_normal_in_reduced_precision_has_no_outliers(dtype: torch.dtype) -> None:
    """In bf16 the uniform numbers were rounded to -1, so that weights of std 0.02 held values of -2 (std 0.091)."""
    module = nn.Linear(500, 400).to(dtype)
    trunc_normal_init(module, std=0.02)
    weight = module.weight.detach().float()
    assert weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert weight.abs().max().item() < 0.12


def test_truncated_normal_warns_of_a_mean_far_outside() -> None:
    """Mean 5 with std 0.1 and the default bounds gave -2 everywhere, in silence."""
    with pytest.warns(UserWarning, match="more than 2 std"):
        trunc_normal_init(nn.Linear(3, 3), mean=5, std=0.1)


@pytest.mark.parametrize("groups", [1, 4])
def test_transposed_convolutions_have_their_fans_the_other_way_round(groups: int) -> None:
    """The variance of a ConvTranspose2d's weight was wrong by in / out: its shape is (in, out / groups, k, k)."""
    layer = nn.ConvTranspose2d(16, 256, 3, groups=groups)
    fan_in, fan_out = 16 // groups * 9, 256 // groups * 9
    lecun_normal_init(layer)
    assert layer.weight.var().item() == pytest.approx(1 / fan_in, rel=0.1)
    variance_scaling_init(layer, scale=2, mode="fan_out")
    assert layer.weight.var().item() == pytest.approx(2 / fan_out, rel=0.1)
    for mode, fan in (("fan_in", fan_in), ("fan_out", fan_out)):
        kaiming_init(layer, mode=mode, groups_correct=True)
        assert layer.weight.var().item() == pytest.approx(2 / fan, rel=0.1)


def test_types_may_have_the_scope_of_their_registry() -> None:
    """'mmengine.Kaiming' was unknown."""
    log = initialize(nn.Conv2d(3, 4, 3), {"type": "mmengine.Kaiming", "layer": "Conv2d"})
    assert not log.unset
