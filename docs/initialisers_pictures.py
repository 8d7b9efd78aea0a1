"""The pictures of docs/initialisers.md: python docs/initialisers_pictures.py (writes docs/pictures/, half a minute).

Each shows how a signal travels through an untrained network: forwards as activations, backwards as gradients.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from agent.report.plotting import Line, curves
from benchmark.data import load_dataset
from benchmark.initializers import initialize
from benchmark.models import BasicBlock, build_model
from benchmark.signal_table import measure
from prompts import environment

PICTURES = Path(__file__).resolve().parent / "pictures"
Lines = Mapping[str, Sequence[float]]
"""Label → a value per layer or block; the first line is drawn as the baseline."""

PLAIN: dict[str, dict[str, Any]] = {
    "Kaiming, fan_in": {"type": "Kaiming", "mode": "fan_in"},
    "Orthogonal, gain √2": {"type": "Orthogonal", "gain": 2**0.5},
    "Xavier": {"type": "Xavier"},
    "torch's default, without bias": {"type": "Kaiming", "mode": "fan_in", "a": 5**0.5, "nonlinearity": "leaky_relu"},
    "N(0, 0.02²)": {"type": "Normal", "std": 0.02},
}


def plain_network() -> Lines:
    """Root mean square after each of 12 convolutions (3×3, 32 channels) with ReLU and no norm, for noise of size 1."""
    lines = {}
    for label, rule in PLAIN.items():
        torch.manual_seed(0)
        convs = [nn.Conv2d(32, 32, 3, padding=1, padding_mode="circular") for _ in range(12)]
        network = nn.Sequential(*(layer for conv in convs for layer in (conv, nn.ReLU())))
        initialize(network, {**rule, "layer": "Conv2d"})
        lines[label] = rms_after(network, convs, torch.randn(16, 32, 16, 16))
    return lines


def residual_stream() -> Lines:
    """Root mean square after each of ResNet-56's 27 blocks, for noise of size 1, with its batch norms and without."""
    kaiming = {"type": "Kaiming", "layer": "Conv2d"}
    lines = {}
    for label, rules, norms in (
        ("Kaiming, batch norm", [kaiming], True),
        ("Kaiming, no norms", [kaiming], False),
        ("Kaiming and Fixup, no norms", [kaiming, {"type": "Fixup", "layer": "BasicBlock"}], False),
    ):
        torch.manual_seed(0)
        network = build_model("resnet56", 100).train()
        if not norms:
            remove_norms(network)
        initialize(network, rules)
        blocks = [module for module in network.modules() if isinstance(module, BasicBlock)]
        lines[label] = rms_after(network, blocks, torch.randn(16, 3, 32, 32))
    return lines


def first_steps() -> Lines:
    """‖∂loss/∂W‖ / ‖W‖ of ResNet-56's 3×3 convolutions, on 128 pictures of OpenClipart-100."""
    data = load_dataset("openclipart100")
    recipes = ("kaiming_normal", "orthogonal", "gradinit_like", "zero_last_gamma")
    return {
        recipe: [
            layer.relative_gradient
            for layer in measure(recipe, "resnet56", data).layers
            if layer.kind == "Conv2d" and "shortcut" not in layer.name
        ]
        for recipe in recipes
    }


def depthwise_steps() -> Lines:
    """‖∂loss/∂W‖ / ‖W‖ of MobileNetV2's 17 depthwise convolutions, on 128 pictures of FashionMNIST-pocket."""
    data = load_dataset("fmnist_pocket")
    depthwise = [
        name
        for name, module in build_model("mobilenetv2", data.num_classes).named_modules()
        if isinstance(module, nn.Conv2d) and module.groups > 1
    ]
    return {
        recipe: [
            layer.relative_gradient for layer in measure(recipe, "mobilenetv2", data).layers if layer.name in depthwise
        ]
        for recipe in ("kaiming_normal", "kaiming_groups_correct")
    }


def rms_after(network: nn.Module, modules: Sequence[nn.Module], images: Tensor) -> list[float]:
    """Root mean square of each module's output."""
    found: list[float] = []
    for module in modules:
        module.register_forward_hook(lambda _m, _i, out: found.append(out.double().square().mean().sqrt().item()))
    with torch.no_grad():
        network(images)
    return found


def remove_norms(network: nn.Module) -> None:
    """Put an identity in the place of every batch norm."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.Identity())


FIGURES = {
    "plain": (plain_network, "convolution", "size of its output"),
    "residual": (residual_stream, "block", "size of its output"),
    "first_steps": (first_steps, "3×3 convolution of ResNet-56", "gradient / weight"),
    "depthwise": (depthwise_steps, "depthwise convolution of MobileNetV2", "gradient / weight"),
}
"""File name → what is measured, and the axes."""


def draw(name: str) -> str:
    """A picture as an SVG file that follows the reader's light or dark setting, on paper of its own."""
    values, x, y = FIGURES[name]
    lines = [
        Line(label, range(1, len(line) + 1), line, baseline=index == 0, series=max(0, index - 1))
        for index, (label, line) in enumerate(values().items())
    ]
    ends = "; ".join(f"{line.label} from {line.y[0]:.2g} to {line.y[-1]:.2g}" for line in lines)
    svg = str(curves(name, lines, x=x, y=y, alt=f"{y} by {x}: {ends}", log=True).svg)
    light, dark = re.findall(r":root \{([^}]*)\}", environment().get_template("report.css.j2").render())[:2]
    style = f"svg {{{shades(light, svg)}}}\n@media (prefers-color-scheme: dark) {{ svg {{{shades(dark, svg)}}} }}"
    head, _, body = svg.partition(">")
    paper = '<rect width="100%" height="100%" rx="6" fill="var(--paper)"/>'
    return f'{head} xmlns="http://www.w3.org/2000/svg" font-family="sans-serif">\n<style>{style}</style>{paper}{body}\n'


def shades(palette: str, svg: str) -> str:
    """The colours of the report's palette that the drawing uses."""
    found = re.findall(r"(--[\w-]+): (#\w+);", palette)
    return " ".join(f"{name}: {colour};" for name, colour in found if f"var({name})" in svg or name == "--paper")


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    for figure in FIGURES:
        (PICTURES / f"{figure}.svg").write_text(draw(figure), encoding="utf-8")
        print(PICTURES / f"{figure}.svg")
