"""Lets a strategy written for this project's networks initialise any other, and says what it had to leave out."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from benchmark.initializers.branches import is_norm, residual_branches


class ByStructure(type):
    """Makes isinstance(module, LikeBasicBlock) true for marked blocks of other libraries: see `recognised_blocks`."""

    def __instancecheck__(cls, module: object) -> bool:
        return getattr(module, "__dict__", {}).get("stands_for") == cls.__name__


class LikeBasicBlock(metaclass=ByStructure):
    """A residual block with conv1, bn1, conv2, bn2 and shortcut."""


class LikeInvertedResidual(metaclass=ByStructure):
    """Any other residual block whose branch ends in a convolution and a norm: conv[-2], conv[-1], use_residual."""


class WithHead(nn.Module):
    """A network without a Linear layer, and one that is thrown away, for strategies that want the last of them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.head = torch.nn.utils.skip_init(nn.Linear, 2, 2)  # type: ignore[no-untyped-call]

    def forward(self, *inputs: Any) -> Any:
        """What the network gives."""
        return self.network(*inputs)


def on_any_network(function: Callable[..., Any], *, blocks: Callable[..., Any] | None) -> Callable[..., None]:
    """The strategy `function(model, config)` for networks that it was not written for.

    For the duration of the call a norm without weight or bias (`affine=False`) and a Linear layer without bias get
    them, and a network without Linear layers gets one. With `recognised_blocks` as `blocks`, residual blocks are found
    in their own graphs and take the names of this project's. All of it is taken away again. A UserWarning names what
    was lost with it, and the parameters that the strategy left as they were. What `config` lacks is read from the
    network, and half precision is computed in float32.
    """

    @functools.wraps(function)
    def initialize_weights(model: nn.Module, config: Any = None, *more: Any, **options: Any) -> None:
        notes: list[str] = []
        before = {name: state_of(parameter) for name, parameter in model.named_parameters()}
        config = full_config(model, config)
        with contextlib.ExitStack() as stack:
            stack.enter_context(in_float32(model))
            stack.enter_context(completed(model, notes))
            if blocks is not None:
                stack.enter_context(blocks(model, notes))
            has_head = any(isinstance(module, nn.Linear) for module in model.modules())
            function(model if has_head else WithHead(model), config, *more, **options)
        if not has_head:
            notes.append("there is no Linear layer: what the strategy does to the last one does nothing")
        same = [name for name, parameter in model.named_parameters() if before.get(name) == state_of(parameter)]
        if same:
            notes.append(f"the strategy does not set {listed(same)}: left as before")
        for note in notes:
            warnings.warn(f"initialize_weights on {type(model).__name__}: {note}", stacklevel=2)

    return initialize_weights


def full_config(model: nn.Module, config: Any) -> Any:
    """`config` with what a strategy may ask for and it lacks, read from the network. None: it lacks everything."""
    if not (config is None or hasattr(config, "keys")):
        return config
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    classes = [layer.out_features for layer in layers if isinstance(layer, nn.Linear)][-1:] or [0]
    found = {"arch": type(model).__name__.lower(), "num_classes": classes[0], "depth": len(layers)}
    return {**found, **(config or {})}


@contextlib.contextmanager
def in_float32(model: nn.Module) -> Iterator[None]:
    """Parameters and buffers of half precision are float32 until the end, and are then rounded once.

    Some operations, such as the QR decomposition, exist for float32 only. After an error the old values are back.
    """
    tensors = (*model.parameters(), *model.buffers())
    half = [(tensor, tensor.data) for tensor in tensors if tensor.dtype in (torch.bfloat16, torch.float16)]
    try:
        for tensor, kept in half:
            tensor.data = kept.float()
        yield
        for tensor, kept in half:
            kept.copy_(tensor.data)
    finally:
        for tensor, kept in half:
            tensor.data = kept


def state_of(parameter: torch.Tensor) -> tuple[int, float]:
    """Two numbers that change when a parameter is written to."""
    return parameter._version, parameter.detach().double().sum().item()


def listed(names: list[str]) -> str:
    """The first five names, and how many more there are."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


@contextlib.contextmanager
def completed(model: nn.Module, notes: list[str]) -> Iterator[None]:
    """Norms have weight and bias, and Linear layers a bias, until the end; what was written there goes to `notes`."""
    like = next(model.parameters(), torch.empty(0))
    added: list[tuple[str, nn.Module, str]] = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            shape: Any = module.out_features
        elif isinstance(module, nn.modules.batchnorm._NormBase):
            shape = module.num_features
        elif isinstance(module, nn.GroupNorm):
            shape = module.num_channels
        elif isinstance(module, nn.LayerNorm):
            shape = module.normalized_shape
        else:
            continue
        for key in ("weight", "bias"):
            if module._parameters.get(key, like) is None:
                value = torch.full((shape,) if isinstance(shape, int) else shape, float(key == "weight"))
                module.register_parameter(key, nn.Parameter(value.to(like.device)))
                added.append((f"{name}.{key}" if name else key, module, key))
    try:
        yield
    finally:
        lost = []
        for name, module, key in added:
            if not bool((module.get_parameter(key) == float(key == "weight")).all()):
                lost.append(name)
            module.register_parameter(key, None)
        if lost:
            notes.append(f"the network has no {listed(lost)}: the values for them are left out")


@contextlib.contextmanager
def recognised_blocks(model: nn.Module, notes: list[str]) -> Iterator[None]:
    """Residual blocks answer to isinstance, and have the attributes that a strategy expects, until the end.

    A block is the smallest module that adds one branch to a skip, where the branch ends in a convolution and a norm.
    `notes` gets the classes of other modules with a branch.
    """
    marked: list[tuple[nn.Module, str]] = []
    done: set[nn.Module] = set()
    others: list[str] = []
    modules: list[nn.Module] = []
    model.apply(modules.append)  # children before parents
    for module in dict.fromkeys(modules):
        children = list(module.children())
        if not children or not done.isdisjoint(children):
            done.update([module] if children else [])
            continue
        found = residual_branches(module)
        if found is None and module is not model:
            continue
        attributes = attributes_of(module, found or [])
        for name, value in attributes.items():
            module.__dict__[name] = value
            marked.append((module, name))
        if attributes:
            done.add(module)
        elif found is None or found:
            others.append(type(module).__name__)
            done.add(module)
    if others:
        notes.append(
            f"{listed(sorted(set(others)))}: not one residual branch that ends in a convolution and a norm, as far as "
            "torch.fx sees, so what the strategy does to blocks is left out there"
        )
    elif not marked:
        notes.append("there is no residual block: what the strategy does to blocks does nothing")
    try:
        yield
    finally:
        for module, name in marked:
            del module.__dict__[name]


@contextlib.contextmanager
def blocks_left_out(model: nn.Module, notes: list[str]) -> Iterator[None]:
    """For a module without `recognised_blocks`: say that no block of the network is recognised."""
    notes.append(
        "what the strategy does to the blocks BasicBlock and InvertedResidual of initsearch is left out; "
        "load_for_any_network of initsearch's benchmark.recipes finds the residual blocks of other networks"
    )
    yield


def attributes_of(module: nn.Module, found: list[tuple[list[nn.Module], nn.Module | None]]) -> dict[str, object]:
    """What a block needs to pass for one of this project's; nothing where it is another kind of module."""
    if len(found) != 1:
        return {}
    layers, norm = found[0]
    if norm is None or not is_norm(norm) or not layers or not isinstance(layers[-1], nn.Conv2d):
        return {}
    parts = dict(module.named_children())
    if {"conv1", "bn1", "conv2", "bn2"} <= parts.keys() and (parts["conv2"], parts["bn2"]) == (layers[-1], norm):
        skip = next((parts[name] for name in ("shortcut", "downsample", "skip") if name in parts), nn.Sequential())
        shortcut = skip if isinstance(skip, nn.Sequential) else nn.Sequential(skip)
        return {"stands_for": LikeBasicBlock.__name__, "shortcut": shortcut}
    return {"stands_for": LikeInvertedResidual.__name__, "conv": nn.Sequential(*layers, norm), "use_residual": True}
