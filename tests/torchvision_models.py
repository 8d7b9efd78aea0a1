"""torchvision's networks, also where its compiled operators do not fit the installed torch.

A CPU build of torch beside the package index's torchvision cannot load those operators (`operator torchvision::nms does
not exist`). The classification networks are plain Python and need none of them, so tests declare what is missing.
"""

from __future__ import annotations

import importlib
import re
import sys
from types import ModuleType

_MISSING = re.compile(r"operator (torchvision::\w+) does not exist")


def torchvision_models() -> ModuleType:
    """The module `torchvision.models`."""
    import torch

    for _ in range(30):
        try:
            return importlib.import_module("torchvision.models")
        except RuntimeError as error:
            missing = _MISSING.search(str(error))
            if missing is None:
                raise
            for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
                del sys.modules[name]
            torch.library.define(missing.group(1), "(Tensor a) -> Tensor")
    raise RuntimeError("torchvision asks for ever more operators")
