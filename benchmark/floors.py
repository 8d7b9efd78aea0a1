"""How fast a network could train at most on a device: its bytes at the memory's bandwidth, its operations at the peak.

Both are counted from the network itself, so the share of the floor is comparable between networks and cards.
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
