"""Weights from a checkpoint: a path or a URL, torch or safetensors, never by running code that is in the file."""

from __future__ import annotations

import hashlib
import pickle
import shutil
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmark.initializers.all_or_nothing import all_or_nothing
from benchmark.initializers.errors import CheckpointError

_URL_TIMEOUT_SECONDS = 30
_SHOWN_KEYS = 8


def load_pretrained(
    module: nn.Module, checkpoint: str, prefix: str | None = None, map_location: str = "cpu"
) -> tuple[str, ...]:
    """Load a state dict into `module` in place; returns the checkpoint's keys that the module has no use for.

    checkpoint: path or http(s) URL of a file by torch.save (a state dict, or a dict with one under `state_dict`) or,
    with the ending .safetensors, by safetensors. Downloads are kept in the user's cache directory.
    prefix: take only the keys below it, and strip it. A `module.` in front, as left by data-parallel training, is
    stripped in any case. Values are cast to the module's dtype and device.
    Raises CheckpointError, before anything is touched, when the file is missing or unreadable, needs unpickling of
    code, has nothing below `prefix`, lacks a key of the module, or has another shape; the message names the keys.
    A missing `num_batches_tracked` is forgiven, as in MMEngine.
    """
    state, unused = fitting_state(module, checkpoint, prefix, map_location)
    with all_or_nothing(module):
        module.load_state_dict(state, strict=False)
    return unused


def fitting_state(
    module: nn.Module, checkpoint: str, prefix: str | None = None, map_location: str = "cpu"
) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """What `load_pretrained` would load, and the checkpoint's other keys; nothing is touched. Raises as it does."""
    state = {key.removeprefix("module."): value for key, value in _read(checkpoint, map_location).items()}
    if prefix is not None:
        dot = prefix if prefix.endswith(".") else f"{prefix}."
        below = {key.removeprefix(dot): value for key, value in state.items() if key.startswith(dot)}
        if not below:
            roots = sorted({key.partition(".")[0] for key in state})
            raise CheckpointError(f"{checkpoint} has no keys below {dot!r}; it has: {_join(roots)}")
        state = below
    own = module.state_dict()
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    misfits = [
        f"{key} (checkpoint {tuple(state[key].shape)}, module {tuple(own[key].shape)})"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    unused = tuple(key for key in state if key not in own)
    if missing or misfits:
        problems = [f"missing: {_join(missing)}"] if missing else []
        problems += [f"other shape: {_join(misfits)}"] if misfits else []
        problems += [f"not in the module: {_join(unused)}"] if unused else []
        raise CheckpointError(f"{checkpoint} does not fit {type(module).__name__}: {'; '.join(problems)}")
    return {key: value for key, value in state.items() if key in own}, unused


def _read(checkpoint: str, map_location: str) -> dict[str, torch.Tensor]:
    scheme, found, _ = checkpoint.partition("://")
    is_url = bool(found) and scheme.lower() in ("http", "https")
    if found and not is_url:
        raise CheckpointError(
            f"{checkpoint}: names of {scheme}:// are not known here; give the path of a file, or an http(s) URL"
        )
    path = _download(checkpoint) if is_url else Path(checkpoint).expanduser()
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}; give the path of a file, or an http(s) URL")
    try:
        return _parse(path, checkpoint, map_location)
    except CheckpointError:
        if is_url:
            path.unlink()  # an error page, say: the next attempt fetches it again
        raise


def _parse(path: Path, checkpoint: str, map_location: str) -> dict[str, torch.Tensor]:
    """The state dict in a file; `checkpoint` is its name for messages. Raises CheckpointError."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path, device=map_location)
        else:
            content = torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{checkpoint} is not a plain torch checkpoint: loading it would run code that is in the file, or it is "
            "damaged. Save its state_dict() with torch.save or safetensors"
        ) from error
    except Exception as error:  # whatever a damaged file or a wrong map_location makes the readers raise
        raise CheckpointError(f"cannot read {checkpoint} (map_location {map_location!r}): {error}") from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(isinstance(v, torch.Tensor) for v in content.values())
    ):
        kind = type(content).__name__
        raise CheckpointError(
            f"{checkpoint} holds no state dict (name → tensor) but a {kind}; save module.state_dict()"
        )
    if any(value.is_meta for value in content.values()):
        raise CheckpointError(f"cannot read {checkpoint}: with map_location {map_location!r} it has no values")
    return dict(content)


def _download(url: str) -> Path:
    """The file behind the URL, from the user's cache directory if it has been fetched before."""
    from platformdirs import user_cache_path

    name = Path(urllib.parse.urlsplit(url).path).name or "checkpoint"
    target = user_cache_path("initsearch") / "checkpoints" / f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-{name}"
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = None
    try:
        with (
            urllib.request.urlopen(url, timeout=_URL_TIMEOUT_SECONDS) as response,
            tempfile.NamedTemporaryFile(dir=target.parent, suffix=".part", delete=False) as file,
        ):
            part = Path(file.name)
            shutil.copyfileobj(response, file)
            announced = response.headers.get("Content-Length")
        if announced is not None and part.stat().st_size != int(announced):
            raise CheckpointError(f"the download of {url} broke off: {part.stat().st_size} of {announced} bytes")
        part.replace(target)
    except OSError as error:  # URLError and timeouts are kinds of OSError
        raise CheckpointError(f"cannot fetch {url}: {error}") from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)
    return target


def _join(keys: list[str] | tuple[str, ...]) -> str:
    more = f" and {len(keys) - _SHOWN_KEYS} more" if len(keys) > _SHOWN_KEYS else ""
    return ", ".join(keys[:_SHOWN_KEYS]) + more
