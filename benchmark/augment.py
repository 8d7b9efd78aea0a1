"""Random crop and horizontal flip of whole batches, as tensor operations on the device that holds the data."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def send(source: Tensor, target: Tensor) -> None:
    """Copy `source` from the CPU into `target`, without waiting for a GPU: a plain copy would empty its queue."""
    if target.device.type == "cuda":
        source = source.pin_memory()
    target.copy_(source, non_blocking=True)


def pad_images(images: Tensor, padding: int) -> Tensor:
    """Add a black border for `crop`: uint8 (N, 3, H, W) → uint8 (N, H + 2·padding, W + 2·padding, 3)."""
    return F.pad(images, (padding, padding, padding, padding)).permute(0, 2, 3, 1).contiguous()


def crop(padded: Tensor, picks: Tensor, draws: Tensor, padding: int, *, flip: bool) -> Tensor:
    """Cut one window from each picked image: uint8 (B, 3, H, W) in channels_last, or another number of channels.

    padded: uint8 (N, H + 2·padding, W + 2·padding, 3) from `pad_images`. picks: int64 (B,), indices into it.
    draws: float32 (3, B, 1), uniform in [0, 1), all on one device. Every offset in 0…2·padding is equally likely, as
    in torchvision's RandomCrop(H, padding); with `flip`, half of the windows are mirrored.
    """
    if not padding and not flip:
        return padded[picks].permute(0, 3, 1, 2)
    height, width = padded.shape[1] - 2 * padding, padded.shape[2] - 2 * padding
    top, left = (draws[:2] * (2 * padding + 1)).long()
    column = torch.arange(width, device=padded.device)
    if flip:
        column = torch.where(draws[2] < 0.5, column.flip(0), column)
    rows = top + torch.arange(height, device=padded.device)
    columns = left + column
    return padded[picks[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


class Normalizer:
    """uint8 pixels (B, 3, H, W) → float32 with mean 0 and standard deviation 1 over the training set, per channel."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> None:
        self._mean = 255 * torch.tensor(mean, device=device).view(1, -1, 1, 1)
        self._scale = 1 / (255 * torch.tensor(std, device=device).view(1, -1, 1, 1))

    def __call__(self, images: Tensor) -> Tensor:
        return (images.float() - self._mean) * self._scale
