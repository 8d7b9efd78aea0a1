"""Dropout that draws from the training's own generator, because trainings in one process share torch's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

_Layer = nn.Dropout | nn.Dropout1d | nn.Dropout2d | nn.Dropout3d


@contextmanager
def own_dropout(model: nn.Module, generator: torch.Generator) -> Iterator[None]:
    """Within this context the dropout layers of `model` draw from `generator`, which is on the model's device.

    On a CPU they compute what torch's own compute with the same generator, bit for bit.
    """
    layers = [module for module in model.modules() if isinstance(module, _Layer)]
    for layer in layers:
        layer.forward = partial(_drop, layer, generator)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward  # restores the class's method


def _drop(layer: _Layer, generator: torch.Generator, x: Tensor) -> Tensor:
    if not layer.training or layer.p == 0 or x.numel() == 0:
        return x
    if layer.p == 1:
        return x * 0
    # Dropout2d and its like drop whole channels.
    feature = torch.empty(*x.shape[:2], *(1 for _ in x.shape[2:]), dtype=x.dtype, device=x.device)
    kept = torch.empty_like(x) if isinstance(layer, nn.Dropout) else feature
    return x * kept.bernoulli_(1 - layer.p, generator=generator).div_(1 - layer.p)
