"""The faster forms of operations compute what torch's own do."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.fast_ops import fast_ops
from benchmark.models import build_model
from benchmark.precision import resolve_precision

CPU = torch.device("cpu")


def channels_last(net: nn.Module) -> nn.Module:
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def images(*shape: int) -> Tensor:
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    return x.contiguous(memory_format=torch.channels_last)


def outputs_and_gradients(net: nn.Module, x: Tensor) -> list[Tensor]:
    x = x.bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = net(x)
    weights = list(net.parameters())
    target = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    return [y, *torch.autograd.grad((y.float() * target).sum(), [x, *weights])]


@pytest.mark.parametrize("inside", [nn.ReLU, nn.ReLU6])
def test_rectifiers_agree_bit_for_bit(inside: type[nn.ReLU] | type[nn.ReLU6]) -> None:
    """ReLU and ReLU6 in bfloat16: same outputs, same gradients, also at −0, 0, 6, beyond, and at infinity."""
    special = torch.tensor([-0.0, 0.0, 6.0, 6.03125, 5.96875, float("inf"), -float("inf"), 1e-40, -3.0])
    x = torch.cat([special, images(4, 3, 8, 8).flatten() * 5]).bfloat16()
    net = nn.Sequential(nn.Identity(), inside(inplace=True))

    def run() -> list[Tensor]:
        leaf = x.clone().requires_grad_()
        y = net(leaf * 1)
        return [y, *torch.autograd.grad(y, leaf, torch.arange(1.0, len(x) + 1).bfloat16())]

    plain = run()
    with fast_ops(net, "bf16", CPU):
        fast = run()
    assert all(torch.equal(a, b) for a, b in zip(plain, fast, strict=True))


@pytest.mark.parametrize("size", [8, 7])
def test_strided_depthwise_convolution_agrees(size: int) -> None:
    """Depthwise 3×3 at stride 2, even and odd maps: output exact, gradients within bfloat16's rounding."""
    torch.manual_seed(0)
    net = channels_last(nn.Conv2d(24, 24, 3, stride=2, padding=1, groups=24, bias=False))
    x = images(4, 24, size, size)
    plain = outputs_and_gradients(net, x)
    with fast_ops(net, "bf16", CPU):
        fast = outputs_and_gradients(net, x)
    assert torch.equal(plain[0], fast[0])
    for a, b in zip(plain, fast, strict=True):
        torch.testing.assert_close(a, b, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("size", [2, 4])
def test_wide_convolution_agrees(size: int) -> None:
    """A 3×3 convolution with over a million weights: everything within bfloat16's rounding of torch's own."""
    torch.manual_seed(0)
    net = channels_last(nn.Conv2d(512, 256, 3, padding=1, bias=False))
    x = images(3, 512, size, size)
    plain = outputs_and_gradients(net, x)
    with fast_ops(net, "bf16", CPU):
        fast = outputs_and_gradients(net, x)
    for a, b in zip(plain, fast, strict=True):
        assert (a.float() - b.float()).norm() < 0.01 * a.float().norm()


@pytest.mark.parametrize("arch", ["resnet20", "mobilenetv2", "vgg16bn"])
def test_networks_agree_and_are_left_as_they_were(arch: str) -> None:
    """A whole network gives the same loss with and without the fast forms, and keeps none of them afterwards."""
    torch.manual_seed(0)
    net = channels_last(build_model(arch, 10))
    names = [(name, tuple(parameter.shape)) for name, parameter in net.named_parameters()]
    net.eval()
    x, labels = images(4, 3, 32, 32), torch.arange(4)

    def loss() -> float:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return F.cross_entropy(net(x).float(), labels).item()

    plain = loss()
    with fast_ops(net, "bf16", CPU):
        assert any("forward" in vars(module) for module in net.modules())
        fast = loss()
    assert fast == pytest.approx(plain, rel=0.02)
    assert not any("forward" in vars(module) for module in net.modules())
    assert [(name, tuple(parameter.shape)) for name, parameter in net.named_parameters()] == names


def test_float32_is_left_alone() -> None:
    """Without bfloat16 nothing is replaced: torch's own operations are the fast ones there."""
    net = build_model("mobilenetv2", 10)
    with fast_ops(net, "fp32", CPU):
        assert not any("forward" in vars(module) for module in net.modules())


def test_precision_is_a_word_that_is_known() -> None:
    """`--precision fp16` is refused, naming the choices; "auto" is one of the two formats."""
    with pytest.raises(ValueError, match="auto, fp32, bf16"):
        resolve_precision("fp16", "cpu")
    assert resolve_precision("auto", "cpu") in ("fp32", "bf16")
    assert resolve_precision("fp32", "cpu") == "fp32"
