"""Faster forms of single operations for training in bfloat16 on a CPU. Results, parameters and modules stay the same.

Every form here was measured to help (docs/trainer.md); one that a later torch makes superfluous can be deleted alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def fast_ops(model: nn.Module, precision: str, device: torch.device) -> Iterator[None]:
    """Within this context the modules of `model` compute by the faster forms, where device and precision want them."""
    patched: list[nn.Module] = []
    if device.type == "cpu" and precision == "bf16":
        for module in model.modules():
            if isinstance(module, nn.Conv2d) and _is_strided_depthwise(module):
                module.forward = _StridedDepthwiseForward(module)  # type: ignore[method-assign, assignment]
                patched.append(module)
    try:
        yield
    finally:
        for module in patched:
            del module.forward  # the class's own method shows again


def _is_strided_depthwise(conv: nn.Conv2d) -> bool:
    return (
        conv.groups == conv.in_channels == conv.out_channels
        and conv.groups > 1
        and conv.stride == (2, 2)
        and conv.dilation == (1, 1)
        and conv.kernel_size == (3, 3)
        and conv.padding == (1, 1)
        and conv.padding_mode == "zeros"
        and conv.bias is None
    )


class _StridedDepthwiseForward:
    def __init__(self, conv: nn.Conv2d) -> None:
        self._conv = conv

    def __call__(self, x: Tensor) -> Tensor:
        y: Tensor = _StridedDepthwise.apply(x.bfloat16(), self._conv.weight.bfloat16())  # type: ignore[no-untyped-call]
        return y


class _StridedDepthwise(torch.autograd.Function):
    """Depthwise 3×3 convolution, stride 2, padding 1, whose gradient for the input is that of stride 1.

    oneDNN has no good bfloat16 kernel for the input gradient of a strided depthwise convolution (60 to 150 times
    slower than stride 1). A convolution of stride 2 is one of stride 1 of whose outputs every second is kept, so its
    input gradient is that of stride 1 for an output gradient with zeros in between: the same products, summed alike.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.conv2d(x, weight, None, 2, 1, 1, x.shape[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        (grad,) = grads
        between = torch.zeros_like(x)
        between[:, :, ::2, ::2] = grad
        rest = ([1, 1], [1, 1], False, [0, 0], x.shape[1])  # padding, dilation, transposed, output padding, groups
        convolution_backward = torch.ops.aten.convolution_backward
        grad_x = convolution_backward(between, x, weight, None, [1, 1], *rest, [True, False, False])[0]
        grad_weight = convolution_backward(grad, x, weight, None, [2, 2], *rest, [False, True, False])[1]
        return grad_x, grad_weight
