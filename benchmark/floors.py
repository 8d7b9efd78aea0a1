"""How fast a network could train at most on a device: its bytes at the memory's bandwidth, its operations at the peak.

Both are counted from the network itself, so the share of the floor is comparable between networks and cards.

    python -m benchmark.floors      what the Triton kernels need not read and write in a step, counted the same way
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmark.models import build_model

PASSES = 15
"""Times that a step reads or writes each activation of a convolution with its BN and ReLU, forwards and backwards."""
_BYTES = {"bf16": 2, "fp32": 4}
# Bytes and operations (bf16, dense) per second that are reached in practice. Those of the H100 were measured. The
# others are their data sheet's numbers times the share that the H100 reached of its own.
_CARDS = {
    "H200": (4.3e12, 6.0e14),
    "H100": (3.0e12, 6.0e14),
    "A100": (1.4e12, 1.9e14),
}


@dataclass(frozen=True)
class Work:
    """What one picture costs in one training step."""

    activations: int
    """Numbers that convolutions and Linear layers put out."""
    operations: int
    """Multiplications and additions, forwards and backwards."""


def count_work(arch: str, num_classes: int = 100) -> Work:
    """Count the work of a training step on one 32×32 picture: a backward pass costs twice a forward pass."""
    model = build_model(arch, num_classes).eval()
    activations = operations = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal activations, operations
        weight = module.weight
        assert isinstance(weight, Tensor)
        activations += output.numel()
        # Each number of the output is a sum over one filter; a Linear layer's filter is a row.
        operations += 2 * output.numel() * weight[0].numel()

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    with torch.inference_mode():
        model(torch.zeros(1, 3, 32, 32))
    return Work(activations, 3 * operations)


def floor(arch: str, device_name: str, precision: str) -> float | None:
    """Return the images per second that bytes and operations allow on a known card; None for another."""
    card = next((numbers for name, numbers in _CARDS.items() if name in device_name), None)
    if card is None:
        return None
    bandwidth, peak = card
    work = count_work(arch)
    seconds = max(PASSES * _BYTES[precision] * work.activations / bandwidth, work.operations / peak)
    return 1 / seconds


@dataclass(frozen=True)
class Traffic:
    """Bytes that layers with a Triton kernel read and write for one picture in a training step, if no cache helps."""

    torch: int
    """With torch's operations, each of which reads and writes its tensors once; a batch normalisation reads twice."""
    triton: int


def triton_traffic(arch: str, precision: str = "bf16") -> Traffic:
    """Count the bytes of batch normalisations, of the ReLUs joined to them, and of depthwise convolutions."""
    from benchmark.triton_layers import joined_activations, replaceable_depthwise

    model = build_model(arch, 100)
    images = torch.zeros(2, 3, 32, 32)
    joined = joined_activations(model, images, "fp32", torch.Generator())
    theirs = ours = 0

    def norm(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal theirs, ours
        # Forwards: statistics 1, normalise 2, ReLU 2. Backwards: ReLU 3, sums 2, gradient 3.
        theirs += output[0].numel() * (13 if module in joined else 8)
        ours += output[0].numel() * 8

    def convolution(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal theirs, ours
        # Forwards, input's gradient, weight's gradient: each has both sizes. Ours has one kernel for both gradients.
        read, written = inputs[0][0].numel(), output[0].numel()
        theirs += 3 * (read + written)
        ours += 3 * read + 2 * written

    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(norm)
        elif replaceable_depthwise(module):
            module.register_forward_hook(convolution)
    with torch.inference_mode():
        model.eval()(images)
    return Traffic(_BYTES[precision] * theirs, _BYTES[precision] * ours)


def main() -> None:
    """Print what the Triton kernels save in a step of 128 pictures in bfloat16."""
    for arch in ("resnet56", "vgg16bn", "mobilenetv2"):
        traffic = triton_traffic(arch)
        whole = PASSES * _BYTES["bf16"] * count_work(arch).activations
        megabytes = [128 * size / 1e6 for size in (traffic.torch, traffic.triton, traffic.torch - traffic.triton)]
        print(
            f"{arch:12} torch {megabytes[0]:,.0f} MB, triton {megabytes[1]:,.0f} MB, saved {megabytes[2]:,.0f} MB "
            f"a step of 128 pictures: {100 * (traffic.torch - traffic.triton) / whole:.0f} % of the floor's bytes"
        )


if __name__ == "__main__":
    main()
