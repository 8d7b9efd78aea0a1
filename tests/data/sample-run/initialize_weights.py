"""A weight initialisation found by initsearch (run 20261128-201547-pocket-optuna-7a5b, test 1).

    import torchvision
    from initialize_weights import config_of, initialize_weights
    model = torchvision.models.resnet18()
    initialize_weights(model, config_of(model))

For networks of Conv2d, BatchNorm2d and Linear layers. `config` has arch (any string), num_classes, and depth, the
number of Conv2d and Linear layers.

What was measured (accuracy in percent, gains in points, against Kaiming initialisation):

visible resnet56-openclipart100: 14.43 % against 12.97 %, +1.5 points (95 % interval −3.7 … +6.6, 1 seed, best of
  3): not resolved; the smallest detectable effect is about 6.8
visible vgg16bn-openclipart100: 5.93 % against 3.18 %, +2.7 points (95 % interval −1.5 … +7.0, 1 seed, best of 3):
  not resolved; the smallest detectable effect is about 5.7
visible, all tasks: +2.1 points (95 % interval −1.0 … +5.2, mean of 2 tasks, best of 3): not resolved; the smallest
  detectable effect is about 4.1
hidden mobilenetv2-fmnist_pocket: 65.15 % against 75.30 %, −10.1 points (95 % interval −16.9 … −3.4, 1 seed):
  resolved, and worse than the baseline
in units of seed noise: visible +1.9 (−0.7 … +4.4), best of 3, hidden −4.6 (−7.7 … −1.5); visible minus hidden +6.5
  (+2.5 … +10.5): resolved
on the visible tasks no difference to the baseline is shown; on the hidden task it is worse than the baseline,
  resolved.
Early learning on small data (clip art, not CIFAR-100; a few epochs, not 200): a gain here is faster start-up and
  says nothing about the accuracy after a full training.
"""

from __future__ import annotations

import torch
from torch import nn


def config_of(model: nn.Module) -> dict[str, str | int]:
    """The `config` that initialize_weights wants, read from the network."""
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    linears = [module for module in layers if isinstance(module, nn.Linear)]
    classes = linears[-1].out_features if linears else 0
    return {"arch": type(model).__name__.lower(), "num_classes": classes, "depth": len(layers)}


def residual_branches(model):
    """The last convolution and norm of each residual branch, read from the module graph.

    At an addition the side with more convolutions is the branch, the other the skip.
    """
    try:
        nodes = torch.fx.Tracer().trace(model).nodes
    except Exception:  # a network that torch.fx cannot trace is treated as one without branches
        return []
    named, branches = dict(model.named_modules()), []

    def path_back(node):
        path = []
        while isinstance(node, torch.fx.Node):
            path.append(node)
            node = node.args[0] if node.args else None
        return path

    for node in nodes:
        if node.op == "call_module" or not node.name.startswith(("add", "iadd")) or len(node.args) < 2:
            continue
        left, right = path_back(node.args[0]), path_back(node.args[1])
        if not set(left) & set(right):
            continue
        sides = []  # the modules between fork and addition, the last one first
        for path, other in ((left, right), (right, left)):
            sides.append([named[step.target] for step in path if step.op == "call_module" and step not in other])
        skip, branch = sorted(sides, key=lambda side: sum(isinstance(module, nn.Conv2d) for module in side))
        convs = [module for module in branch if isinstance(module, nn.Conv2d)]
        others = [module for module in skip if isinstance(module, nn.Conv2d)]
        if len(convs) > len(others):
            after = branch[: branch.index(convs[0])]
            norms = [module for module in after if isinstance(module, nn.BatchNorm2d | nn.GroupNorm)]
            branches.append((convs[0], norms[0] if norms else None))
    return branches


def initialize_weights(model, config):
    """Kaiming normal, branch ends × L^-0.5, last γ 0, head × 0.1.

    Base: He et al. 2015 (fan_out for convolutions, fan_in for Linear layers); norms (1, 0), biases 0.
    L^-α at the end of each of L branches: after Zhang et al. 2019, Fixup, section 3.
    A small last γ starts blocks near their skip: Goyal et al. 2017, section 5.1.
    A small head makes the first predictions nearly uniform: Zhang et al. 2019, Fixup, rule 1.
    """
    branch_exponent = 0.5  # scale: 0..1 linear
    last_gamma = 0.0  # scale: 0..1 linear
    head_scale = 0.1  # scale: 0.02..1.5 log
    convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    norms = [norm for norm in model.modules() if isinstance(norm, nn.BatchNorm2d | nn.GroupNorm) and norm.affine]
    branches = residual_branches(model)

    for conv in convs:
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    for linear in linears:
        nn.init.kaiming_normal_(linear.weight, mode="fan_in", nonlinearity="relu")
    for norm in norms:
        nn.init.ones_(norm.weight)
        nn.init.zeros_(norm.bias)
    for layer in convs + linears:
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)

    with torch.no_grad():
        for last_conv, last_norm in branches:
            last_conv.weight.mul_(len(branches) ** -branch_exponent)
            if last_norm is not None:
                last_norm.weight.fill_(last_gamma)
        for linear in linears[-1:]:
            linear.weight.mul_(head_scale)
