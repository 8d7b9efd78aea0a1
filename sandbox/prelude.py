"""The names in scope of a region, as `custom_init.py` imports them. A test compares the two."""

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
    """Return a new module namespace with the names of `PRELUDE`. Imports torch."""
    names: dict[str, object] = {"__name__": "custom_init"}
    exec(compile(PRELUDE, "<prelude>", "exec"), names)
    return names
