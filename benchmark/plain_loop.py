"""The loop that people usually write, which `benchmark.speed` compares ours with."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmark.host_data import ImageData
from benchmark.tasks import Recipe
from benchmark.vision import VisionMissing, installed_version, vision


def torchvision_transforms() -> Any:
    """Import torchvision's transforms, even if torchvision was built for another torch (CUDA instead of CPU).

    Such a torchvision fails to import only because its compiled operators are missing. Transforms of PIL images use
    none of them, so it is enough to declare the missing ones.
    """
    try:
        return vision("transforms")
    except VisionMissing:
        if installed_version() is None:
            raise
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        signature = f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        library.define(signature)  # type: ignore[no-untyped-call]
    _LIBRARIES.append(library)  # an operator exists as long as its library
    return vision("transforms")


_LIBRARIES: list[torch.library.Library] = []


class _Pictures(Dataset[tuple[Tensor, int]]):
    """A data set like torchvision's own: PIL images that pass through a chain of transforms."""

    def __init__(self, images: Tensor, labels: Tensor, transform: Callable[[Any], Tensor]) -> None:
        self._images = images.permute(0, 2, 3, 1).contiguous().numpy()
        self._labels, self._transform = labels.tolist(), transform

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(Image.fromarray(self._images[index])), self._labels[index]


def plain_loop(
    model: nn.Module, data: ImageData, recipe: Recipe, *, seed: int, device: str = "cpu"
) -> Iterator[tuple[float, float]]:
    """The reference: float32, NCHW, torchvision transforms in a DataLoader with two workers.

    Yields the training images per second and the test accuracy in percent, once per epoch. The time counts from the
    arrival of the first batch, so that it does not include the start of the workers.
    """
    transforms = torchvision_transforms()
    torch.manual_seed(seed)
    model.to(device)
    finish = [transforms.ToTensor(), transforms.Normalize(data.mean, data.std)]
    augment = [transforms.RandomCrop(32, padding=recipe.crop_padding), transforms.RandomHorizontalFlip()]
    train_set = _Pictures(
        data.train_images[: recipe.train_limit],
        data.train_labels[: recipe.train_limit],
        transforms.Compose([*augment, *finish]),
    )
    test_set = _Pictures(
        data.test_images[: recipe.test_limit], data.test_labels[: recipe.test_limit], transforms.Compose(finish)
    )
    loader = DataLoader(train_set, recipe.batch_size, shuffle=True, num_workers=2, persistent_workers=True)
    test_loader = DataLoader(test_set, recipe.batch_size, num_workers=2, persistent_workers=True)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=recipe.epochs)
    for _ in range(recipe.epochs):
        model.train()
        batches = iter(loader)
        images, labels = next(batches)
        seen, running_loss, started = 0, 0.0, time.perf_counter()
        while True:
            optimizer.zero_grad()
            images, labels = images.to(device), labels.to(device)
            loss = criterion(model(images), labels)
            torch.autograd.backward(loss)
            optimizer.step()
            running_loss += loss.item() * len(labels)
            seen += len(labels)
            try:
                images, labels = next(batches)
            except StopIteration:
                break
        rate = seen / (time.perf_counter() - started)
        scheduler.step()
        model.eval()
        correct = 0
        with torch.no_grad():
            for images, labels in test_loader:
                correct += int((model(images.to(device)).argmax(1) == labels.to(device)).sum())
        yield rate, 100 * correct / len(test_set)
