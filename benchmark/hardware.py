"""The hardware of this machine, and what of it accuracies depend on."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmark.executor import Parent

_GPU_NODES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")


def gpu_count() -> int:
    """Return the number of usable CUDA or ROCm devices. Imports torch only if a GPU's device node exists."""
    if not any(Path(node).exists() for node in _GPU_NODES):
        return 0
    import torch

    return torch.cuda.device_count()


def cpu_count() -> int:
    """Return the number of cores this process may use (affinity, container quota), at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass
    return cores


def threads() -> int:
    """Return the CPU threads that the executor assigned to this process, else all cores."""
    return int(os.environ.get("INITSEARCH_THREADS", "0")) or cpu_count()


@dataclass(frozen=True)
class DescribeEnvironment:
    """A call for an executor that returns the `environment` of its processes."""

    precision: str = "auto"
    kernels: str = "auto"

    def __call__(self, parent: Parent) -> dict[str, str]:
        return environment(self.precision, self.kernels)


def environment(precision: str = "auto", kernels: str = "auto") -> dict[str, str]:
    """Return what affects an accuracy besides code, task and seed. It is part of every result key.

    On a GPU the kernel path and cuDNN's version belong to it. Both follow from the card and the versions, not from
    what else trains there.
    """
    import torch

    from benchmark.precision import resolve_precision
    from benchmark.steps import resolve_kernels

    device = "cuda" if torch.cuda.is_available() else "cpu"
    path = {}
    if device == "cuda":
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        path = {"kernels": resolve_kernels(kernels, device), "cudnn": str(cudnn)}
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else f"cpu {platform.machine()}",
        "capability": "" if device == "cuda" else torch.backends.cpu.get_cpu_capability(),
        "precision": resolve_precision(precision, torch.device(device)),
        "threads": str(threads()),
        "torch": torch.__version__,
        **path,
    }
