"""Initialisers of one layer: they set `module.weight` by their formula and `module.bias` to a constant.

Names, arguments and defaults of the first group are those of MMEngine 0.10.7, and so are the numbers for a given seed.
A module without weight or bias, or with None or an empty tensor there, is left as it is. Like `tensors`, the functions
use no names but torch, nn, math and each other, so that their source can be copied into a region text.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from benchmark.initializers.branches import is_norm, residual_branches
from benchmark.initializers.tensors import (
    delta_orthogonal_,
    dirac_,
    fans,
    orthogonal_,
    trunc_normal_,
    variance_scaling_,
    zero_ones_,
)


def tensor_of(module: nn.Module, name: str) -> torch.Tensor | None:
    """`module.weight` or `module.bias` where that is a tensor with elements, else None.

    Raises ValueError where it is computed from other parameters, as under weight_norm: what is written there is lost.
    """
    value = getattr(module, name, None)
    hooked = not isinstance(value, nn.Parameter) and f"{name}_orig" in module._parameters  # the old spectral_norm
    if isinstance(value, torch.Tensor) and (hooked or value.grad_fn is not None):
        raise ValueError(f"the {name} of a {type(module).__name__} is computed from other parameters: set those")
    return value if isinstance(value, torch.Tensor) and value.numel() > 0 else None


def fill_bias(module: nn.Module, bias: float) -> None:
    """Set the module's bias, if it has one, to a constant."""
    tensor = tensor_of(module, "bias")
    if tensor is not None:
        nn.init.constant_(tensor, bias)


def constant_init(module: nn.Module, val: float, bias: float = 0) -> None:
    """weight = val, bias = bias."""
    weight = tensor_of(module, "weight")
    if weight is not None:
        nn.init.constant_(weight, val)
    fill_bias(module, bias)


def xavier_init(module: nn.Module, gain: float = 1, bias: float = 0, distribution: str = "normal") -> None:
    """Weight of variance gain² · 2 / (fan_in + fan_out), "normal" or "uniform".

    Source: Glorot & Bengio 2010, "Understanding the difficulty of training deep feedforward neural networks", eq. 16.
    """
    weight = tensor_of(module, "weight")
    if weight is not None:
        draw = nn.init.xavier_uniform_ if distribution == "uniform" else nn.init.xavier_normal_
        draw(weight, gain=gain)
    fill_bias(module, bias)


def normal_init(module: nn.Module, mean: float = 0, std: float = 1, bias: float = 0) -> None:
    """Weight from N(mean, std²)."""
    weight = tensor_of(module, "weight")
    if weight is not None:
        nn.init.normal_(weight, mean, std)
    fill_bias(module, bias)


def trunc_normal_init(
    module: nn.Module, mean: float = 0, std: float = 1, a: float = -2, b: float = 2, bias: float = 0
) -> None:
    """Weight from N(mean, std²) restricted to [a, b]; the bounds are absolute, not in units of std."""
    weight = tensor_of(module, "weight")
    if weight is not None:
        trunc_normal_(weight, mean, std, a, b)
    fill_bias(module, bias)


def uniform_init(module: nn.Module, a: float = 0, b: float = 1, bias: float = 0) -> None:
    """Weight from U(a, b)."""
    weight = tensor_of(module, "weight")
    if weight is not None:
        nn.init.uniform_(weight, a, b)
    fill_bias(module, bias)


def kaiming_init(
    module: nn.Module,
    a: float = 0,
    mode: str = "fan_out",
    nonlinearity: str = "relu",
    bias: float = 0,
    distribution: str = "normal",
    groups_correct: bool = False,
) -> None:
    """Weight of variance gain² / fan, with torch's gain for the nonlinearity (√2 for ReLU), "normal" or "uniform".

    torch counts the fan_out of a grouped convolution `groups` times too large (PyTorch issue 23854), which makes a
    depthwise layer's weights √groups too small, and takes the two fans of a transposed convolution for each other;
    `groups_correct` puts both right.
    Source: He et al. 2015, "Delving Deep into Rectifiers", equations 10 and 14.
    """
    weight = tensor_of(module, "weight")
    if weight is not None:
        draw = nn.init.kaiming_uniform_ if distribution == "uniform" else nn.init.kaiming_normal_
        draw(weight, a=a, mode=mode, nonlinearity=nonlinearity)  # type: ignore[arg-type]
        if groups_correct:
            place = 1 if mode == "fan_out" else 0
            counted = fans(weight)[place]
            right = fans(weight, getattr(module, "groups", 1), getattr(module, "transposed", False))[place]
            with torch.no_grad():
                weight.mul_(math.sqrt(counted / right))
    fill_bias(module, bias)


def caffe2_xavier_init(module: nn.Module, bias: float = 0) -> None:
    """Caffe2's XavierFill: U(-l, l) with l = √(3 / fan_in), i.e. kaiming uniform with a = 1 and fan_in."""
    kaiming_init(module, a=1, mode="fan_in", nonlinearity="leaky_relu", bias=bias, distribution="uniform")


def bias_init_with_prob(prior_prob: float) -> float:
    """The bias b for which sigmoid(b) = prior_prob: -log((1 - p) / p).

    Source: Lin et al. 2017, "Focal Loss for Dense Object Detection", section 4.1.
    """
    return float(-np.log((1 - prior_prob) / prior_prob))


def zero_module(module: nn.Module) -> nn.Module:
    """Set every parameter of a module to zero and return it: makes the end of a residual branch silent.

    Source: Dhariwal & Nichol 2021, "Diffusion Models Beat GANs on Image Synthesis" (code), after Fixup's first rule.
    """
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    return module


# Beyond MMEngine.


def orthogonal_init(module: nn.Module, gain: float = 1, bias: float = 0) -> None:
    """Weight with orthonormal rows or columns, times gain: see `tensors.orthogonal_`."""
    weight = tensor_of(module, "weight")
    if weight is not None:
        orthogonal_(weight, gain)
    fill_bias(module, bias)


def delta_orthogonal_init(module: nn.Module, gain: float = 1, bias: float = 0) -> None:
    """An orthogonal matrix at the kernel's centre, zero elsewhere: see `tensors.delta_orthogonal_`."""
    weight = tensor_of(module, "weight")
    if weight is not None:
        delta_orthogonal_(weight, gain, getattr(module, "groups", 1))
    fill_bias(module, bias)


def dirac_init(module: nn.Module, bias: float = 0) -> None:
    """Channels pass through unchanged, as far as there are as many: see `tensors.dirac_`."""
    weight = tensor_of(module, "weight")
    if weight is not None:
        dirac_(weight, getattr(module, "groups", 1))
    fill_bias(module, bias)


def lecun_normal_init(module: nn.Module, bias: float = 0) -> None:
    """Weight from N(0, 1 / fan_in), not cut. Source: LeCun et al. 1998, "Efficient BackProp", section 4.6."""
    weight = tensor_of(module, "weight")
    if weight is not None:
        variance_scaling_(
            weight, 1.0, "fan_in", "normal", getattr(module, "groups", 1), getattr(module, "transposed", False)
        )
    fill_bias(module, bias)


def variance_scaling_init(
    module: nn.Module,
    scale: float = 1,
    mode: str = "fan_in",
    distribution: str = "truncated_normal",
    bias: float = 0,
) -> None:
    """Weight of variance scale / fan, groups counted: see `tensors.variance_scaling_`."""
    weight = tensor_of(module, "weight")
    if weight is not None:
        variance_scaling_(
            weight, scale, mode, distribution, getattr(module, "groups", 1), getattr(module, "transposed", False)
        )
    fill_bias(module, bias)


def zero_ones_init(module: nn.Module, bias: float = 0) -> None:
    """ZerO, zeros and ones up to a factor: see `tensors.zero_ones_`."""
    weight = tensor_of(module, "weight")
    if weight is not None:
        zero_ones_(weight, getattr(module, "groups", 1))
    fill_bias(module, bias)


def fixup_init(blocks: list[nn.Module]) -> list[torch.Tensor]:
    """Scale what is there so that the sum of L residual branches neither grows with L nor is felt at step 0.

    `blocks` are all residual blocks of the network, already initialised otherwise; their branches are found in their
    own graphs (`branches.residual_branches`), and blocks that add nothing to a skip are left alone. A branch that ends
    in a norm: its last layer × L^-½ and the norm's weight 0. A branch that ends in a layer, with norms before it
    (pre-activation): that layer 0. A branch without norms: the paper's rules 1 and 2, the last of m layers 0 and the
    others × L^(-1/(2m-2)). Anything else, such as an activation before the addition, is left alone: a zero before it
    would stop all gradients. The paper's scalar biases and multipliers would change the network and are left out.
    Returns the tensors that were scaled or zeroed. Raises ValueError where no branch of any block can be silenced.
    Source: Zhang et al. 2019, "Fixup Initialization", section 3.
    """
    found = [(block, branch) for block in blocks for branch in residual_branches(block) or []]
    usable = [(block, layers, last) for block, (layers, last) in found if last is not None]
    if blocks and not usable:
        raise ValueError("no block adds a branch that ends in a norm or a layer to a skip: there is nothing to silence")
    touched: list[torch.Tensor] = []
    with torch.no_grad():
        for block, layers, last in usable:
            weights = [layer.get_parameter("weight") for layer in layers]
            if last not in layers:
                touched += [weight.mul_(len(usable) ** -0.5) for weight in weights[-1:]]
                touched.append(last.get_parameter("weight").zero_())
                continue
            if not any(is_norm(module) for module in block.modules()):
                touched += [weight.mul_(len(usable) ** (-1 / (2 * len(weights) - 2))) for weight in weights[:-1]]
            touched.append(last.get_parameter("weight").zero_())
    return touched
