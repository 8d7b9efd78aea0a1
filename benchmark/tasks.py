"""Tasks (a network, its data, its training recipe) and profiles (visible tasks and a hidden one)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """A training recipe: SGD with momentum; a cosine lowers the learning rate to zero over `epochs`, once per epoch.

    Images are padded by `crop_padding` pixels, cropped at random to 32×32 and flipped with probability ½.
    `train_limit` and `test_limit` keep only the first pictures, that many (None: all). If `held_out` > 0, the last
    `held_out` training pictures replace the test set and are not trained on.
    """

    epochs: int
    lr: float
    batch_size: int = 128
    momentum: float = 0.9
    weight_decay: float = 5e-4
    crop_padding: int = 4
    flip: bool = True
    train_limit: int | None = None
    test_limit: int | None = None
    held_out: int = 0


@dataclass(frozen=True)
class Task:
    """An architecture, a data set and a recipe."""

    arch: str
    dataset: str
    recipe: Recipe

    @property
    def name(self) -> str:
        """The task's name, such as `resnet56-cifar100`."""
        return f"{self.arch}-{self.dataset}"


@dataclass(frozen=True)
class Profile:
    """The visible and hidden tasks, with a caveat on what their numbers mean."""

    name: str
    visible: tuple[Task, ...]
    hidden: tuple[Task, ...]
    caveat: str
    fidelities: tuple[float, ...]
    """Lengths of looks as fractions of a test, shortest first. Shorter looks would rank at random."""

    def task(self, name: str) -> Task:
        """Return the task called `name`. Raises KeyError if the profile has none."""
        for task in (*self.visible, *self.hidden):
            if task.name == name:
                return task
        raise KeyError(name)


_PAPER = Recipe(epochs=200, lr=0.1)
_SMOKE = Recipe(epochs=2, lr=0.05, batch_size=32, train_limit=96, test_limit=50)

PROFILES: dict[str, Profile] = {
    "paper": Profile(
        name="paper",
        visible=(Task("resnet56", "cifar100", _PAPER), Task("vgg16bn", "cifar100", _PAPER)),
        hidden=(Task("mobilenetv2", "fmnist", _PAPER),),
        caveat="The full protocol: 200 epochs, best test accuracy.",
        fidelities=(1 / 16, 1 / 8),
    ),
    "pocket": Profile(
        name="pocket",
        visible=(
            Task("resnet56", "openclipart100", Recipe(epochs=4, lr=0.02, batch_size=32)),
            Task("vgg16bn", "openclipart100", Recipe(epochs=3, lr=0.003, batch_size=32)),
        ),
        hidden=(Task("mobilenetv2", "fmnist_pocket", Recipe(epochs=2, lr=0.02, batch_size=32, train_limit=3000)),),
        caveat="Early learning on small data (clip art, not CIFAR-100; a few epochs, not 200): a gain here is faster "
        "start-up and says nothing about the accuracy after a full training.",
        fidelities=(1 / 4, 1 / 2),
    ),
    "pocket_small": Profile(
        name="pocket_small",
        visible=(
            Task("resnet20", "openclipart100", Recipe(epochs=3, lr=0.05, batch_size=32)),
            Task("vgg8bn", "openclipart100", Recipe(epochs=3, lr=0.01, batch_size=32)),
        ),
        hidden=(
            Task(
                "mobilenetv2",
                "fmnist_pocket",
                Recipe(epochs=2, lr=0.02, batch_size=32, train_limit=2000, test_limit=1000),
            ),
        ),
        caveat="Early learning of small networks on small data (clip art, not CIFAR-100; three epochs, not 200): a "
        "gain here is faster start-up and says nothing about the accuracy after a full training.",
        fidelities=(1 / 4, 1 / 2),
    ),
    "mini": Profile(
        name="mini",
        visible=(Task("resnet20", "openclipart100", Recipe(epochs=3, lr=0.1, batch_size=32)),),
        hidden=(
            Task(
                "mobilenetv2",
                "fmnist_pocket",
                Recipe(epochs=2, lr=0.02, batch_size=32, train_limit=1000, test_limit=1000),
            ),
        ),
        caveat="One small network on clip art for a few epochs: made for comparing how searches search, again and "
        "again. It says nothing about initialisation elsewhere.",
        fidelities=(1 / 4, 1 / 2),
    ),
    "smoke": Profile(
        name="smoke",
        visible=(Task("resnet20", "tiny", _SMOKE),),
        hidden=(Task("mobilenetv2", "tiny", dataclasses.replace(_SMOKE, epochs=1)),),
        caveat="Seconds of training on a handful of pictures: for tests only, the accuracies mean nothing.",
        fidelities=(1 / 4, 1 / 2),
    ),
}


def get_profile(name: str) -> Profile:
    """Return the profile called `name`. Raises ValueError, which lists the known ones."""
    if name not in PROFILES:
        raise ValueError(f"unknown profile {name!r}; known: {', '.join(PROFILES)}")
    return PROFILES[name]
