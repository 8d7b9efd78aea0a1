"""What an exported module does to a network, computed without the search that it comes from."""

from __future__ import annotations

import hashlib
import importlib.util
import random
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from benchmark import networks
from benchmark.models import init_config
from benchmark.task import Task
from sandbox.isolate import derived_seed


def load_module(path: Path) -> ModuleType:
    """The module in this file, which is not entered in `sys.modules`."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def weights_of(exported: ModuleType, task: Task) -> str:
    """SHA-256 of the parameters that the module gives the task's network with seed 0, as in a result."""
    assert task.network is not None
    model = networks.build(task.network, 0)
    seed = derived_seed(0)
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    exported.initialize_weights(model, init_config(model, task.arch, task.num_classes))
    return hashlib.sha256(b"".join(p.detach().contiguous().numpy().tobytes() for p in model.parameters())).hexdigest()
