"""Load initial weights from an untrusted file into a model. This is the trusted side of the trust boundary.

Nothing is unpickled and no link is followed. The model keeps its own parameters, buffers, hooks and flags: only values
are copied into it, and only if all of them are valid.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from benchmark.files import NotPlain, open_plain

_HEADER_ALLOWANCE = 1 << 20
"""Bytes that a file may have beyond its tensors, for names, shapes and offsets."""


class WeightsRejected(ValueError):
    """The file has no acceptable initial weights. The model is unchanged.

    `kind` is "missing", "not_regular" (a link, a folder, a pipe, a device), "too_large", "format", "keys", "shape",
    "dtype" or "not_finite".
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def load_initial_weights(path: Path, model: nn.Module) -> None:
    """Copy the parameters in the safetensors file `path` into `model`, in place.

    The file must have exactly the names of `model.named_parameters()`, each with the parameter's shape and dtype and
    with finite values. Otherwise it raises WeightsRejected and copies nothing.
    """
    parameters = dict(model.named_parameters())
    size = sum(parameter.numel() * parameter.element_size() for parameter in parameters.values())
    tensors = _parse(path, _read(path, size + _HEADER_ALLOWANCE))
    _check_names(path, set(tensors), set(parameters))
    for name, parameter in parameters.items():
        _check_tensor(f"{path}: {name}", tensors[name], parameter)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])


def _read(path: Path, limit: int) -> bytes:
    """Read all bytes of a regular file once, so that later changes of the file have no effect."""
    try:
        handle = open_plain(path.parent, path.name)
    except FileNotFoundError as error:
        raise WeightsRejected("missing", f"{path}: there is no such file") from error
    except NotPlain as error:
        raise WeightsRejected("not_regular", str(error)) from error
    with os.fdopen(handle, "rb") as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise WeightsRejected("too_large", f"{path}: more than the {limit:,} bytes that are expected")
    return data


def _parse(path: Path, data: bytes) -> dict[str, Tensor]:
    try:
        return load(data)
    # A broken header raises SafetensorError; dtypes and shapes that torch lacks raise the others.
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise WeightsRejected("format", f"{path}: not a safetensors file ({error})") from error


def _check_names(path: Path, found: set[str], expected: set[str]) -> None:
    for what, names in (("missing", expected - found), ("not a parameter of the model", found - expected)):
        if names:
            shown = ", ".join(repr(name[:80]) for name in sorted(names)[:5])
            raise WeightsRejected("keys", f"{path}: {what}: {shown}{' and others' if len(names) > 5 else ''}")


def _check_tensor(where: str, tensor: Tensor, parameter: nn.Parameter) -> None:
    if tensor.dtype != parameter.dtype:
        raise WeightsRejected("dtype", f"{where} has dtype {tensor.dtype}, the model wants {parameter.dtype}")
    if tensor.shape != parameter.shape:
        raise WeightsRejected("shape", f"{where} has shape {tuple(tensor.shape)}, not {tuple(parameter.shape)}")
    if not bool(torch.isfinite(tensor).all()):
        raise WeightsRejected("not_finite", f"{where} has NaN or infinite values")
