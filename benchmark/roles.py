"""The roles of a network's layers, read from its module graph, whoever wrote the network.

`network_roles` and its two helpers use no names but torch, nn and each other: the built-in search space copies their
source into the regions that it writes for networks of other people.
"""

from __future__ import annotations

import torch
from torch import nn

from benchmark.networks import FoundRoles, Role


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a batch, instance, group, layer or RMS norm with a weight of its own."""
    families = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
    return isinstance(module, families) and module._parameters.get("weight") is not None


def is_layer(module: nn.Module) -> bool:
    """Whether a module is a convolution or a Linear layer whose weight is a parameter, as weight norm's is not."""
    kinds = (nn.modules.conv._ConvNd, nn.Linear)
    return isinstance(module, kinds) and module._parameters.get("weight") is not None


def network_roles(model: nn.Module) -> dict:  # type: ignore[type-arg]
    """The roles in a network: head, branches, skips, and whether torch.fx could trace it ("traced").

    The head is the layer that gives the output, unless an activation follows it. A branch is what an addition adds to a
    skip: the side with more layers. Each is (last layer, gain, open). The gain is the parameter that multiplies the
    branch's output: a LayerScale, or the weight of a norm behind the last layer; None without one. Open: no activation
    stands between the last layer and the addition. A network that cannot be traced has no branches, and its head is the
    last Linear layer.
    """
    layers = [module for module in model.modules() if is_layer(module)]
    linears = [layer for layer in layers if isinstance(layer, nn.Linear)]
    roles: dict = {"head": (linears or layers or [None])[-1], "branches": [], "skips": [], "traced": False}  # type: ignore[type-arg]
    tracer = torch.fx.Tracer()
    default = tracer.is_leaf_module
    tracer.is_leaf_module = lambda m, module_qualified_name: (  # type: ignore[method-assign]
        default(m, module_qualified_name) or is_norm(m) or is_layer(m)
    )
    training = [(module, module.training) for module in model.modules()]
    try:
        nodes = list(tracer.trace(model.eval()).nodes)  # without training, dropped paths are no part of the graph
    except Exception:  # noqa: BLE001 - whatever a foreign forward does with a placeholder for a tensor
        return roles
    finally:
        for module, mode in training:
            module.training = mode
    roles["traced"] = True
    modules = dict(model.named_modules(remove_duplicate=False))
    parameters = dict(model.named_parameters(remove_duplicate=False))
    called = {node: modules[node.target] for node in nodes if node.op == "call_module"}
    called = {n: m.out_proj if isinstance(m, nn.MultiheadAttention) else m for n, m in called.items()}
    above: dict[torch.fx.Node, set[torch.fx.Node]] = {}
    for node in nodes:
        above[node] = {node}.union(*(above[source] for source in node.all_input_nodes))

    def kind(node: torch.fx.Node) -> str:
        return "" if node in called else node.name.rstrip("_0123456789")

    def own_layers(side: torch.fx.Node, other: torch.fx.Node) -> list[nn.Module]:
        return [called[n] for n in nodes if n in above[side] - above[other] and n in called and is_layer(called[n])]

    def end(node: torch.fx.Node) -> tuple[nn.Parameter | None, bool]:
        """The gain of a branch whose output is `node`, and whether its last layer reaches the addition unchanged."""
        gain = None
        same = {"stochastic_depth", "dropout", "getitem", "contiguous", "transpose", "permute", "mean", "avg_pool"}
        same |= {"reshape", "view", "flatten", "unflatten", "squeeze", "log_softmax", "adaptive_avg_pool"}
        pools = (nn.modules.pooling._AvgPoolNd, nn.modules.pooling._AdaptiveAvgPoolNd)
        passing = (nn.Identity, nn.modules.dropout._DropoutNd, nn.Flatten, nn.Unflatten, nn.LogSoftmax, *pools)
        while node.all_input_nodes:
            module = called.get(node)
            source = node.all_input_nodes[0]
            if module is not None and is_layer(module):
                return gain, True
            if module is not None and is_norm(module) and all(isinstance(m, nn.Identity) for m in module.children()):
                gain = module.weight if gain is None else gain
            elif kind(node) in ("mul", "imul") and len(node.all_input_nodes) == 2:
                held = {
                    n: [parameters.get(str(a.target)) for a in above[n] if a.op == "get_attr"]
                    for n in node.all_input_nodes
                }
                fixed = [n for n in held if len(held[n]) == 1 and not any(a.op == "placeholder" for a in above[n])]
                if len(fixed) != 1 or held[fixed[0]][0] is None:
                    return gain, False
                gain = held[fixed[0]][0] if gain is None else gain
                source = next(n for n in node.all_input_nodes if n is not fixed[0])
            elif not (isinstance(module, passing) or kind(node).rstrip("123d") in same or kind(node) in same):
                return gain, False
            node = source
        return gain, False

    for node in nodes:
        sides = node.all_input_nodes
        if kind(node) not in ("add", "iadd") or len(sides) != 2 or node.op not in ("call_function", "call_method"):
            continue
        if not all(any(a.op == "placeholder" for a in above[side]) for side in sides):
            continue
        skip, branch = sorted((own_layers(*sides), own_layers(*sides[::-1])), key=len)
        if len(branch) > len(skip) and all(branch[-1] is not layer for layer, _, _ in roles["branches"]):
            side = sides[0] if own_layers(*sides) == branch else sides[1]
            roles["branches"].append((branch[-1], *end(side)))
            roles["skips"] += [layer for layer in skip if layer not in roles["skips"]]
    ran = [called[node] for node in nodes if node in called and is_layer(called[node])]
    roles["head"] = ran[-1] if ran and end(nodes[-1].all_input_nodes[0])[1] else None
    return roles


def found_roles(model: nn.Module) -> FoundRoles:
    """What each number of the built-in search space would change in `model`, whose weights are as built.

    A weight of zeros is left out where a number multiplies it. The exponent of L branches needs L > 1.
    """
    try:
        found = network_roles(model)
    except Exception:  # noqa: BLE001 - such as a forward that returns a constant: its network is loaded all the same
        found = {"head": None, "branches": [], "skips": [], "traced": False}
    layers = [module for module in model.modules() if is_layer(module) and bool(module.weight.any())]  # type: ignore[operator]
    convs = [layer for layer in layers if isinstance(layer, nn.modules.conv._ConvNd)]
    tied = [id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)]
    branches, head = found["branches"], found["head"]
    ends = {id(gain) for _, gain, _ in branches}
    norms = [m for m in model.modules() if is_norm(m) and getattr(m, "bias", None) is not None]
    has: dict[Role, bool] = {
        "layer": bool(layers),
        "conv": bool(convs),
        "identity": any(
            conv.weight.dim() > 2 and not conv.transposed and conv.out_channels % conv.groups == 0 for conv in convs
        ),
        "norm": any(id(norm.weight) not in ends for norm in norms),
        "branch": len(branches) > 1 and any(layer in layers for layer, _, _ in branches),
        "gain": any(gain is not None or (opened and layer in layers) for layer, gain, opened in branches),
        "skip_conv": any(layer in layers for layer in found["skips"]),
        "depthwise": any(map(is_depthwise, layers)),
        "hidden": bool(hidden_weights(model, head)),
        "head": head in layers and id(head.weight) not in tied,
    }
    present = tuple(role for role, there in has.items() if there)
    return FoundRoles(present, roles_in_words(model, found), bool(found["traced"]))


def is_depthwise(module: nn.Module) -> bool:
    """Whether the module is a convolution, transposed ones included, whose every channel has a kernel of its own."""
    return isinstance(module, nn.modules.conv._ConvNd) and module.groups == module.in_channels > 1


def hidden_weights(model: nn.Module, head: nn.Module | None) -> list[torch.Tensor]:
    """The weights, other than zero, of Linear layers but the head, and of attention's joined projections."""
    linears = (m.weight for m in model.modules() if isinstance(m, nn.Linear) and is_layer(m) and m is not head)
    joined = (m.in_proj_weight for m in model.modules() if isinstance(m, nn.MultiheadAttention))
    return [weight for weight in (*linears, *joined) if weight is not None and bool(weight.any())]


def roles_in_words(model: nn.Module, found: dict | None = None) -> str:  # type: ignore[type-arg]
    """One sentence on what `network_roles` found, such as "8 residual branches, 3 layers on skips, head fc"."""
    found = network_roles(model) if found is None else found
    names = {module: name for name, module in model.named_modules()}
    head = "no head that could be scaled" if found["head"] is None else f"head {names[found['head']]}"
    if not found["traced"]:
        return f"torch.fx cannot trace the network, so it counts as one without branches; {head}"
    branches, skips = len(found["branches"]), len(found["skips"])
    return (
        f"{branches or 'no'} residual branch{'' if branches == 1 else 'es'}, "
        f"{skips or 'no'} layer{'' if skips == 1 else 's'} on skips, {head}"
    )
