"""The hardware of this machine, and what of it accuracies depend on."""

from __future__ import annotations

import os
import platform
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmark.executors import Parent

_GPU_NODES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")


def gpu_count() -> int:
    """Return the number of usable CUDA or ROCm devices. Imports torch only if a GPU's device node exists."""
    if not _has_gpu_node():
        return 0
    import torch

    # The driver counts devices that torch cannot use, for example because the driver is too old for it.
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def gpu_problem() -> str | None:
    """Say why torch cannot use a GPU that is in this machine. None if it can, or if there is none."""
    if not _has_gpu_node():
        return None
    import torch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            return None
    if torch.version.cuda is None and torch.version.hip is None:
        return f"there is a GPU, and torch {torch.__version__} is a build for CPUs: install one for the GPU's driver"
    reasons = "; ".join(str(warning.message).splitlines()[0] for warning in caught)
    return f"there is a GPU that torch {torch.__version__} cannot use{': ' if reasons else ''}{reasons}"


def _has_gpu_node() -> bool:
    return any(Path(node).exists() for node in _GPU_NODES)


@dataclass(frozen=True)
class GpuState:
    """One GPU as torch sees it. A slice of a card (MIG) is a GPU with a name of its own."""

    name: str
    capability: str
    memory_gb: float
    free_gb: float
    bf16: bool
    """Whether it computes in bfloat16; else trainings use float32."""


def gpus() -> list[GpuState]:
    """Return the GPUs that torch can use."""
    if gpu_count() == 0:
        return []
    import torch

    from benchmark.precision import resolve_precision

    found = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        capability = ".".join(map(str, torch.cuda.get_device_capability(index)))
        bf16 = resolve_precision("auto", f"cuda:{index}") == "bf16"
        name = torch.cuda.get_device_name(index)
        found.append(GpuState(name, capability, round(total / 1e9, 1), round(free / 1e9, 1), bf16))
    return found


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


def triton_version() -> str:
    """Return the version of the package triton; `missing` without it."""
    try:
        import triton
    except ImportError:
        return "missing"
    return str(triton.__version__)


def environment(precision: str = "auto", kernels: str = "auto") -> dict[str, str]:
    """Return what affects an accuracy besides code, task and seed. It is part of every result key.

    On a GPU the kernel path and cuDNN's version belong to it, and Triton's where its kernels train. All follow from the
    card, the setting and the versions, not from what else trains there.
    """
    import torch

    from benchmark.precision import resolve_precision
    from benchmark.steps import resolve_kernels

    device = "cuda" if torch.cuda.is_available() else "cpu"
    path = {}
    if device == "cuda":
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        # Where Triton is missing, who asked for this says so.
        path = {"kernels": kernels if kernels == "triton" else resolve_kernels(kernels, device), "cudnn": str(cudnn)}
        if kernels == "triton":
            path["triton"] = triton_version()
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else f"cpu {platform.machine()}",
        "capability": "" if device == "cuda" else torch.backends.cpu.get_cpu_capability(),
        "precision": resolve_precision(precision, torch.device(device)),
        "threads": str(threads()),
        "torch": str(torch.__version__),
        **path,
    }
