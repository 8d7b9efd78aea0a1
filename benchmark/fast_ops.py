"""Faster forms of single operations for training in bfloat16 on a CPU. Parameters and modules stay the same.

Every form here was measured to help (docs/trainer.md); one that a later torch makes superfluous can be deleted alone.
"""

from __future__ import annotations

import ctypes
import functools
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_aten = torch.ops.aten
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # <malloc.h>
_WIDE = 2**20
"""Convolutions with at least this many weights take the form for wide ones."""
_SMALL_MAP = 4
"""Maps of at most this many positions have the gradient of wide weights computed as a matrix product."""


@functools.cache
def keep_freed_memory() -> None:
    """Let this process keep the memory it frees, from now on (glibc; elsewhere nothing happens).

    Blocks over 32 MiB, such as MobileNetV2's activations, otherwise go back to the kernel at every step and come again
    page by page: 46,000 faults and a tenth of the step's time.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


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
    if isinstance(module, nn.Conv2d) and _is_plain_3x3(module):
        if module.stride == (2, 2) and module.groups == module.in_channels == module.out_channels > 1:
            return partial(_strided_depthwise, module)
        if module.stride == (1, 1) and module.groups == 1 and module.weight.numel() >= _WIDE:
            module.weight.data = module.weight.data.contiguous()
            return partial(_wide, module)
    if isinstance(module, nn.ReLU | nn.ReLU6) and module.inplace:
        return partial(_rectify, module.forward, isinstance(module, nn.ReLU6))
    return None


def _is_plain_3x3(conv: nn.Conv2d) -> bool:
    return (
        conv.kernel_size == (3, 3)
        and conv.padding == (1, 1)
        and conv.dilation == (1, 1)
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


def _wide(conv: nn.Conv2d, x: Tensor) -> Tensor:
    y: Tensor = _Wide.apply(x.bfloat16().contiguous(), conv.weight.bfloat16())  # type: ignore[no-untyped-call]
    return y.contiguous(memory_format=torch.channels_last)


class _Wide(torch.autograd.Function):
    """3×3 convolution, stride 1, padding 1, with more weights than activations, in NCHW.

    oneDNN packs the weights of every call; from channels_last that costs more than laying out these small activations
    anew. On maps of 2×2 the gradient of the weights is faster as one matrix product over unfolded windows.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.conv2d(x, weight, None, 1, 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        grad = grads[0].contiguous()
        small = x.shape[2] * x.shape[3] <= _SMALL_MAP
        grad_x, grad_weight, _ = _aten.convolution_backward(
            grad, x, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, not small, False]
        )
        if small:
            windows = F.unfold(x, 3, padding=1).transpose(1, 2).flatten(0, 1)  # (batch · positions, in · 9)
            grad_weight = (grad.flatten(2).transpose(0, 1).flatten(1) @ windows).view_as(weight)
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
