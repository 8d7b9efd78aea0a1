"""SGD with momentum under a cosine: the same numbers as torch.optim, bit for bit, and over a second sooner.

The first `torch.optim.SGD(…)` of a process imports torch's compiler and sympy, some 800 modules, only to tell the
compiler to stay out. Each process that trains would pay for that. torch's functional form does not import them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn
from torch.optim.sgd import sgd

from benchmark.task import Recipe


class CosineSgd:
    """torch.optim.SGD and CosineAnnealingLR for one training by `recipe`. `fused` computes in one kernel, on a GPU.

    All tensors that a step changes exist from the start and stay where they are, so a captured CUDA graph of a step
    finds them again. The graph reads the learning rate from a tensor too.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], recipe: Recipe, *, fused: bool) -> None:
        self._parameters = list(parameters)
        self.momenta = [torch.zeros_like(parameter) for parameter in self._parameters]
        """One for each parameter. From zero, the first step gives what torch's first step gives: the gradient."""
        self._recipe, self._fused = recipe, fused
        self._epochs = 0
        self.lr = recipe.lr
        """Of the next step."""
        self._lr_on_device = torch.tensor(recipe.lr, device=self._parameters[0].device) if fused else None

    def forget_gradients(self) -> None:
        """Before each backward pass."""
        for parameter in self._parameters:
            parameter.grad = None

    def begin_step(self) -> None:
        """Before each step. The learning rate changes between epochs only."""

    @torch.no_grad()
    def step(self) -> None:
        """Change every parameter that has a gradient."""
        moving = [index for index, parameter in enumerate(self._parameters) if parameter.grad is not None]
        sgd(
            [self._parameters[index] for index in moving],
            [gradient for parameter in self._parameters if (gradient := parameter.grad) is not None],
            [self.momenta[index] for index in moving],
            foreach=False,
            fused=self._fused,
            weight_decay=self._recipe.weight_decay,
            momentum=self._recipe.momentum,
            lr=self.lr if self._lr_on_device is None else self._lr_on_device,  # type: ignore[arg-type]
            dampening=0,
            nesterov=False,
            maximize=False,
        )

    def end_epoch(self) -> None:
        """Lower the learning rate along the cosine, as torch does: from the last one, not from the first."""
        self._epochs += 1
        now, before = (math.cos(math.pi * epoch / self._recipe.epochs) for epoch in (self._epochs, self._epochs - 1))
        self.lr = (1 + now) / (1 + before) * self.lr
        if self._lr_on_device is not None:
            self._lr_on_device.fill_(self.lr)
