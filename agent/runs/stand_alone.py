"""Writes a submitted region as a module of its own, which runs on networks that the region was not written for.

The module is a docstring, imports, `config_of`, the region, and the part of `benchmark.recipes.any_network` that needs
nothing of this project. `sandbox.region.region_of` takes the region out of it again.
"""

from __future__ import annotations

import ast
import functools
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import benchmark.recipes
from sandbox.parsing import parse
from sandbox.region import EXPORT_END

_HEADER = '''"""A weight initialisation found by initsearch (run {run}, test {number}).

    import torchvision
    from initialize_weights import {helper}initialize_weights
    model = torchvision.models.resnet18()
    initialize_weights(model, {example})

For networks of Conv2d, BatchNorm2d and Linear layers. `config` has arch (any string), num_classes, and depth, the
number of Conv2d and Linear layers.

What was measured ({units}, against {baseline}):

{measured}
"""

from __future__ import annotations

{imports}
'''

_IMPORTS: tuple[Mapping[str, str], ...] = (
    {
        "contextlib": "import contextlib",
        "functools": "import functools",
        "math": "import math",
        "warnings": "import warnings",
        "Callable": "from collections.abc import Callable, Iterator",
        "Any": "from typing import Any",
    },
    {
        "np": "import numpy as np",
        "torch": "import torch",
        "F": "import torch.nn.functional as F",
        "nn": "from torch import nn",
        "init": "from torch.nn import init",
    },
)

_HELPER = '''

def config_of(model: nn.Module) -> dict[str, str | int]:
    """The `config` that initialize_weights wants, read from the network."""
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    linears = [module for module in layers if isinstance(module, nn.Linear)]
    classes = linears[-1].out_features if linears else 0
    return {"arch": type(model).__name__.lower(), "num_classes": classes, "depth": len(layers)}
'''

_BLOCK = '''

class {name}(nn.Module):
    """Stands for this project's block of that name: no other network has one, so branches that ask for it are idle."""
'''

_ADAPTER = (
    "WithHead",
    "on_any_network",
    "full_config",
    "in_float32",
    "state_of",
    "listed",
    "completed",
    "blocks_left_out",
)
_ADAPTER_IMPORTS = {"contextlib", "functools", "warnings", "Any", "Callable", "torch", "nn"}
_WRAP = "initialize_weights = on_any_network(initialize_weights, blocks={blocks})\n"


def stand_alone(
    region: str,
    run: str,
    number: int,
    measured: Sequence[str] = (),
    *,
    units: str = "accuracy in percent, gains in points",
    baseline: str = "Kaiming initialisation",
    adapted: bool = True,
) -> str:
    """The region as a module that needs only torch (and numpy, if it uses it), nothing of this project.

    `adapted` False gives the form of version 0.1.0: the region stands at the end, and fails on networks that lack what
    it takes for granted. A region that defines one of the adapter's names has this form, too.
    """
    tree = parse(region)
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    blocks = [name for name in ("BasicBlock", "InvertedResidual") if name in used - defined]
    helper = "config_of" not in defined
    adapted = adapted and defined.isdisjoint(_ADAPTER)
    if blocks or helper:
        used.add("nn")
    if adapted:
        used |= _ADAPTER_IMPORTS
    lines = measured or ["Nothing: the run had not ended. Its report has the rest."]
    header = _HEADER.format(
        units=_plain(units),
        baseline=_plain(baseline),
        run=run,
        number=number,
        helper="config_of, " if helper else "",
        example="config_of(model)" if helper else '{"arch": "resnet18", "num_classes": 1000, "depth": 21}',
        measured="\n".join(textwrap.fill(_plain(line), 116, subsequent_indent="  ") for line in lines),
        imports="\n\n".join(
            "\n".join(wanted)
            for group in _IMPORTS
            if (wanted := [line for name, line in group.items() if name in used])
        ),
    )
    parts = [header, _HELPER if helper else "", *(_BLOCK.format(name=name) for name in blocks), "\n\n", region]
    if adapted:
        parts.append(
            f"\n\n{EXPORT_END}\n\n\n{_adapter()}\n\n\n{_WRAP.format(blocks='blocks_left_out' if blocks else None)}"
        )
    return "".join(parts)


@functools.cache
def _adapter() -> str:
    """The definitions that the module needs, as they stand in `benchmark.recipes.any_network`."""
    source = Path(benchmark.recipes.__file__).with_name("any_network.py").read_text(encoding="utf-8")
    lines, found = source.splitlines(), {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            found[node.name] = "\n".join(lines[first - 1 : node.end_lineno])
    return "\n\n\n".join(found[name] for name in _ADAPTER)


def _plain(sentence: str) -> str:
    """The sentence without characters that could end the docstring around it."""
    return sentence.replace("\\", "/").replace('"', "'")
