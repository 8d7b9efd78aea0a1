"""Measure how a signal passes through an untrained network, to explain an initialisation and reject broken ones.

These numbers are no objective to optimise: they follow the scale of the weights and rank initialisations badly.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.fast_ops import fastest_layout
from benchmark.models import BasicBlock, InvertedResidual

_EXPLOSIVE = 1e5
"""A relative gradient above this lets the first step overwrite a layer at any usual learning rate. kaiming_normal has
about 10; zero_init has 1e8 and diverges (docs/initialisers.md)."""
_PARTS = 32
"""Parts of a batch that are searched for living channels one after the other."""
_PIECE = 1 << 16
"""Values of a tensor that are summed at a time."""


@dataclass(frozen=True)
class LayerSignal:
    """One convolution or Linear layer, in the order of the forward pass.

    activation_scale: root mean square of its output, before any norm. gradient_scale: root mean square of the gradient
    of one image's loss with respect to that output. relative_gradient: ‖∂loss/∂W‖ / ‖W‖ for the mean loss; multiplied
    by the learning rate it is the relative size of the first step. 0/0 counts as 0, x/0 as infinite.
    """

    name: str
    kind: str
    activation_scale: float
    gradient_scale: float
    relative_gradient: float


@dataclass(frozen=True)
class ReluSignal:
    """One call of a ReLU or ReLU6. A channel is dead if it passes no gradient for any image at any position."""

    name: str
    channels: int
    dead_share: float


@dataclass(frozen=True)
class BranchSignal:
    """One residual addition: the branch's standard deviation divided by the skip's. 0 means the branch adds nothing."""

    name: str
    branch_to_skip: float


@dataclass(frozen=True)
class SignalStatistics:
    """The state of a network at step 0, on one batch.

    loss: mean cross-entropy. uniform_loss: ln(classes), the loss of uniform predictions. logit_scale: root mean square
    of the logits minus each image's mean logit, which softmax ignores.
    """

    loss: float
    uniform_loss: float
    logit_scale: float
    layers: tuple[LayerSignal, ...]
    relus: tuple[ReluSignal, ...]
    branches: tuple[BranchSignal, ...]

    @property
    def dead_relu_share(self) -> float:
        """The share of dead channels over all ReLUs; 0 for a network without ReLUs."""
        channels = sum(relu.channels for relu in self.relus)
        return sum(relu.dead_share * relu.channels for relu in self.relus) / channels if channels else 0.0

    @property
    def faults(self) -> tuple[str, ...]:
        """Sentences about what keeps the network from learning; empty if nothing does."""
        found = []
        convolutions = [layer for layer in self.layers if layer.kind != "Linear"]
        measured = [self.loss, self.logit_scale, *(layer.activation_scale for layer in self.layers)]
        if not all(math.isfinite(value) for value in measured):
            first = next((layer.name for layer in self.layers if not math.isfinite(layer.activation_scale)), "the loss")
            found.append(f"the forward pass overflows, first in {first}")
        elif self.layers and not any(layer.relative_gradient for layer in self.layers):
            found.append("no gradient reaches any weight")
        elif convolutions and not any(layer.relative_gradient for layer in convolutions):
            found.append("no gradient reaches any convolution")
        if any(math.isnan(layer.gradient_scale) or math.isinf(layer.gradient_scale) for layer in self.layers):
            found.append("the backward pass overflows")
        worst = max(self.layers, key=lambda layer: layer.relative_gradient, default=None)
        if worst is not None and _EXPLOSIVE < worst.relative_gradient < math.inf:
            found.append(f"the gradient of {worst.name} is {worst.relative_gradient:.0e} times its weight")
        return tuple(found)

    def as_json(self) -> dict[str, Any]:
        """Return plain data, including the derived values."""
        derived = {"dead_relu_share": self.dead_relu_share, "faults": list(self.faults)}
        return {**dataclasses.asdict(self), **derived}


def signal_statistics(model: nn.Module, images: Tensor, labels: Tensor) -> SignalStatistics:
    """Run one batch forwards and backwards through a copy of `model`, and measure.

    images: float (N, 3, H, W), normalised as for training, N ≥ 2. labels: int64 (N,). Batch norms use the batch, as at
    step 0 of a training; dropout is off. The model, its gradients, its running statistics and the random state do not
    change. Raises ValueError for a batch that does not fit.
    """
    if images.dim() != 4 or labels.shape != images.shape[:1] or len(images) < 2:
        raise ValueError(
            "expected images (N, 3, H, W) and labels (N,) with N ≥ 2, not "
            f"{tuple(images.shape)} and {tuple(labels.shape)}"
        )
    # The weight that the old weight_norm computes is no leaf, which deepcopy refuses. The copy computes its own.
    held = (value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor))
    copied = copy.deepcopy(model, {id(value): value.detach().clone() for value in held if not value.is_leaf})
    # In channels_last, depthwise convolutions on a CPU take half the time, forwards and backwards.
    copied.to(memory_format=fastest_layout(copied))  # type: ignore[call-overload]
    probe = _Probe(copied)
    parameter = next(probe.model.parameters())
    logits = probe.model(images.to(parameter).contiguous(memory_format=torch.channels_last)).float()
    labels = labels.to(logits.device)
    if int(labels.max()) >= logits.shape[1] or int(labels.min()) < 0:
        raise ValueError(f"labels must lie in 0…{logits.shape[1] - 1}, the network has {logits.shape[1]} outputs")
    loss = F.cross_entropy(logits, labels)
    torch.autograd.backward(loss)
    centred = logits.detach() - logits.detach().mean(1, keepdim=True)
    return SignalStatistics(
        loss=loss.item(),
        uniform_loss=math.log(logits.shape[1]),
        logit_scale=_rms(centred),
        layers=tuple(probe.layer(name, len(images)) for name in probe.outputs),
        relus=tuple(probe.relus),
        branches=tuple(
            BranchSignal(name, _ratio(branch, probe.skips[name])) for name, branch in probe.branches.items()
        ),
    )


class _Probe:
    """A network with hooks that measure during both passes, before operations in place can overwrite a tensor."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model.train().requires_grad_(True)
        self.outputs: dict[str, float] = {}
        self.gradients: dict[str, float] = {}
        self.relus: list[ReluSignal] = []
        self.skips: dict[str, float] = {}
        self.branches: dict[str, float] = {}
        for parameter in model.parameters():
            parameter.grad = None
        for name, module in model.named_modules():
            if isinstance(module, nn.Dropout):
                module.eval()
            elif isinstance(module, nn.ReLU | nn.ReLU6):
                module.inplace = False
                _on_output(module, partial(self._relu, name, 6.0 if isinstance(module, nn.ReLU6) else math.inf))
            elif isinstance(module, nn.Conv2d | nn.Linear) and module._parameters.get("weight") is not None:
                _on_output(module, partial(self._layer, name))
            elif isinstance(module, BasicBlock):
                _on_output(module.bn2, partial(_note_std, self.branches, name))
                _on_output(module.shortcut, partial(_note_std, self.skips, name))
            elif isinstance(module, InvertedResidual) and module.use_residual:
                _on_output(module.conv, partial(_note_std, self.branches, name))
                _on_input(module, partial(_note_std, self.skips, name))

    def layer(self, name: str, images: int) -> LayerSignal:
        """Return the layer's measurements. The gradient is that of one image's loss, not of the mean over `images`."""
        module = self.model.get_submodule(name)
        weight = module.get_parameter("weight")
        gradient = 0.0 if weight.grad is None else weight.grad.float().norm().item()
        return LayerSignal(
            name=name,
            kind=type(module).__name__,
            activation_scale=self.outputs[name],
            gradient_scale=self.gradients.get(name, 0.0) * images,
            relative_gradient=_ratio(gradient, weight.detach().float().norm().item()),
        )

    def _layer(self, name: str, out: Tensor) -> None:
        self.outputs[name] = _rms(out)
        out.register_hook(partial(self._gradient, name))  # type: ignore[no-untyped-call]

    def _gradient(self, name: str, gradient: Tensor) -> None:
        self.gradients[name] = _rms(gradient)

    def _relu(self, name: str, ceiling: float, out: Tensor) -> None:
        alive = torch.zeros(out.shape[1], dtype=torch.bool, device=out.device)
        for some in out.detach().chunk(_PARTS):
            passes = (some > 0) & (some < ceiling)  # the gradient passes at the same positions
            alive |= passes.transpose(0, 1).flatten(1).any(1)
            if alive.all():  # mostly after the first part
                break
        self.relus.append(ReluSignal(name, len(alive), 1 - alive.float().mean().item()))


def _on_output(module: nn.Module, measure: Callable[[Tensor], None]) -> None:
    def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], out: Tensor) -> None:
        measure(out)

    module.register_forward_hook(hook)


def _on_input(module: nn.Module, measure: Callable[[Tensor], None]) -> None:
    def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        measure(inputs[0])

    module.register_forward_pre_hook(hook)


def _note_std(notes: dict[str, float], name: str, tensor: Tensor) -> None:
    notes[name] = math.sqrt(torch.var(tensor.detach().double(), correction=0).item())


def _rms(tensor: Tensor) -> float:
    if not tensor.numel():
        return math.nan
    values = tensor.detach()
    if values.dim() == 4:
        values = values.permute(0, 2, 3, 1)  # the order in memory, so that nothing is copied
    # In pieces that fit into a cache: the values in float64 are twice as large, and memory is four times slower.
    pieces = values.reshape(-1).chunk(-(-tensor.numel() // _PIECE))
    norms = [torch.linalg.vector_norm(piece, dtype=torch.float64) for piece in pieces]
    norm: float = torch.linalg.vector_norm(torch.stack(norms)).item()
    return norm / math.sqrt(tensor.numel())


def _ratio(numerator: float, denominator: float) -> float:
    if denominator == 0:
        return 0.0 if numerator == 0 else math.inf
    return numerator / denominator
