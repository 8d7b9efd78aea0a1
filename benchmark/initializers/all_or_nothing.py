"""Puts a module back as it was when initialising it fails in the middle."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

_REGISTERED = ("_parameters", "_buffers", "_modules")


@contextlib.contextmanager
def all_or_nothing(module: nn.Module) -> Iterator[None]:
    """If the block raises anything, KeyboardInterrupt included, the module has its old state again.

    That is every value of its parameters and buffers, whether they require gradients, what is registered under which
    name, and what each attribute refers to. Not put back: the random generator, and objects outside the module or
    inside an attribute, such as the items of a list. The values are copied, on their device, so this needs the memory
    of the module once more.
    """
    tensors = dict.fromkeys((*module.parameters(), *module.buffers()))
    values = [(tensor, tensor.requires_grad, tensor.data, tensor.data.clone()) for tensor in tensors]
    parts = [
        (part, type(part), dict(vars(part)), {name: dict(vars(part)[name]) for name in _REGISTERED})
        for part in module.modules()
    ]
    try:
        yield
    except BaseException:
        for part, kind, names, registered in parts:
            part.__class__ = kind  # a parametrisation changes it
            vars(part).clear()
            vars(part).update(names)
            for name, entries in registered.items():
                vars(part)[name].clear()
                vars(part)[name].update(entries)
        for tensor, requires_grad, data, value in values:
            tensor.data = data
            if tensor.requires_grad != requires_grad:
                tensor.requires_grad_(requires_grad)
            with torch.inference_mode():
                data.copy_(value)
        raise
