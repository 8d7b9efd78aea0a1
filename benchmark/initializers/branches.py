"""Residual branches from a block's own graph: what is added to a skip, and what stands last before the addition.

Like `modules`, the functions use no names but torch, nn and each other, so that their source can be copied
into a region text.
"""

from __future__ import annotations

import torch
from torch import nn


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a normalisation with a weight, by its family: batch, instance, group, layer or RMS norm."""
    families = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
    return isinstance(module, families) and isinstance(module.weight, torch.Tensor)


def is_weight_layer(module: nn.Module) -> bool:
    """Whether a module holds a matrix or kernels of its own: a convolution, a Linear layer, and their like."""
    weight = getattr(module, "weight", None)
    return isinstance(weight, torch.Tensor) and weight.dim() > 1 and not any(module.children())


def residual_branches(block: nn.Module) -> list[tuple[list[nn.Module], nn.Module | None]] | None:
    """Each branch that `block` adds to a skip, in the order of computation: its weight layers, and its last module.

    The last module is the norm or weight layer whose output reaches the addition unchanged (but for dropout and
    identities), or None where something else stands there, such as an activation: zeroing what comes before that could
    stop all gradients. Of the two sides of an addition the branch is the one with more weight layers; with equally many
    the one that is not called shortcut, skip or downsample; else neither. None: the block cannot be traced.
    """
    tracer = torch.fx.Tracer()
    by_default = tracer.is_leaf_module
    # Found before the trace, during which a module's weight is a placeholder.
    whole = {m for m in block.modules() if is_norm(m) or is_weight_layer(m) or not any(m.children())}
    tracer.is_leaf_module = lambda m, module_qualified_name: (  # type: ignore[method-assign]
        by_default(m, module_qualified_name) or m in whole
    )
    try:
        graph = tracer.trace(block)
    except Exception:  # noqa: BLE001 - whatever a foreign forward does with a placeholder for a tensor
        return None
    modules = dict(block.named_modules())
    called = {node: modules[str(node.target)] for node in graph.nodes if node.op == "call_module"}
    above: dict[torch.fx.Node, set[torch.fx.Node]] = {}
    found: list[tuple[list[nn.Module], nn.Module | None]] = []
    for node in graph.nodes:
        above[node] = {node}.union(*(above[source] for source in node.all_input_nodes))
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
        sides = node.all_input_nodes
        adds = node.op in ("call_function", "call_method") and name.strip("_") in ("add", "iadd") and len(sides) == 2
        if not adds or not all(any(one.op == "placeholder" for one in above[side]) for side in sides):
            continue
        own = [
            [one for one in graph.nodes if one in above[side] - above[other]]
            for side, other in (sides, reversed(sides))
        ]
        layers = [[called[one] for one in nodes if one in called and is_weight_layer(called[one])] for nodes in own]
        counts = [len(side) for side in layers]
        if counts[0] == counts[1]:
            skips = ("shortcut", "skip", "downsample")
            counts = [-any(word in str(one.target) for one in nodes for word in skips) for nodes in own]
        if counts[0] == counts[1]:
            continue
        branch = 0 if counts[0] > counts[1] else 1
        found.append((layers[branch], last_module(sides[branch], called)))
    return found


def last_module(node: torch.fx.Node, called: dict[torch.fx.Node, nn.Module]) -> nn.Module | None:
    """The norm or weight layer that gives this value of a graph, looking through dropout and identities; or None."""
    transparent = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.Identity)
    while node in called and (
        isinstance(called[node], transparent) or type(called[node]).__name__ in ("DropPath", "StochasticDepth")
    ):
        node = node.all_input_nodes[0]
    module = called.get(node)
    if module is None or not all(isinstance(child, nn.Identity) for child in module.children()):
        return None  # a norm of timm's kind can have an activation inside
    return module if is_norm(module) or is_weight_layer(module) else None
