"""Let a network's batch normalisations and depthwise convolutions use the project's Triton kernels while it trains.

Modules keep their names, parameters and buffers; only their `forward` is another one. A ReLU is joined to the batch
normalisation before it, where the network hands the one's output to the other and to nothing else. Which ReLU that is
does not follow from the modules (a residual block has one ReLU for two places), so one forward pass is watched.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmark.fast_ops import is_plain_3x3
from benchmark.precision import autocast

_ACTIVATIONS: dict[type[nn.Module], str] = {nn.ReLU: "relu", nn.ReLU6: "relu6"}
_TYPES = (torch.float32, torch.bfloat16, torch.float16)
_MOST_ROWS = 2**30
"""The kernels count rows with 32 bits."""


def joined_activations(
    model: nn.Module, images: Tensor, precision: str, generator: torch.Generator
) -> dict[nn.BatchNorm2d, nn.Module]:
    """Return each batch normalisation whose output goes to one ReLU or ReLU6 and nowhere else, with that module.

    A forward pass on `images` (at least two) is watched as in training, and one as in an evaluation; what holds in both
    counts. Buffers, `generator` (of dropout) and the mode of each module are as before afterwards.
    """
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    modes = [(module, module.training) for module in model.modules()]
    drawn = generator.get_state()
    found = []
    try:
        for training in (True, False):
            model.train(training)
            gradients = nullcontext() if training else torch.no_grad()
            with gradients, _Watch(model) as watch, autocast(precision, images.device):
                model(images)
            found.append(watch.joined())
    finally:
        generator.set_state(drawn)
        for module, training in modes:
            module.training = training
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
    return {norm: activation for norm, activation in found[0].items() if found[1].get(norm) is activation}


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within this context, follows what becomes of the output of every batch normalisation."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._model = model
        self._hooks: list[Any] = []
        self._outputs: list[Tensor] = []  # alive, so that no other tensor has the id of one
        self._norm_of: dict[int, nn.BatchNorm2d] = {}
        self._calls: Counter[nn.BatchNorm2d] = Counter()
        self._users: dict[nn.BatchNorm2d, set[nn.Module | None]] = defaultdict(set)
        self._active: nn.Module | None = None

    def __enter__(self) -> _Watch:
        for module in self._model.modules():
            if _replaceable_norm(module) and not module._forward_hooks:
                self._hooks.append(module.register_forward_hook(self._normalised))
            elif _joinable(module):
                self._hooks.append(module.register_forward_pre_hook(self._begins))
                self._hooks.append(module.register_forward_hook(self._ends))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exc_info: Any) -> None:
        super().__exit__(*exc_info)  # type: ignore[no-untyped-call]
        for hook in self._hooks:
            hook.remove()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for value in tree_leaves((args, kwargs)):
            if isinstance(value, Tensor) and id(value) in self._norm_of:
                self._users[self._norm_of[id(value)]].add(self._active)
        return func(*args, **(kwargs or {}))

    def _normalised(self, norm: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        self._calls[norm] += 1
        self._outputs.append(output)
        self._norm_of[id(output)] = norm

    def _begins(self, activation: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._active = activation

    def _ends(self, activation: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._active = None
        if output is inputs[0]:  # in place: whoever uses it from now on uses the activation's output
            self._norm_of.pop(id(output), None)

    def joined(self) -> dict[nn.BatchNorm2d, nn.Module]:
        """Return the batch normalisations that were called once and used by one activation only, with that one."""
        return {
            norm: activation
            for norm, (activation, *others) in ((norm, tuple(users)) for norm, users in self._users.items())
            if activation is not None and not others and self._calls[norm] == 1
        }


def _joinable(module: nn.Module) -> bool:
    hooked = module._forward_hooks or module._forward_pre_hooks
    return type(module) in _ACTIVATIONS and not hooked and "forward" not in vars(module)


def _replaceable_norm(module: nn.Module) -> bool:
    return (
        type(module) is nn.BatchNorm2d
        and "forward" not in vars(module)
        and module.affine
        and module.bias is not None
        and module.track_running_stats
        and module.momentum is not None
    )


def replaceable_depthwise(module: nn.Module) -> bool:
    """Whether the module is a convolution that `benchmark.triton_depthwise` computes."""
    return (
        type(module) is nn.Conv2d
        and "forward" not in vars(module)
        and not module._forward_pre_hooks
        and is_plain_3x3(module)
        and module.stride in ((1, 1), (2, 2))
        and module.groups == module.in_channels == module.out_channels > 1
    )


@contextmanager
def triton_layers(model: nn.Module, joined: Mapping[nn.BatchNorm2d, nn.Module]) -> Iterator[None]:
    """Within this context the layers of `model` that the kernels can compute use them. Imports triton.

    Those are 3×3 depthwise convolutions without bias, and nn.BatchNorm2d with parameters and buffers. `joined`: see
    `joined_activations`.
    """
    forwards: dict[nn.Module, Callable[[Tensor], Tensor]] = {}
    before: dict[nn.Module, list[_Norm]] = defaultdict(list)
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and replaceable_depthwise(module):
            forwards[module] = partial(_depthwise, module)
        elif isinstance(module, nn.BatchNorm2d) and _replaceable_norm(module):
            activation = joined.get(module)
            forwards[module] = norm = _Norm(module, "none" if activation is None else _ACTIVATIONS[type(activation)])
            if activation is not None:
                before[activation].append(norm)
    for activation, norms in before.items():
        forwards[activation] = partial(_rectify, activation, norms)
    for module, forward in forwards.items():
        module.forward = forward
    try:
        yield
    finally:
        for module in forwards:
            del module.forward  # restores the class's method


class _Norm:
    """The forward pass of a batch normalisation with the activation that is joined to it."""

    def __init__(self, module: nn.BatchNorm2d, activation: str) -> None:
        self._module, self._activation = module, activation
        self._output: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        from benchmark.triton_norm import batch_norm

        module = self._module
        if self._output is not None:
            raise RuntimeError(
                "a batch normalisation's output went to its ReLU in the first forward pass, and not in this one; "
                "--set kernels=graph trains this network"
            )
        rows = x.numel() // x.shape[1] if x.dim() == 4 and x.numel() else 0
        if not 2 <= rows < _MOST_ROWS or x.dtype not in _TYPES:  # torch's own says what is wrong, or computes it
            return nn.BatchNorm2d.forward(module, x)
        mean, variance, batches = module.running_mean, module.running_var, module.num_batches_tracked
        assert mean is not None
        assert variance is not None
        assert batches is not None
        assert module.momentum is not None
        y = batch_norm(
            x,
            module.weight,
            module.bias,
            (mean, variance, batches),
            batch=module.training,
            update=module.training and module.track_running_stats,
            momentum=module.momentum,
            eps=module.eps,
            activation=self._activation,
        )
        if self._activation != "none":
            self._output = y
        return y

    def take(self, x: Tensor) -> bool:
        """Whether x is the output that waits for the activation. It waits no longer then."""
        if x is not self._output:
            return False
        self._output = None
        return True


def _rectify(activation: nn.Module, norms: list[_Norm], x: Tensor) -> Tensor:
    if any(norm.take(x) for norm in norms):
        return x
    y: Tensor = type(activation).forward(activation, x)
    return y


def _depthwise(conv: nn.Conv2d, x: Tensor) -> Tensor:
    from benchmark.triton_depthwise import depthwise

    if torch.is_autocast_enabled(x.device.type) and x.dtype in _TYPES:
        x = x.to(torch.get_autocast_dtype(x.device.type))
    if x.dim() != 4 or not 0 < x.numel() // x.shape[1] < _MOST_ROWS or x.dtype not in _TYPES:
        return nn.Conv2d.forward(conv, x)
    return depthwise(x, conv.weight, conv.stride[0])
