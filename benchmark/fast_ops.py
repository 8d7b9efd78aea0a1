"""Faster forms of single operations for training in bfloat16 on a CPU. Parameters and modules stay the same.

Every form here was measured to help (docs/trainer.md); one that a later torch makes superfluous can be deleted alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

_aten = torch.ops.aten


@contextmanager
def fast_ops(model: nn.Module, precision: str, device: torch.device) -> Iterator[None]:
    """Within this context the modules of `model` compute by the faster forms, where device and precision want them.

    A NaN may come out of a fast ReLU as a number: who looks for divergence must look at the parameters and buffers too.
    """
    patched: list[nn.Module] = []
    if device.type == "cpu" and precision == "bf16":
        for module in model.modules():
            forward = _faster_forward(module)
            if forward is not None:
                module.forward = forward
                patched.append(module)
    try:
        yield
    finally:
        for module in patched:
            del module.forward  # the class's own method shows again


def _faster_forward(module: nn.Module) -> Callable[[Tensor], Tensor] | None:
    if isinstance(module, nn.Conv2d) and _is_strided_depthwise(module):
        return partial(_strided_depthwise, module)
    if isinstance(module, nn.ReLU | nn.ReLU6) and module.inplace:
        return partial(_rectify, module.forward, isinstance(module, nn.ReLU6))
    return None


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


def _strided_depthwise(conv: nn.Conv2d, x: Tensor) -> Tensor:
    y: Tensor = _StridedDepthwise.apply(x.bfloat16(), conv.weight.bfloat16())  # type: ignore[no-untyped-call]
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
        grad_x = _aten.convolution_backward(between, x, weight, None, [1, 1], *rest, [True, False, False])[0]
        grad_weight = _aten.convolution_backward(grad, x, weight, None, [2, 2], *rest, [False, True, False])[1]
        return grad_x, grad_weight


def _rectify(plain: Callable[[Tensor], Tensor], at_six: bool, x: Tensor) -> Tensor:
    if x.dtype != torch.bfloat16:
        return plain(x)
    y: Tensor = _Rectifier.apply(x, at_six)  # type: ignore[no-untyped-call]
    return y


class _Rectifier(torch.autograd.Function):
    """ReLU or ReLU6 in place, on the bit patterns.

    Read as integers, bfloat16 numbers of at least 0 keep their order and those below 0 are negative, so clamping the
    integers clamps the numbers, without the detour over float32. The gradient needs the output only: no copy is kept.
    """

    SIX = 0x40C0  # bit pattern of 6.0

    @staticmethod
    def forward(ctx: Any, x: Tensor, at_six: bool) -> Tensor:
        x.view(torch.int16).clamp_(0, _Rectifier.SIX if at_six else None)
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        ctx.at_six = at_six
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (y,), (grad,) = ctx.saved_tensors, grads
        if ctx.at_six:
            return _aten.hardtanh_backward(grad, y, 0, 6), None
        bits = _aten.threshold_backward(grad.view(torch.int16), y.view(torch.int16), 0)
        return bits.view(torch.bfloat16), None
