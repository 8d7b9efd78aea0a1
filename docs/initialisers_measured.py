"""The three small tables of docs/initialisers.md: python docs/initialisers_measured.py (a minute on one core)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import nn

from benchmark.initializers import kaiming_init
from benchmark.models import BasicBlock


def depthwise_fan() -> Iterator[str]:
    """By which factor a gradient grows on its way back through a 512-channel 3×3 convolution, by number of groups."""
    torch.manual_seed(0)
    for groups in (1, 8, 64, 512):
        conv = nn.Conv2d(512, 512, 3, padding=1, groups=groups, bias=False, padding_mode="circular")
        cells = []
        for groups_correct in (False, True):
            kaiming_init(conv, groups_correct=groups_correct)
            images = torch.randn(8, 512, 8, 8, requires_grad=True)
            (gradient,) = torch.autograd.grad(conv(images), images, torch.randn(8, 512, 8, 8))
            cells.append(f"{conv.weight.std():.4f}, × {gradient.std():.3f}")
        yield f"{groups} | {' | '.join(cells)}"


def forgotten_scale(weight_decay: float, steps: int = 6000) -> str:
    """Ratio of a convolution's norms before a batch norm, started at four times He's scale and at it, by 1000 steps."""
    norms: list[list[float]] = []
    for scale in (1.0, 4.0):
        torch.manual_seed(0)
        conv = nn.Conv2d(3, 16, 3)
        rest = (nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
        network = nn.Sequential(conv, *rest)
        kaiming_init(conv)
        with torch.no_grad():
            conv.weight.mul_(scale)
        sgd = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=weight_decay)
        norms.append([])
        for step in range(steps + 1):
            if step % 1000 == 0:
                norms[-1].append(conv.weight.norm().item())
            labels = torch.randint(10, (32,))
            images = torch.randn(32, 3, 8, 8) + 0.3 * torch.eye(10)[labels][:, :3, None, None]
            sgd.zero_grad()
            torch.autograd.backward(F.cross_entropy(network(images), labels))
            sgd.step()
    return " | ".join(f"{large / small:.2f}" for small, large in zip(*norms, strict=True))


def movement(setup: Callable[[BasicBlock], object]) -> str:
    """Ten SGD steps on one residual block: how far its convolutions move, and which share of that differs by filter."""
    torch.manual_seed(0)
    block = BasicBlock(16, 16)
    setup(block)
    weights = [block.conv1.weight, block.conv2.weight]
    start = [weight.detach().clone() for weight in weights]
    images, target = torch.randn(32, 16, 8, 8), torch.randn(32, 16, 8, 8)
    sgd = torch.optim.SGD(block.parameters(), lr=0.01)
    for _ in range(10):
        sgd.zero_grad()
        torch.autograd.backward(F.mse_loss(block(images), target))
        sgd.step()
    cells = []
    for weight, old in zip(weights, start, strict=True):
        move = weight.detach() - old
        cells.append(f"{move.norm():.0e} | {(move - move.mean(0)).norm() / move.norm():.2f}" if move.any() else "0 | –")
    return " | ".join(cells)


def zeroed(*names: str) -> Callable[[BasicBlock], object]:
    """A setup that zeroes these parameters of a block and leaves the others as torch makes them."""
    return lambda block: [nn.init.zeros_(block.get_parameter(name)) for name in names]


def equal(block: BasicBlock) -> None:
    """A setup in which all weights of both convolutions are one number."""
    nn.init.constant_(block.conv1.weight, 0.05)
    nn.init.constant_(block.conv2.weight, 0.05)


STARTS: dict[str, Callable[[BasicBlock], object]] = {
    "random": zeroed(),
    "last norm's weight zero": zeroed("bn2.weight"),
    "last convolution zero": zeroed("conv2.weight"),
    "last convolution and last norm zero": zeroed("conv2.weight", "bn2.weight"),
    "both convolutions zero": zeroed("conv1.weight", "conv2.weight"),
    "all weights one number": equal,
}

if __name__ == "__main__":
    print("| start | first convolution: moved | differs | second: moved | differs |\n|---|---|---|---|---|")
    for start, setup in STARTS.items():
        print(f"| {start} | {movement(setup)} |")
    print("\n| weight decay | 0 | 1000 | 2000 | 3000 | 4000 | 5000 | 6000 |\n|---|---|---|---|---|---|---|---|")
    print(f"| 5e-4 | {forgotten_scale(5e-4)} |\n| 0 | {forgotten_scale(0.0)} |")
    print("\n| groups | std, gradient: as torch counts | std, gradient: `groups_correct=True` |\n|---|---|---|")
    for row in depthwise_fan():
        print(f"| {row} |")
