"""A small network, pictures and a task file, as a user has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

NETWORK = """\
from blocks import Scale
from torch import nn


def build(num_classes):
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.GroupNorm(2, 8), Scale(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes),
    )
"""
BLOCKS = """\
import torch
from torch import nn


class Scale(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.gamma = nn.Parameter(0.1 + 0.01 * torch.randn(width, 1, 1))

    def forward(self, x):
        return x * self.gamma
"""
TASK = """\
caveat = "A toy."

[[visible]]
network = "net.py:build"
data = "toys.npz"
epochs = 1
batch_size = 32
"""


def arrays(classes: int = 4, size: int = 12, train: int = 96, test: int = 32) -> dict[str, npt.NDArray[np.generic]]:
    """The four arrays of an .npz: grey pictures whose brightness tells the class."""
    random = np.random.default_rng(0)
    found: dict[str, npt.NDArray[np.generic]] = {}
    for split, count in (("train", train), ("test", test)):
        labels = np.arange(count) % classes
        noise = random.normal(90, 20, (count, size, size)) + 20 * labels[:, None, None]
        found[f"{split}_images"] = noise.clip(0, 255).astype(np.uint8)
        found[f"{split}_labels"] = labels
    return found


def write_task(folder: Path, task: str = TASK, network: str = NETWORK, **changed: npt.NDArray[np.generic]) -> Path:
    """Write the network, the pictures and the task file into `folder`; return the task file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "net.py").write_text(network)
    (folder / "blocks.py").write_text(BLOCKS)
    np.savez(folder / "toys.npz", **{**arrays(), **changed})  # type: ignore[arg-type]
    path = folder / "toys.toml"
    path.write_text(task)
    return path


def write_pictures(
    folder: Path, *, test: bool = True, size: int = 10, classes: tuple[str, ...] = ("cat", "dog")
) -> None:
    """Write a folder of grey PNG pictures, ten of each class for training."""
    from PIL import Image

    random = np.random.default_rng(0)
    for split, count in (("train", 10), ("test", 4)) if test else (("train", 10),):
        for name in classes:
            place = folder / split / name
            place.mkdir(parents=True)
            for index in range(count):
                Image.fromarray(random.integers(0, 256, (size, size), dtype=np.uint8)).save(place / f"{index}.png")
