"""Initialisers of one tensor: in place, without gradients, named like those of `torch.nn.init`.

They use no names but torch, nn and math, so that their source can be copied into a region text (see `export`).
`groups` is that of the convolution; a grouped weight has shape (out, in / groups, *kernel).
"""

from __future__ import annotations

import math

import torch
from torch import nn


def fans(tensor: torch.Tensor, groups: int = 1, transposed: bool = False) -> tuple[int, int]:
    """(fan_in, fan_out): how many inputs reach an output of this weight, and how many outputs one input reaches.

    fan_in = in / groups · |kernel|, fan_out = out / groups · |kernel|. torch's own fan_out leaves out `groups`.
    The weight of a transposed convolution has the shape (in, out / groups, *kernel). Strides are not counted.
    Raises ValueError for a tensor of fewer than two dimensions. Source: He et al. 2015, sections 2.2; PyTorch issue
    23854 for groups.
    """
    if tensor.dim() < 2:
        raise ValueError(f"a tensor of shape {tuple(tensor.shape)} has no fan: it needs two dimensions or more")
    receptive_field = math.prod(tensor.shape[2:])
    behind, ahead = tensor.shape[1] * receptive_field, tensor.shape[0] // groups * receptive_field
    return (ahead, behind) if transposed else (behind, ahead)


def trunc_normal_(tensor: torch.Tensor, mean: float = 0, std: float = 1, a: float = -2, b: float = 2) -> torch.Tensor:
    """Fill with N(mean, std²) restricted to [a, b]; a and b are absolute, not in units of std.

    Inverse-CDF sampling: x = mean + std · √2 · erfinv(u), u uniform on [2Φ(α)-1, 2Φ(β)-1], α, β = (a, b - mean) / std.
    The same numbers as MMEngine 0.10.7 for the same seed; torch 2.13's own function samples by rejection and differs.
    Reduced precision is drawn in float32 and rounded: in bfloat16 the uniform number itself is often rounded to ±1,
    whose erfinv is infinite. Warns as torch does when `mean` lies more than two std outside [a, b]: all mass is then
    in the tails, and the numbers pile up at a bound.
    """
    nn.init.trunc_normal_(torch.empty(0), mean, std, a, b)  # draws nothing: only for its warning
    lower, upper = (math.erf((bound - mean) / std / math.sqrt(2.0)) for bound in (a, b))
    # Via Φ and back, as MMEngine does: the detour decides the last bit.
    lower, upper = (2 * ((1.0 + value) / 2.0) - 1 for value in (lower, upper))
    with torch.no_grad():
        reduced = tensor.dtype in (torch.float16, torch.bfloat16)
        drawn = torch.empty_like(tensor, dtype=torch.float32) if reduced else tensor
        drawn.uniform_(lower, upper).erfinv_().mul_(std * math.sqrt(2.0)).add_(mean).clamp_(a, b)
        return tensor.copy_(drawn) if reduced else tensor


def orthogonal_(tensor: torch.Tensor, gain: float = 1) -> torch.Tensor:
    """Fill with gain · Q, where the rows or columns (the fewer) of Q as a matrix (out, rest) are orthonormal.

    Reduced precision is drawn in float32 and rounded, since LAPACK has no QR for it. A tensor in another memory format,
    such as channels_last, is drawn in the usual one, because torch's function writes to no other.
    Source: Saxe et al. 2013, "Exact solutions to the nonlinear dynamics of learning in deep linear neural networks".
    """
    with torch.no_grad():
        reduced = tensor.dtype in (torch.float16, torch.bfloat16)
        if reduced or not tensor.is_contiguous():
            drawn = torch.empty(tensor.shape, dtype=torch.float32 if reduced else tensor.dtype, device=tensor.device)
            return tensor.copy_(nn.init.orthogonal_(drawn, gain))
        return nn.init.orthogonal_(tensor, gain)


def kernel_centre(tensor: torch.Tensor) -> torch.Tensor:
    """The matrix (out, in / groups) at the middle of a convolution's kernel, as a view; a matrix is its own."""
    for size in tensor.shape[2:]:
        tensor = tensor[:, :, size // 2]
    return tensor


def delta_orthogonal_(tensor: torch.Tensor, gain: float = 1, groups: int = 1) -> torch.Tensor:
    """Zero but for the kernel's centre, which holds gain · Q, one random orthogonal Q for each group.

    With stride 1 and out ≥ in the layer multiplies the norm of every input by `gain` exactly. Where out < in the rows
    of Q are orthonormal, so the layer keeps the norm of its gradients instead (the paper excludes that case).
    Also for matrices, where it equals an orthogonal initialisation.
    Source: Xiao et al. 2018, "Dynamical Isometry and a Mean Field Theory of CNNs", algorithm 2.
    """
    outputs, inputs = tensor.shape[0] // groups, tensor.shape[1]
    with torch.no_grad():
        q, r = torch.linalg.qr(torch.randn(groups, max(outputs, inputs), min(outputs, inputs), device=tensor.device))
        q = q * r.diagonal(dim1=1, dim2=2).sign().unsqueeze(1)  # makes Q uniform over orthogonal matrices
        matrix = (q if outputs >= inputs else q.mT).reshape(groups * outputs, inputs)
        kernel_centre(tensor.zero_()).copy_(gain * matrix)
    return tensor


def dirac_(tensor: torch.Tensor, groups: int = 1) -> torch.Tensor:
    """Output channel i of each group passes input channel i through, as far as there are both; the rest is zero.

    For a matrix it is the identity. Source: Zagoruyko & Komodakis 2017, "DiracNets", section 3.
    """
    return nn.init.eye_(tensor) if tensor.dim() == 2 else nn.init.dirac_(tensor, groups)


def hadamard(size: int) -> torch.Tensor:
    """Sylvester's Hadamard matrix, (size, size) float32 with entries ±1 and H Hᵀ = size · I; a power of two."""
    matrix = torch.ones(1, 1)
    while len(matrix) < size:
        matrix = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), matrix)
    return matrix


def zero_ones_(tensor: torch.Tensor, groups: int = 1) -> torch.Tensor:
    """ZerO: a partial identity at the kernel's centre, or orthonormal Hadamard columns where a layer widens.

    With m = out / groups and n = in / groups: I if m ≤ n, else the left n columns of the first m rows of H / √p, where
    p is the power of two from m on. It draws no random numbers.
    Source: Zhao et al. 2021, "ZerO Initialization", algorithms 1 and 2; the factor is that of the authors' code.
    """
    outputs, inputs = tensor.shape[0] // groups, tensor.shape[1]
    if outputs <= inputs:
        matrix = torch.eye(outputs, inputs)
    else:
        size = 2 ** math.ceil(math.log2(outputs))
        matrix = hadamard(size)[:outputs, :inputs] / math.sqrt(size)
    with torch.no_grad():
        kernel_centre(tensor.zero_()).copy_(matrix.repeat(groups, 1))
    return tensor


def variance_scaling_(
    tensor: torch.Tensor,
    scale: float = 1,
    mode: str = "fan_in",
    distribution: str = "truncated_normal",
    groups: int = 1,
    transposed: bool = False,
) -> torch.Tensor:
    """Fill with zero mean and variance scale / n, n = fan_in, fan_out, or their mean (fan_avg), counting groups.

    "truncated_normal" is cut at two standard deviations and widened so that the variance after the cut is scale / n;
    "normal" is not cut; "uniform" is U(-l, l) with l = √(3 · scale / n).
    Source: Keras and JAX, `VarianceScaling`; fan_avg with scale 1 is Glorot & Bengio 2010, with scale 2 and fan_in He.
    """
    fan_in, fan_out = fans(tensor, groups, transposed)
    fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[mode]
    std = math.sqrt(scale / fan)
    if distribution == "normal":
        return nn.init.normal_(tensor, 0.0, std)
    if distribution == "uniform":
        limit = math.sqrt(3.0) * std
        return nn.init.uniform_(tensor, -limit, limit)
    widened = std / 0.87962566103423978  # the standard deviation of N(0, 1) cut at ±2
    return trunc_normal_(tensor, 0.0, widened, -2 * widened, 2 * widened)
