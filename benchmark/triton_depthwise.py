"""Depthwise 3×3 convolutions in Triton, forwards and backwards, for channels_last tensors on a GPU.

Stride 1 or 2, padding 1. The forward pass reads the input and writes the output once. One kernel computes both
gradients: for each number of the input it visits the (at most nine) output gradients that depend on it, so input and
output gradient are read once. Everything is summed in float32 and in an order that follows from the shape, so equal
inputs give equal bits. `benchmark.triton_norm` says what holds for all kernels.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from benchmark.triton_norm import channel_block, parts

_TILE, _GRADIENT_TILE = 2048, 1024
"""Numbers that a program handles at a time. The backward pass keeps nine sums for each."""
_MOST_PARTS, _FEWEST_TILES = 512, 4


@triton.jit
def _convolve(
    x_ptr,
    taps_ptr,
    y_ptr,
    positions,
    channels,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    OUT_HEIGHT: tl.constexpr,
    OUT_WIDTH: tl.constexpr,
    STRIDE: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """`taps` is the weight as (9, channels), so that threads read neighbours."""
    column = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = column < channels
    position = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    there = position < positions
    picture = position // (OUT_HEIGHT * OUT_WIDTH)
    top = position // OUT_WIDTH % OUT_HEIGHT * STRIDE - 1
    left = position % OUT_WIDTH * STRIDE - 1
    y = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    for tap in tl.static_range(9):
        row = top + tap // 3
        col = left + tap % 3
        read = there & (row >= 0) & (row < HEIGHT) & (col >= 0) & (col < WIDTH)
        offset = ((picture * HEIGHT + row) * WIDTH + col).to(tl.int64) * channels
        mask = read[:, None] & inside[None, :]
        x = tl.load(x_ptr + offset[:, None] + column[None, :], mask=mask, other=0.0).to(tl.float32)
        weight = tl.load(taps_ptr + tap * channels + column, mask=inside, other=0.0)
        y = tl.fma(x, weight[None, :], y)
    offset = position.to(tl.int64)[:, None] * channels + column[None, :]
    tl.store(y_ptr + offset, y.to(y_ptr.dtype.element_ty), mask=there[:, None] & inside[None, :])


@triton.jit
def _tap(
    grad_ptr,
    weight,
    x,
    out,
    product,
    picture,
    height,
    width,
    there,
    column,
    inside,
    channels,
    TAP: tl.constexpr,
    OUT_HEIGHT: tl.constexpr,
    OUT_WIDTH: tl.constexpr,
    STRIDE: tl.constexpr,
):
    """Add what one tap of the kernel contributes to the gradients of the input and of itself."""
    row = height + 1 - TAP // 3
    col = width + 1 - TAP % 3
    read = there & (row >= 0) & (row < OUT_HEIGHT * STRIDE) & (col >= 0) & (col < OUT_WIDTH * STRIDE)
    if STRIDE == 2:
        read = read & (row % 2 == 0) & (col % 2 == 0)
    offset = ((picture * OUT_HEIGHT + row // STRIDE) * OUT_WIDTH + col // STRIDE).to(tl.int64) * channels
    mask = read[:, None] & inside[None, :]
    grad = tl.load(grad_ptr + offset[:, None] + column[None, :], mask=mask, other=0.0).to(tl.float32)
    return tl.fma(grad, weight[None, :], out), tl.fma(grad, x, product)


@triton.jit
def _gradients(
    x_ptr,
    grad_ptr,
    taps_ptr,
    out_ptr,
    sums_ptr,
    positions,
    channels,
    tiles,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    OUT_HEIGHT: tl.constexpr,
    OUT_WIDTH: tl.constexpr,
    STRIDE: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """The input's gradient at a part of the positions, and this part's share of the weight's, (channels, 9)."""
    part = tl.program_id(0)
    column = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = column < channels
    lane = tl.arange(0, BLOCK_P)
    w0 = tl.load(taps_ptr + column, mask=inside, other=0.0)
    w1 = tl.load(taps_ptr + channels + column, mask=inside, other=0.0)
    w2 = tl.load(taps_ptr + 2 * channels + column, mask=inside, other=0.0)
    w3 = tl.load(taps_ptr + 3 * channels + column, mask=inside, other=0.0)
    w4 = tl.load(taps_ptr + 4 * channels + column, mask=inside, other=0.0)
    w5 = tl.load(taps_ptr + 5 * channels + column, mask=inside, other=0.0)
    w6 = tl.load(taps_ptr + 6 * channels + column, mask=inside, other=0.0)
    w7 = tl.load(taps_ptr + 7 * channels + column, mask=inside, other=0.0)
    w8 = tl.load(taps_ptr + 8 * channels + column, mask=inside, other=0.0)
    p0 = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    p1 = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    p2 = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    p3 = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    p4 = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    p5 = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    p6 = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    p7 = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    p8 = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    for tile in range(tiles):
        position = (part * tiles + tile) * BLOCK_P + lane
        there = position < positions
        n = position // (HEIGHT * WIDTH)
        h = position // WIDTH % HEIGHT
        w = position % WIDTH
        mask = there[:, None] & inside[None, :]
        offset = position.to(tl.int64)[:, None] * channels + column[None, :]
        x = tl.load(x_ptr + offset, mask=mask, other=0.0).to(tl.float32)
        y = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
        g = grad_ptr
        c = channels
        y, p0 = _tap(g, w0, x, y, p0, n, h, w, there, column, inside, c, 0, OUT_HEIGHT, OUT_WIDTH, STRIDE)
        y, p1 = _tap(g, w1, x, y, p1, n, h, w, there, column, inside, c, 1, OUT_HEIGHT, OUT_WIDTH, STRIDE)
        y, p2 = _tap(g, w2, x, y, p2, n, h, w, there, column, inside, c, 2, OUT_HEIGHT, OUT_WIDTH, STRIDE)
        y, p3 = _tap(g, w3, x, y, p3, n, h, w, there, column, inside, c, 3, OUT_HEIGHT, OUT_WIDTH, STRIDE)
        y, p4 = _tap(g, w4, x, y, p4, n, h, w, there, column, inside, c, 4, OUT_HEIGHT, OUT_WIDTH, STRIDE)
        y, p5 = _tap(g, w5, x, y, p5, n, h, w, there, column, inside, c, 5, OUT_HEIGHT, OUT_WIDTH, STRIDE)
        y, p6 = _tap(g, w6, x, y, p6, n, h, w, there, column, inside, c, 6, OUT_HEIGHT, OUT_WIDTH, STRIDE)
        y, p7 = _tap(g, w7, x, y, p7, n, h, w, there, column, inside, c, 7, OUT_HEIGHT, OUT_WIDTH, STRIDE)
        y, p8 = _tap(g, w8, x, y, p8, n, h, w, there, column, inside, c, 8, OUT_HEIGHT, OUT_WIDTH, STRIDE)
        tl.store(out_ptr + offset, y.to(out_ptr.dtype.element_ty), mask=mask)
    at = sums_ptr + (part * channels + column) * 9
    tl.store(at, tl.sum(p0, 0), mask=inside)
    tl.store(at + 1, tl.sum(p1, 0), mask=inside)
    tl.store(at + 2, tl.sum(p2, 0), mask=inside)
    tl.store(at + 3, tl.sum(p3, 0), mask=inside)
    tl.store(at + 4, tl.sum(p4, 0), mask=inside)
    tl.store(at + 5, tl.sum(p5, 0), mask=inside)
    tl.store(at + 6, tl.sum(p6, 0), mask=inside)
    tl.store(at + 7, tl.sum(p7, 0), mask=inside)
    tl.store(at + 8, tl.sum(p8, 0), mask=inside)


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        pictures, channels, height, width = x.shape
        taps = weight.reshape(channels, 9).t().contiguous()
        out_height, out_width = (height - 1) // stride + 1, (width - 1) // stride + 1
        y = torch.empty(
            (pictures, channels, out_height, out_width),
            dtype=x.dtype,
            device=x.device,
            memory_format=torch.channels_last,
        )
        block = channel_block(channels)
        tile, positions = _TILE // block, pictures * out_height * out_width
        sizes = (height, width, out_height, out_width, stride)
        _convolve[triton.cdiv(positions, tile), triton.cdiv(channels, block)](
            x, taps, y, positions, channels, *sizes, BLOCK_P=tile, BLOCK_C=block
        )
        ctx.save_for_backward(x, taps)
        ctx.sizes = sizes
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, taps = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        channels = x.shape[1]
        block = channel_block(channels)
        tile, positions, blocks = _GRADIENT_TILE // block, x.numel() // channels, triton.cdiv(channels, block)
        count, each = parts(triton.cdiv(positions, tile), blocks, _MOST_PARTS, _FEWEST_TILES)
        out = torch.empty_like(x, memory_format=torch.channels_last)
        partial = x.new_empty((count, channels, 9), dtype=torch.float32)
        _gradients[count, blocks](
            x, grad, taps, out, partial, positions, channels, each, *ctx.sizes, BLOCK_P=tile, BLOCK_C=block
        )
        return out, partial.sum(0).view(channels, 1, 3, 3), None


def depthwise(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Convolve x (N, C, H, W), fp32 or bf16, with float32 weights (C, 1, 3, 3), stride 1 or 2, padding 1.

    The result has x's type and is channels_last. The weights are not rounded to bfloat16, as autocast does.
    """
    y: Tensor = _Depthwise.apply(x.contiguous(memory_format=torch.channels_last), weight, stride)  # type: ignore[no-untyped-call]
    return y
