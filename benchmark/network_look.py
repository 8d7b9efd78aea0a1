"""A first look at a user's network: how it is called, whether it takes a picture, and why torch.fx cannot trace it."""

from __future__ import annotations

import collections
import inspect
import re
import traceback
from typing import TYPE_CHECKING

from benchmark.networks import Network, NetworkError, described, is_theirs
from benchmark.user_code import contained

if TYPE_CHECKING:
    import torch
    from torch import nn

BUILD_SECONDS = 300.0
"""Seconds for a constructor, or for two pictures."""
_HINTS = (
    (r"\blen\((\w+)\)", r"len' is not supported", "write {0}.shape[0] instead of len({0})"),
    (r"", r"used as inputs to control flow", "decide by a number of the module's own instead of one of the picture's"),
    (r"", r"Proxy object cannot be iterated", "take sizes one by one, such as x.shape[0], x.shape[1]"),
    (r"\b(int|float|range)\(", r"", "take the number from the module's own instead of from the picture"),
)
"""A pattern of the user's line, one of the message of torch.fx, and what to write instead."""


def pictures(network: Network, count: int = 2) -> torch.Tensor:
    """Noise of the form of the network's pictures, float32 (count, C, H, W)."""
    import torch

    assert network.picture is not None
    return torch.randn(count, *network.picture, generator=torch.Generator().manual_seed(0))


def try_out(network: Network, model: nn.Module) -> None:
    """Send two pictures through the network, as in a test and as in training.

    Raises NetworkError unless there is a score for each class, and gradients.
    """
    import torch
    import torch.nn.functional as F

    if network.picture is None:
        return
    shape = "×".join(map(str, network.picture))
    two = pictures(network)

    def failing(error: BaseException, when: str = "") -> NetworkError:
        return NetworkError(f"network {network.spec} fails on a picture of {shape}{when}: {described(error)}")

    model.eval()
    try:
        with contained(BUILD_SECONDS), torch.no_grad():
            out = model(two)
    except BaseException as error:
        raise failing(error) from error
    if not isinstance(out, torch.Tensor):
        raise NetworkError(f"network {network.spec} gives {type(out).__name__} for a picture, not a tensor of logits")
    if tuple(out.shape) != (2, network.num_classes):
        raise NetworkError(
            f"network {network.spec} gives shape {tuple(out.shape)} for 2 pictures of {shape}; "
            f"{network.num_classes} classes need (2, {network.num_classes})"
        )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise NetworkError(
            f"network {network.spec}: all its parameters are frozen (requires_grad is False), so nothing can be trained"
        )
    model.train()
    try:
        with contained(BUILD_SECONDS):
            loss = F.cross_entropy(model(two).float(), torch.zeros(2, dtype=torch.long))
            loss.backward()  # type: ignore[no-untyped-call]
    except BaseException as error:
        raise failing(error, " while it trains") from error
    model.zero_grad()
    model.eval()


def require_own_memory(spec: str, model: nn.Module) -> None:
    """Raise NetworkError where two parameters, or two values of one, lie at the same place: a write changes both."""
    import torch

    parameters = [(name, one.detach()) for name, one in model.named_parameters()]
    used = collections.Counter(one.untyped_storage().data_ptr() for _, one in parameters)
    owners: dict[int, torch.Tensor] = {}
    """For each element of a storage with several parameters: the number of the one that it belongs to, or 0."""
    for number, (name, one) in enumerate(parameters, 1):
        reach = 1 + sum((size - 1) * stride for size, stride in zip(one.shape, one.stride(), strict=True))
        if reach < one.numel():
            raise NetworkError(f"network {spec}: values of {name} share memory, as expand makes them; write .clone()")
        storage = one.untyped_storage()
        place = storage.data_ptr()
        if one.numel() == 0 or used[place] == 1:
            continue
        if place not in owners:
            owners[place] = torch.zeros(storage.nbytes() // one.element_size(), dtype=torch.int32)
        owner = owners[place].as_strided(one.shape, one.stride(), one.storage_offset())
        if first := int(owner.max()):
            raise NetworkError(
                f"network {spec}: {parameters[first - 1][0]} and {name} are two parameters that share memory; to tie "
                "them assign the parameter itself, as in self.two.weight = self.one.weight"
            )
        owner.fill_(number)


def gives_probabilities(network: Network, model: nn.Module) -> bool:
    """Whether the outputs for pictures of noise are at least zero and sum to one, as softmax makes them."""
    import torch

    if network.picture is None:
        return False
    with contained(BUILD_SECONDS), torch.no_grad():
        out = model.eval()(pictures(network)).float()
    return bool((out >= 0).all() and ((out.sum(dim=1) - 1).abs() < 1e-3).all())


def called_by_place(network: Network, function: object) -> str | None:
    """How the user's function is called, if it has no argument num_classes; None otherwise."""
    if network.num_classes is None or not callable(function):
        return None
    try:
        arguments = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if not arguments or any(one.name == "num_classes" or one.kind is one.VAR_KEYWORD for one in arguments):
        return None
    name, first = network.spec.rpartition(":")[2], next(iter(arguments)).name
    value = network.num_classes
    said = f"called as {name}({value}), so {first} = {value}: it has no argument named num_classes"
    classes = next((one.name for one in arguments if "class" in one.name or "label" in one.name), first)
    if classes == first:
        return said
    return f"{said}; write def build(num_classes): return {name}({classes}=num_classes)"


def takes_classes(function: object) -> bool:
    """Whether the user's function has an argument num_classes."""
    try:
        return callable(function) and "num_classes" in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False


def why_untraced(model: nn.Module) -> str | None:
    """What torch.fx says about a network that it cannot trace, with the user's line; None where it can.

    The tracer is that of `benchmark.roles.network_roles`, whose source stands in regions and so says nothing.
    """
    from torch.fx import Tracer

    from benchmark.roles import is_layer, is_norm

    tracer = Tracer()
    default = tracer.is_leaf_module
    tracer.is_leaf_module = lambda m, module_qualified_name: (  # type: ignore[method-assign]
        default(m, module_qualified_name) or is_norm(m) or is_layer(m)
    )
    try:
        tracer.trace(model.eval())
    except Exception as error:  # noqa: BLE001 - whatever a foreign forward does with a placeholder for a tensor
        frames = [one for one in traceback.extract_tb(error.__traceback__) if is_theirs(one.filename)]
        line = (frames[-1].line or "") if frames else ""
        said = re.sub(r"\. If you want this call to be recorded[^(]*\('\w+'\) at module scope", "", described(error))
        return f"{said}{f': `{line}`' if line else ''}{_hint(line, said)}"
    return None


def _hint(line: str, said: str) -> str:
    for ours, theirs, hint in _HINTS:
        if (found := re.search(ours, line)) and re.search(theirs, said):
            return f"; {hint.format(*found.groups())}"
    return ""
