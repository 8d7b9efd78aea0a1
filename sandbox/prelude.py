"""The names a strategy finds in scope: those that `custom_init.py` imports for it. A test compares the two."""

from __future__ import annotations

PRELUDE = """\
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn import init

from benchmark.models import BasicBlock, InvertedResidual
"""


def namespace() -> dict[str, object]:
    """A fresh module namespace with the names of `PRELUDE` in it. Imports torch."""
    names: dict[str, object] = {"__name__": "custom_init"}
    exec(compile(PRELUDE, "<prelude>", "exec"), names)
    return names
