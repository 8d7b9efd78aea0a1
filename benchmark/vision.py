"""torchvision, an optional package: it downloads full data sets, and the plain loop of `benchmark.speed` uses it.

Each release of torchvision fits one release of torch. Beside another release, or a build from another index, it can be
installed and yet fail at import ("operator torchvision::nms does not exist").
"""

from __future__ import annotations

import importlib
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

_PYTORCH_BUILD = re.compile(r"cpu|xpu|cu\d+|rocm[\d.]+")


class VisionMissing(Exception):
    """torchvision cannot be imported; the message says why and what to install."""


def installed_version() -> str | None:
    """The version of the installed torchvision, or None. Does not import it."""
    try:
        return version("torchvision")
    except PackageNotFoundError:
        return None


def vision(part: str) -> ModuleType:
    """The module `torchvision.<part>`, e.g. "datasets". Raises VisionMissing when it cannot be imported."""
    found = installed_version()
    if found is None:
        raise VisionMissing(f"torchvision is not installed; next: {install_command()}")
    try:
        return importlib.import_module(f"torchvision.{part}")
    except (ImportError, RuntimeError, AttributeError, OSError) as error:
        import torch

        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]  # what was imported before the error, so that another attempt starts anew
        raise VisionMissing(
            f"torchvision {found} does not fit torch {torch.__version__} ({error}); next: {install_command()}"
        ) from error


def install_command() -> str:
    """What installs the torchvision that was built for the installed torch, and leaves torch alone.

    torchvision 0.24 belongs to torch 2.9, 0.25 to 2.10, and so on. The label of PyTorch's own builds ("+cpu", "+cu128")
    is also the name of their package index.
    """
    import torch

    number, _, build = torch.__version__.partition("+")
    minor = int(number.split(".")[1]) + 15
    index = f" --index-url https://download.pytorch.org/whl/{build}" if _PYTORCH_BUILD.fullmatch(build) else ""
    return f"pip install --force-reinstall --no-deps{index} 'torchvision==0.{minor}.*'"
