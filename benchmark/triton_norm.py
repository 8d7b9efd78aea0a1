"""Batch normalisation and the ReLU after it in Triton, forwards and backwards, for channels_last tensors on a GPU.

A tensor (N, C, H, W) in channels_last is a matrix of N·H·W rows and C columns. A training step reads or writes it
eight times: once for the statistics, twice to normalise and rectify, twice for the sums that the gradient needs, three
times for the gradient. torch's separate operations do so thirteen times. Sums are made in float32 in two stages, in an
order that follows from the shape, so equal inputs give equal bits. Nothing here waits for the GPU, times a kernel or
draws a number, so a CUDA graph can hold all of it after a first run has compiled it.

Importing this module needs the package triton. Under TRITON_INTERPRET=1 the kernels run on a CPU, slowly.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

ACTIVATIONS = {"none": 0, "relu": 1, "relu6": 2}
_TILE = 2048
"""Numbers that a program handles at a time: 16 for each of its 128 threads."""
_PROGRAMS, _MOST_PARTS, _FEWEST_TILES = 1024, 512, 2
"""A reduction has about so many programs, at most so many parts for each channel, and so many tiles in a part."""


def channel_block(channels: int) -> int:
    """Return how many channels a program handles: a power of two that leaves few threads idle, at most 64."""
    if channels <= 32:
        return int(triton.next_power_of_2(channels))
    return 64 if triton.cdiv(channels, 64) * 2 == triton.cdiv(channels, 32) else 32


def parts(tiles: int, blocks: int, most: int, fewest_tiles: int) -> tuple[int, int]:
    """Cut `tiles` into parts for the two stages of a sum: their number, and the tiles of each (fewer in the last)."""
    wanted = max(1, min(_PROGRAMS // blocks, most, tiles // fewest_tiles))
    each = triton.cdiv(tiles, wanted)
    return triton.cdiv(tiles, each), each


@triton.jit
def _activated(x, mean, scale, bias, ACT: tl.constexpr):
    """Normalise and activate. A NaN stays one, as in torch. With fma, all kernels get the same bits."""
    y = tl.fma(x - mean, scale, bias)
    if ACT >= 1:
        y = tl.where(y < 0, 0.0, y)
    if ACT == 2:
        y = tl.where(y > 6, 6.0, y)
    return y


@triton.jit
def _let_through(grad, x, mean, scale, bias, ACT: tl.constexpr, DTYPE: tl.constexpr):
    """The gradient before the activation. The normalised number is made anew and rounded as the forward pass did."""
    if ACT >= 1:
        y = tl.fma(x - mean, scale, bias).to(DTYPE).to(tl.float32)
        grad = tl.where(y <= 0, 0.0, grad)
        if ACT == 2:
            grad = tl.where(y >= 6, 0.0, grad)
    return grad


@triton.jit
def _moments(x_ptr, mean_ptr, square_ptr, rows, channels, tiles, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr):
    """Mean and sum of squared deviations of each channel over a part of the rows, by Welford's method."""
    part = tl.program_id(0)
    column = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = column < channels
    row = tl.arange(0, BLOCK_R)
    mean = tl.zeros([BLOCK_R, BLOCK_C], tl.float32)
    square = tl.zeros([BLOCK_R, BLOCK_C], tl.float32)
    count = tl.zeros([BLOCK_R], tl.float32)
    for tile in range(tiles):
        start = (part * tiles + tile) * BLOCK_R
        there = start + row < rows
        mask = there[:, None] & inside[None, :]
        offset = (start + row).to(tl.int64) * channels
        x = tl.load(x_ptr + offset[:, None] + column[None, :], mask=mask, other=0.0).to(tl.float32)
        count += there.to(tl.float32)
        delta = tl.where(mask, x - mean, 0.0)
        mean += delta * (1.0 / tl.maximum(count, 1.0))[:, None]
        square += delta * tl.where(mask, x - mean, 0.0)
    total = tl.maximum(tl.sum(count, 0), 1.0)
    joint = tl.sum(mean * count[:, None], 0) / total
    delta = mean - joint[None, :]
    joint_square = tl.sum(square + delta * delta * count[:, None], 0)
    tl.store(mean_ptr + part * channels + column, joint, mask=inside)
    tl.store(square_ptr + part * channels + column, joint_square, mask=inside)


@triton.jit
def _statistics(
    mean_ptr,
    square_ptr,
    out_ptr,
    running_mean_ptr,
    running_var_ptr,
    batches_ptr,
    rows,
    channels,
    part_rows,
    eps,
    momentum,
    UPDATE: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Join the parts: `out` has the mean and the inverse standard deviation. Update the buffers as torch does."""
    column = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = column < channels
    part = tl.arange(0, PARTS)
    count = tl.minimum(tl.maximum(rows - part * part_rows, 0), part_rows).to(tl.float32)
    mask = (count > 0)[:, None] & inside[None, :]
    offset = part[:, None] * channels + column[None, :]
    means = tl.load(mean_ptr + offset, mask=mask, other=0.0)
    squares = tl.load(square_ptr + offset, mask=mask, other=0.0)
    mean = tl.sum(means * count[:, None], 0) / rows
    delta = means - mean[None, :]
    square = tl.sum(squares + delta * delta * count[:, None], 0)
    tl.store(out_ptr + column, mean, mask=inside)
    tl.store(out_ptr + channels + column, 1.0 / tl.sqrt(square / rows + eps), mask=inside)
    if UPDATE:
        old_mean = tl.load(running_mean_ptr + column, mask=inside)
        tl.store(running_mean_ptr + column, momentum * mean + (1.0 - momentum) * old_mean, mask=inside)
        old_var = tl.load(running_var_ptr + column, mask=inside)
        new_var = momentum * (square / (rows - 1)) + (1.0 - momentum) * old_var
        tl.store(running_var_ptr + column, new_var, mask=inside)
        if tl.program_id(0) == 0:
            tl.store(batches_ptr, tl.load(batches_ptr) + 1)


@triton.jit
def _normalise(
    x_ptr,
    y_ptr,
    stats_ptr,
    weight_ptr,
    bias_ptr,
    rows,
    channels,
    ACT: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    row = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    column = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = column < channels
    mask = (row < rows)[:, None] & inside[None, :]
    offset = row.to(tl.int64)[:, None] * channels + column[None, :]
    mean = tl.load(stats_ptr + column, mask=inside, other=0.0)
    inverse = tl.load(stats_ptr + channels + column, mask=inside, other=0.0)
    scale = inverse * tl.load(weight_ptr + column, mask=inside, other=0.0)
    bias = tl.load(bias_ptr + column, mask=inside, other=0.0)
    x = tl.load(x_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    y = _activated(x, mean[None, :], scale[None, :], bias[None, :], ACT)
    tl.store(y_ptr + offset, y.to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _gradient_sums(
    x_ptr,
    grad_ptr,
    sums_ptr,
    stats_ptr,
    weight_ptr,
    bias_ptr,
    rows,
    channels,
    tiles,
    ACT: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Over a part of the rows: the sum of the gradient, and of its product with the normalised input."""
    part = tl.program_id(0)
    column = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = column < channels
    row = tl.arange(0, BLOCK_R)
    mean = tl.load(stats_ptr + column, mask=inside, other=0.0)[None, :]
    inverse = tl.load(stats_ptr + channels + column, mask=inside, other=0.0)[None, :]
    scale = inverse * tl.load(weight_ptr + column, mask=inside, other=0.0)[None, :]
    bias = tl.load(bias_ptr + column, mask=inside, other=0.0)[None, :]
    plain = tl.zeros([BLOCK_R, BLOCK_C], tl.float32)
    product = tl.zeros([BLOCK_R, BLOCK_C], tl.float32)
    for tile in range(tiles):
        start = (part * tiles + tile) * BLOCK_R
        mask = (start + row < rows)[:, None] & inside[None, :]
        offset = (start + row).to(tl.int64)[:, None] * channels + column[None, :]
        x = tl.load(x_ptr + offset, mask=mask, other=0.0).to(tl.float32)
        grad = tl.load(grad_ptr + offset, mask=mask, other=0.0).to(tl.float32)
        grad = _let_through(grad, x, mean, scale, bias, ACT, x_ptr.dtype.element_ty)
        plain += grad
        product += grad * ((x - mean) * inverse)
    at = sums_ptr + part * 2 * channels + column
    tl.store(at, tl.sum(plain, 0), mask=inside)
    tl.store(at + channels, tl.sum(product, 0), mask=inside)


@triton.jit
def _gradient(
    x_ptr,
    grad_ptr,
    out_ptr,
    sums_ptr,
    stats_ptr,
    weight_ptr,
    bias_ptr,
    rows,
    channels,
    ACT: tl.constexpr,
    BATCH: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """The gradient of the input; with BATCH also through the statistics (Ioffe & Szegedy 2015, section 3)."""
    row = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    column = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = column < channels
    mask = (row < rows)[:, None] & inside[None, :]
    offset = row.to(tl.int64)[:, None] * channels + column[None, :]
    mean = tl.load(stats_ptr + column, mask=inside, other=0.0)[None, :]
    inverse = tl.load(stats_ptr + channels + column, mask=inside, other=0.0)[None, :]
    scale = inverse * tl.load(weight_ptr + column, mask=inside, other=0.0)[None, :]
    bias = tl.load(bias_ptr + column, mask=inside, other=0.0)[None, :]
    x = tl.load(x_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    grad = tl.load(grad_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    grad = _let_through(grad, x, mean, scale, bias, ACT, x_ptr.dtype.element_ty)
    if BATCH:
        plain = tl.load(sums_ptr + column, mask=inside, other=0.0)[None, :] / rows
        product = tl.load(sums_ptr + channels + column, mask=inside, other=0.0)[None, :] / rows
        grad = grad - plain - (x - mean) * inverse * product
    tl.store(out_ptr + offset, (grad * scale).to(out_ptr.dtype.element_ty), mask=mask)


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        buffers: tuple[Tensor, Tensor, Tensor],
        batch: bool,
        update: bool,
        momentum: float,
        eps: float,
        act: int,
    ) -> Tensor:
        rows, channels = x.numel() // x.shape[1], x.shape[1]
        block = channel_block(channels)
        tile, blocks = _TILE // block, triton.cdiv(channels, block)
        if batch:
            count, each = parts(triton.cdiv(rows, tile), blocks, _MOST_PARTS, _FEWEST_TILES)
            moments = x.new_empty((2, count, channels), dtype=torch.float32)
            _moments[count, blocks](x, moments[0], moments[1], rows, channels, each, BLOCK_R=tile, BLOCK_C=block)
            stats = x.new_empty((2, channels), dtype=torch.float32)
            held = triton.next_power_of_2(count)
            few = min(block, max(1, 2 * _TILE // held))
            _statistics[(triton.cdiv(channels, few),)](
                *(moments[0], moments[1], stats, *buffers, rows, channels, each * tile, eps, momentum),
                UPDATE=update,
                PARTS=held,
                BLOCK_C=few,
            )
        else:
            stats = torch.stack([buffers[0], torch.rsqrt(buffers[1] + eps)])
        y = torch.empty_like(x, memory_format=torch.channels_last)
        _normalise[triton.cdiv(rows, tile), blocks](
            x, y, stats, weight, bias, rows, channels, ACT=act, BLOCK_R=tile, BLOCK_C=block
        )
        ctx.save_for_backward(x, weight, bias, stats)
        ctx.batch, ctx.act = batch, act
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, stats = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        rows, channels = x.numel() // x.shape[1], x.shape[1]
        block = channel_block(channels)
        tile, blocks = _TILE // block, triton.cdiv(channels, block)
        count, each = parts(triton.cdiv(rows, tile), blocks, _MOST_PARTS, _FEWEST_TILES)
        partial = x.new_empty((count, 2, channels), dtype=torch.float32)
        sizes: dict[str, int] = {"ACT": ctx.act, "BLOCK_R": tile, "BLOCK_C": block}
        _gradient_sums[count, blocks](x, grad, partial, stats, weight, bias, rows, channels, each, **sizes)
        sums = partial.sum(0)
        out = torch.empty_like(x, memory_format=torch.channels_last)
        _gradient[triton.cdiv(rows, tile), blocks](
            x, grad, out, sums, stats, weight, bias, rows, channels, BATCH=ctx.batch, **sizes
        )
        return out, sums[1], sums[0], None, None, None, None, None, None


def batch_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    buffers: tuple[Tensor, Tensor, Tensor],
    *,
    batch: bool,
    update: bool,
    momentum: float,
    eps: float,
    activation: str = "none",
) -> Tensor:
    """Normalise x (N, C, H, W), fp32 or bf16, and apply `activation`, a key of `ACTIVATIONS`. The format is x's.

    `weight`, `bias`: float32 (C,). `buffers`: running mean and variance, float32 (C,), and the count of batches, int64.
    `batch`: normalise by the batch, else by the buffers. `update`: change the buffers as torch does in training.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    y: Tensor = _BatchNorm.apply(  # type: ignore[no-untyped-call]
        x, weight, bias, buffers, batch, update, momentum, eps, ACTIVATIONS[activation]
    )
    return y
