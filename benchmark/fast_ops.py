"""Faster versions of single operations for training in bfloat16 on a CPU. Parameters and modules stay the same.

Measurements show that each version helps (docs/trainer.md). If a later torch makes one superfluous, delete only that.
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
"""Convolutions with at least this many weights use `_Wide`."""
_SMALL_MAP = 4
"""On maps of at most this many positions, `_Wide` computes the weights' gradient as a matrix product."""


def fastest_layout(model: nn.Module) -> torch.memory_format:
    """channels_last for a network of at most 4-d tensors; 3-d convolutions have another format, so they keep theirs."""
    flat = all(value.dim() < 5 for value in (*model.parameters(), *model.buffers()))
    return torch.channels_last if flat else torch.preserve_format


@functools.cache
def keep_freed_memory() -> None:
    """Let this process keep freed memory from now on. Works with glibc, does nothing with other C libraries.

    Otherwise blocks over 32 MiB, such as MobileNetV2's activations, return to the kernel at every step and come back
    page by page: 46,000 page faults and a tenth of the step's time.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


@contextmanager
def fast_ops(model: nn.Module, precision: str, device: torch.device) -> Iterator[None]:
    """Within this context the modules of `model` use the faster versions, if they apply to device and precision.

    A fast ReLU may turn a NaN into a number. So check parameters and buffers too when you look for divergence.
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
            del module.forward  # restores the class's method


def _faster_forward(module: nn.Module) -> Callable[[Tensor], Tensor] | None:
    if type(module) is nn.Conv2d and not module._forward_pre_hooks and is_plain_3x3(module):
        if module.stride == (2, 2) and module.groups == module.in_channels == module.out_channels > 1:
            return partial(_strided_depthwise, module)
        if module.stride == (1, 1) and module.groups == 1 and module.weight.numel() >= _WIDE:
            module.weight.data = module.weight.data.contiguous()
            return partial(_wide, module)
    if isinstance(module, nn.ReLU | nn.ReLU6) and module.inplace:
        return partial(_rectify, module.forward, isinstance(module, nn.ReLU6))
    return None


def is_plain_3x3(conv: nn.Conv2d) -> bool:
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
    """Depthwise 3×3 convolution, stride 2, padding 1, which computes its input gradient with stride 1.

    oneDNN's bfloat16 kernel for the input gradient of a strided depthwise convolution is 60 to 150 times slower than
    that for stride 1. A convolution of stride 2 equals one of stride 1 that keeps every second output. So its input
    gradient equals that of stride 1 for an output gradient with zeros in between: the same products in the same sum.
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

    oneDNN packs the weights in every call. From channels_last this costs more than converting these small activations
    to NCHW. On 2×2 maps, one matrix product over unfolded windows computes the weights' gradient faster.
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
    """ReLU or ReLU6 in place, computed on the bit patterns.

    As integers, bfloat16 numbers from 0 up keep their order and those below 0 are negative. So clamping the integers
    clamps the numbers, without a conversion to float32. The gradient needs only the output, so no copy is kept.
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
