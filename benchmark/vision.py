"""Import torchvision, an optional package. Downloads of full data sets and `benchmark.speed` use it.

Each release of torchvision fits one release of torch. With another release, or a build from another index, it can be
installed and still fail at import ("operator torchvision::nms does not exist").
"""

from __future__ import annotations

import importlib
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

_MISSING = re.compile(r"operator (torchvision::\w+) does not exist")
_MOST_OPERATORS = 30
_PYTORCH_BUILD = re.compile(r"cpu|xpu|cu\d+|rocm[\d.]+")


class VisionMissing(Exception):
    """torchvision cannot be imported. The message says why and what to install."""


def installed_version() -> str | None:
    """Return the version of the installed torchvision, or None. Does not import it."""
    try:
        return version("torchvision")
    except PackageNotFoundError:
        return None


def vision(part: str) -> ModuleType:
    """Import the module `torchvision.<part>`, such as "datasets". Raises VisionMissing if that fails."""
    found = installed_version()
    if found is None:
        raise VisionMissing(f"torchvision is not installed; next: {install_command()}")
    try:
        return importlib.import_module(f"torchvision.{part}")
    except (ImportError, RuntimeError, AttributeError, OSError) as error:
        import torch

        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]  # modules imported before the error, so that the next attempt starts afresh
        raise VisionMissing(
            f"torchvision {found} does not fit torch {torch.__version__} ({error}); next: {install_command()}"
        ) from error


def import_networks(name: str) -> ModuleType:
    """Import torchvision or timm, or a module of them, for its classification networks. Raises ImportError.

    These networks are plain Python. So where torchvision's compiled operators do not fit the installed torch, the
    missing operators are declared without a body, and the networks can be used all the same.
    """
    import torch

    for _ in range(_MOST_OPERATORS):
        try:
            return importlib.import_module(name)
        except RuntimeError as error:
            missing = _MISSING.search(str(error))
            if missing is None:
                raise ImportError(str(error)) from error
            for module in [module for module in sys.modules if module.partition(".")[0] in ("torchvision", "timm")]:
                del sys.modules[module]
            torch.library.define(missing[1], "(Tensor a) -> Tensor")
    raise ImportError(f"{name} asks for ever more operators")


def install_command() -> str:
    """Return the command that installs the torchvision for the installed torch without changing torch.

    torchvision 0.24 belongs to torch 2.9, 0.25 to 2.10, and so on. The label of PyTorch's own builds ("+cpu", "+cu128")
    is also the name of their package index.
    """
    import torch

    number, _, build = torch.__version__.partition("+")
    minor = int(number.split(".")[1]) + 15
    index = f" --index-url https://download.pytorch.org/whl/{build}" if _PYTORCH_BUILD.fullmatch(build) else ""
    return f"pip install --force-reinstall --no-deps{index} 'torchvision==0.{minor}.*'"
