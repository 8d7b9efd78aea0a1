"""What a person takes away from a run: the patch, and the winning function as a module of its own."""

from __future__ import annotations

import ast
import email.utils
import textwrap
import time
from collections.abc import Sequence

from agent.runs.directory import RunDirectory
from agent.runs.log import Submitted, read_events
from benchmark.files import write_atomically
from benchmark.recipes import asks_for_blocks
from sandbox.history import History
from sandbox.workspace import Workspace

ARTIFACTS = ("submission.patch", "initialize_weights.py")

_HEADER = '''"""A weight initialisation found by initsearch (run {run}, test {number}).

    import torchvision
    from initialize_weights import {helper}initialize_weights
    model = torchvision.models.resnet18()
    initialize_weights(model, {example})

For networks of Conv2d, BatchNorm2d and Linear layers; a warning says what of it was left out in your network.
`config` has arch (any string), num_classes, and depth, the number of Conv2d and Linear layers.

What was measured (accuracy in percent, gains in points, against Kaiming initialisation):

{measured}
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

{imports}
'''

_IMPORTS = {
    "math": "import math",
    "np": "import numpy as np",
    "torch": "import torch",
    "F": "import torch.nn.functional as F",
    "nn": "from torch import nn",
    "init": "from torch.nn import init",
}

_HELPER = '''

def config_of(model: nn.Module) -> dict[str, str | int]:
    """The `config` that initialize_weights wants, read from the network."""
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    linears = [module for module in layers if isinstance(module, nn.Linear)]
    classes = linears[-1].out_features if linears else 0
    return {"arch": type(model).__name__.lower(), "num_classes": classes, "depth": len(layers)}
'''

_FOOTER = "\n\ninitialize_weights = on_any_network(initialize_weights, blocks={blocks})\n"


def write_artifacts(
    run: RunDirectory, workspace: Workspace, region: str, number: int, measured: Sequence[str] = ()
) -> None:
    """Write `submission.patch` and `initialize_weights.py` into the run directory.

    `measured` are the sentences about the gains. Writing the patch again gives the same bytes, so that a review of it
    keeps its meaning.
    """
    write_atomically(run.path / "submission.patch", patch_text(run, workspace, number).encode())
    module = stand_alone(region, run.path.name, number, measured)
    write_atomically(run.path / "initialize_weights.py", module.encode())


def patch_text(run: RunDirectory, workspace: Workspace | History, number: int) -> str:
    """The content of submission.patch. It holds no numbers, because the hidden ones come after its review."""
    return mail(workspace.diff("baseline", f"test/{number}"), run.path.name, number, when=_submitted_at(run))


def mail(diff: str, run: str, number: int, *, when: float) -> str:
    """A diff in the form that `git am` takes, dated `when` (seconds since the epoch)."""
    return (
        f"From {'0' * 40} Mon Sep 17 00:00:00 2001\n"
        "From: initsearch <initsearch@localhost>\n"
        f"Date: {email.utils.formatdate(when)}\n"
        f"Subject: [PATCH] Initialise weights as submitted by {run}, test {number}\n"
        "MIME-Version: 1.0\nContent-Type: text/plain; charset=UTF-8\nContent-Transfer-Encoding: 8bit\n\n"
        "What was measured, and what was not resolved: report.html and run.json of that run.\n"
        f"---\n{diff.rstrip(chr(10))}\n-- \ninitsearch\n"
    )


def stand_alone(region: str, run: str, number: int, measured: Sequence[str] = ()) -> str:
    """The region as a module that needs torch (and numpy, if it uses it) and nothing of this project.

    The region stands in it unchanged, between what makes it work on other networks (`benchmark.recipes.any_network`)
    and the line that puts this to use.
    """
    from benchmark.recipes import any_network

    tree = ast.parse(region)
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    blocks = asks_for_blocks(region)
    helper = "config_of" not in defined
    used |= {"torch", "nn"}
    lines = measured or ["Nothing: the run had not ended. Its report has the rest."]
    header = _HEADER.format(
        run=run,
        number=number,
        helper="config_of, " if helper else "",
        example="config_of(model)" if helper else '{"arch": "resnet18", "num_classes": 1000, "depth": 21}',
        measured="\n".join(textwrap.fill(_plain(line), 116, subsequent_indent="  ") for line in lines),
        imports="\n".join(line for name, line in _IMPORTS.items() if name in used),
    )
    parts = [header, _HELPER if helper else "", "\n\n", any_network.source(blocks=blocks), "\n\n", region]
    return "".join(parts) + _footer(region)


def is_module_of(text: str, region: str) -> bool:
    """Whether a module's text ends as `stand_alone` of this region does; earlier versions put the region last."""
    return text.endswith((region, region + _footer(region)))


def _footer(region: str) -> str:
    return _FOOTER.format(blocks="recognised_blocks" if asks_for_blocks(region) else "None")


def _plain(sentence: str) -> str:
    """Nothing in a sentence may end the docstring that it stands in."""
    return sentence.replace("\\", "/").replace('"', "'")


def _submitted_at(run: RunDirectory) -> float:
    """When the submission was recorded; now, where the log has none."""
    if not run.has(run.events.name):
        return time.time()
    times = [record.ts for record in read_events(run.events) if isinstance(record.event, Submitted)]
    return times[-1] if times else time.time()
