"""Checkpoints of a training, so that a killed search loses minutes and not an hour."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from benchmark.files import write_atomically
from benchmark.results import EpochMetrics, StepZero

EVERY_SECONDS = float(os.environ.get("INITSEARCH_CHECKPOINT_SECONDS", "120"))
_GENERATOR = "generator."


class Reached(BaseModel):
    """How far a training has come, apart from its tensors."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=True, ser_json_inf_nan="constants")

    identity: str
    epoch: int
    unseen: int
    seconds: float
    curve: tuple[EpochMetrics, ...]
    step_zero: StepZero


def own_tensors(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers of a network by name, each tied one once, without sparse ones, which stay as built.

    `state_dict` would have both names of tied weights, and whatever a module keeps there besides tensors.
    """
    found = (*model.named_parameters(), *model.named_buffers())
    return {name: value.detach() for name, value in found if value.layout == torch.strided}


@dataclass(frozen=True)
class Checkpoint:
    """The file of one training. It is written after an epoch, at most every `every` seconds.

    `identity` says what is trained from which weights; a file of something else is not used. The file is trusted like
    a stored result, so it belongs into the user's own cache and not into a run directory: `store.checkpoint_folder`.
    """

    path: Path
    identity: str
    every: float = EVERY_SECONDS

    def write(self, reached: Reached, tensors: Mapping[str, Tensor], generators: Mapping[str, torch.Generator]) -> None:
        """Write durably, in place of the last one. A disk that refuses costs only the checkpoint."""
        # Clones, because safetensors refuses two names for the same memory, and a buffer may be a view of another.
        content = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        content |= {_GENERATOR + name: generator.get_state() for name, generator in generators.items()}
        try:
            data = save(content, metadata={"reached": json.dumps(reached.model_dump(mode="json"))})
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, data)
        except (OSError, SafetensorError, KeyError) as error:  # KeyError: a type that the format lacks, as complex128
            print(f"no checkpoint of this training could be written: {error}", file=sys.stderr, flush=True)

    def restore(self, tensors: Mapping[str, Tensor], generators: Mapping[str, torch.Generator]) -> Reached | None:
        """Copy the file's values into `tensors` and `generators`. Return how far it had come.

        Returns None and changes nothing if there is no file, or one that is damaged or of something else.
        """
        try:
            with safe_open(self.path, framework="pt") as file:
                reached = Reached.model_validate(json.loads((file.metadata() or {})["reached"]))
                saved = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
        except (OSError, SafetensorError, ValueError, KeyError, ValidationError):
            return None
        wanted = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
        found = {name: (value.shape, value.dtype) for name, value in saved.items() if not name.startswith(_GENERATOR)}
        drawn = {name.removeprefix(_GENERATOR) for name in saved if name.startswith(_GENERATOR)}
        if reached.identity != self.identity or found != wanted or drawn != set(generators):
            return None
        with torch.no_grad():
            for name, tensor in tensors.items():
                tensor.copy_(saved[name])
        for name, generator in generators.items():
            generator.set_state(saved[_GENERATOR + name])
        return reached

    def remove(self) -> None:
        """Remove the file, and its folder if that is empty now: the training has ended.

        A disk that refuses leaves the file. It is of use to nobody, and a later search removes it.
        """
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
            self.path.parent.rmdir()


class Timer:
    """Says when the next checkpoint is due."""

    def __init__(self, checkpoint: Checkpoint | None) -> None:
        self._every = checkpoint.every if checkpoint else float("inf")
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether `every` seconds have passed since the last time it was."""
        if time.monotonic() - self._last < self._every:
            return False
        self._last = time.monotonic()
        return True
