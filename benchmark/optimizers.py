"""The optimiser of a recipe: SGD or AdamW, under a cosine, a line or a constant, after a warm-up.

torch's functional forms are used, as in `benchmark.sgd`, and all tensors that a step changes exist from the start.
Plain SGD under a cosine, the recipe of our own tasks, keeps its class and its last digits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from benchmark.sgd import CosineSgd
from benchmark.task import Recipe

_BETA2, _EPS = 0.999, 1e-8


def make_optimizer(
    parameters: Iterable[nn.Parameter], recipe: Recipe, *, steps_per_epoch: int, fused: bool
) -> CosineSgd | ScheduledOptimizer:
    """The optimiser that `recipe` names. `fused` computes in one kernel, on a GPU."""
    if (recipe.optimizer, recipe.schedule, recipe.warmup_epochs) == ("sgd", "cosine", 0):
        return CosineSgd(parameters, recipe, fused=fused)
    return ScheduledOptimizer(parameters, recipe, steps_per_epoch=steps_per_epoch, fused=fused)


def factor(recipe: Recipe, epoch: float) -> float:
    """The share of `recipe.lr` after `epoch` epochs, which may end in a fraction during the warm-up.

    It rises in a line to 1 at `warmup_epochs`. From there a cosine or a line leads to 0 after `epochs`.
    """
    if epoch < recipe.warmup_epochs:
        return epoch / recipe.warmup_epochs
    done = (epoch - recipe.warmup_epochs) / (recipe.epochs - recipe.warmup_epochs)
    if recipe.schedule == "cosine":
        return (1 + math.cos(math.pi * done)) / 2
    return 1 - done if recipe.schedule == "linear" else 1.0


class ScheduledOptimizer:
    """SGD with momentum or AdamW (betas: `momentum` and 0.999) under any schedule.

    The schedule goes on at the end of each epoch, and during the warm-up at each step.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], recipe: Recipe, *, steps_per_epoch: int, fused: bool
    ) -> None:
        self._parameters = list(parameters)
        self._recipe, self._fused, self._steps_per_epoch = recipe, fused, steps_per_epoch
        self._first = [torch.zeros_like(parameter) for parameter in self._parameters]
        adam = recipe.optimizer == "adamw"
        self._second = [torch.zeros_like(parameter) for parameter in self._parameters] if adam else []
        self._counts = (
            [torch.zeros((), device=parameter.device if fused else "cpu") for parameter in self._parameters]
            if adam
            else []
        )
        self._epochs = self._steps = 0
        self.lr = recipe.lr
        device = self._parameters[0].device
        self._lr_on_device = torch.tensor(recipe.lr, device=device) if fused else None
        self._set_lr()

    @property
    def momenta(self) -> list[Tensor]:
        """All tensors that a step changes besides parameters."""
        return [*self._first, *self._second, *self._counts]

    def forget_gradients(self) -> None:
        """Before each backward pass."""
        for parameter in self._parameters:
            parameter.grad = None

    def begin_step(self) -> None:
        """Before each step, outside of what is captured."""
        self._steps += 1
        if self._recipe.warmup_epochs > 0:
            self._set_lr()

    @torch.no_grad()
    def step(self) -> None:
        """Change every parameter that has a gradient."""
        moving = [index for index, parameter in enumerate(self._parameters) if parameter.grad is not None]

        def of(tensors: list[Tensor]) -> list[Tensor]:
            return [tensors[index] for index in moving]

        parameters: list[Tensor] = [self._parameters[index] for index in moving]
        gradients = [gradient for parameter in self._parameters if (gradient := parameter.grad) is not None]
        lr = self.lr if self._lr_on_device is None else self._lr_on_device
        if self._recipe.optimizer == "sgd":
            sgd(
                parameters,
                gradients,
                of(self._first),  # type: ignore[arg-type]
                foreach=False,
                fused=self._fused,
                weight_decay=self._recipe.weight_decay,
                momentum=self._recipe.momentum,
                lr=lr,  # type: ignore[arg-type]
                dampening=0,
                nesterov=False,
                maximize=False,
            )
            return
        adamw(
            parameters,
            gradients,
            of(self._first),
            of(self._second),
            [],
            of(self._counts),
            foreach=False,
            capturable=False,
            differentiable=False,
            fused=self._fused,
            amsgrad=False,
            beta1=self._recipe.momentum,
            beta2=_BETA2,
            lr=lr,
            weight_decay=self._recipe.weight_decay,
            eps=_EPS,
            maximize=False,
        )

    def end_epoch(self) -> None:
        """Set the learning rate of the next epoch."""
        self._epochs += 1
        self._steps = 0
        self._set_lr()

    def _set_lr(self) -> None:
        epoch = float(self._epochs)
        if epoch < self._recipe.warmup_epochs:
            done = max(self._steps, 1) / self._steps_per_epoch
            epoch = min(epoch + done, self._recipe.warmup_epochs)
        self.lr = self._recipe.lr * factor(self._recipe, epoch)
        if self._lr_on_device is not None:
            self._lr_on_device.fill_(self.lr)
