"""Choose the number format of a training: bfloat16 if the hardware computes in it natively."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

PRECISIONS = ("auto", "fp32", "bf16")


def resolve_precision(precision: str, device: torch.device | str) -> str:
    """Turn `precision` into "fp32" or "bf16". "auto" is "bf16" if `device` computes in it natively.

    Emulated bfloat16 is slower than float32, so "auto" checks the hardware, not the library.
    Raises ValueError for any other word.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; choose one of {', '.join(PRECISIONS)}")
    if precision != "auto":
        return precision
    return "bf16" if _has_native_bf16(torch.device(device)) else "fp32"


def _has_native_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return not _cpu_flags().isdisjoint({"avx512_bf16", "amx_bf16"})
    return False


def _cpu_flags() -> set[str]:
    """Return the kernel's flags of an x86 processor; empty on others. torch 2.9 has no function for them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return {flag for line in lines if line.startswith("flags") for flag in line.split()}


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which a forward pass uses the resolved `precision` ("fp32" or "bf16")."""
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()
