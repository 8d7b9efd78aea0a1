"""What a person takes away from a run: the patch, and the winning function as a module of its own."""

from __future__ import annotations

import ast
import email.utils

from agent.run import RunDirectory
from benchmark.files import write_atomically
from sandbox.workspace import Workspace

_HEADER = '''"""A weight initialisation found by initsearch (run {run}, test {number}).

    from initialize_weights import initialize_weights
    initialize_weights(model, {{"arch": "mine", "num_classes": 100, "depth": 50}})

`depth` is the number of Conv2d and Linear layers. What was measured, and what was not resolved: report and run.json
of that run.
"""

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

_BLOCK = '''class {name}(nn.Module):
    """Stands for this project's block of that name: no other network has one, so branches that ask for it are idle."""


'''


def write_artifacts(run: RunDirectory, workspace: Workspace, region: str, number: int) -> None:
    """Write `submission.patch` and `initialize_weights.py` into the run directory."""
    diff = workspace.diff("baseline", f"test/{number}")
    write_atomically(run.path / "submission.patch", mail(diff, run.path.name, number).encode())
    write_atomically(run.path / "initialize_weights.py", stand_alone(region, run.path.name, number).encode())


def mail(diff: str, run: str, number: int) -> str:
    """A diff in the form that `git am` takes."""
    return (
        f"From {'0' * 40} Mon Sep 17 00:00:00 2001\n"
        "From: initsearch <initsearch@localhost>\n"
        f"Date: {email.utils.formatdate()}\n"
        f"Subject: [PATCH] Initialise weights as submitted by {run}, test {number}\n\n"
        f"---\n{diff.rstrip()}\n--\ninitsearch\n"
    )


def stand_alone(region: str, run: str, number: int) -> str:
    """The region as a module that needs torch (and numpy, if it uses it) and nothing of this project."""
    used = {node.id for node in ast.walk(ast.parse(region)) if isinstance(node, ast.Name)}
    blocks = [name for name in ("BasicBlock", "InvertedResidual") if name in used]
    if blocks:
        used.add("nn")
    imports = [line for name, line in _IMPORTS.items() if name in used]
    text = _HEADER.format(run=run, number=number, imports="\n".join(["from __future__ import annotations\n", *imports]))
    return text + "".join(_BLOCK.format(name=name) for name in blocks) + region
