"""The types of a task: a network, its data and its training recipe; and of a profile, which groups tasks."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmark.networks import Network

NUM_CLASSES: dict[str, int] = {
    "cifar10": 10,
    "cifar100": 100,
    "fmnist": 10,
    "openclipart100": 100,
    "fmnist_pocket": 10,
    "tiny": 10,
}
"""The number of classes of each of our data sets, known without loading it."""

SIZES: dict[str, tuple[int, int]] = {
    "cifar10": (50_000, 10_000),
    "cifar100": (50_000, 10_000),
    "fmnist": (60_000, 10_000),
    "openclipart100": (2_340, 1_164),
    "fmnist_pocket": (5_000, 2_000),
    "tiny": (200, 100),
}
"""Number of training and test pictures of each of our data sets, known without loading it."""

OURS = ("resnet20", "resnet56", "vgg8bn", "vgg16bn", "mobilenetv2")
"""The names of our own networks, known without importing torch."""

AS_BUILT = "as_built"
"""The baseline that leaves every parameter as the network's own constructors made it."""


@dataclass(frozen=True)
class Recipe:
    """A training recipe. The learning rate follows `schedule` over `epochs`; a cosine lowers it to zero.

    Images are padded by `crop_padding` pixels, cropped at random to their old size and flipped with probability ½.
    `train_limit` and `test_limit` keep only the first pictures, that many (None: all). If `held_out` > 0, the last
    `held_out` training pictures replace the test set and are not trained on. During `warmup_epochs` the learning rate
    rises from zero, step by step.
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
    optimizer: Literal["sgd", "adamw"] = "sgd"
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_epochs: float = 0.0
    label_smoothing: float = 0.0

    def identity(self) -> dict[str, Any]:
        """The fields for a result's key. Those that came later and are at their default are left out."""
        fields = dataclasses.asdict(self)
        later = ("optimizer", "schedule", "warmup_epochs", "label_smoothing")
        default = {item.name: item.default for item in dataclasses.fields(self)}
        return {name: value for name, value in fields.items() if name not in later or value != default[name]}


@dataclass(frozen=True)
class Prepared:
    """A user's data set in the form that training reads: four arrays in a folder of the user's cache."""

    folder: Path
    sha256: str
    """Of the arrays' names, shapes, types and bytes."""
    classes: int
    train: int
    test: int
    channels: int
    size: tuple[int, int]
    """Height and width in pixels."""
    notes: tuple[str, ...] = ()
    """Sentences for the user, such as that a fifth was held out."""


@dataclass(frozen=True)
class Trainer:
    """A user's own training function, with all that its result depends on besides network, seed and machine."""

    spec: str
    """FILE:FUNCTION."""
    folder: Path
    """The folder of the task file, in which the function runs."""
    sources: tuple[tuple[str, str], ...] = ()
    """File name → SHA-256 of every module that it imports from that folder."""


@dataclass(frozen=True)
class Metric:
    """What a score is. `unit` follows a value, `points` follows a difference of two values."""

    name: str = "accuracy"
    direction: Literal["maximize", "minimize"] = "maximize"

    @property
    def sign(self) -> int:
        """1 if higher is better, else -1: a difference times `sign` is a gain."""
        return 1 if self.direction == "maximize" else -1

    @property
    def better(self) -> str:
        """`higher` or `lower`."""
        return "higher" if self.sign > 0 else "lower"

    @property
    def is_accuracy(self) -> bool:
        """Whether this is our own metric, accuracy in percent."""
        return self == ACCURACY

    @property
    def unit(self) -> str:
        """What follows a value: `%`, or the metric's name."""
        return "%" if self.is_accuracy else self.name

    @property
    def points(self) -> str:
        """The unit of a difference: `points`, or the metric's name."""
        return "points" if self.is_accuracy else self.name

    def as_json(self) -> dict[str, str]:
        """The fields `metric` and `direction` of an object in JSON; {} for accuracy, which needs none."""
        return {} if self.is_accuracy else {"metric": self.name, "direction": self.direction}

    def shown(self, value: float) -> str:
        """A value with its unit: `75.20 %`, or `val_loss 1.234`."""
        return f"{self.text(value)} %" if self.is_accuracy else f"{self.name} {self.text(value)}"

    def text(self, value: float, *, sign: bool = False) -> str:
        """A value or a difference without its unit: two digits after the point, or four that count.

        With `sign`, it has one: "+" or U+2212, as all differences on screen.
        """
        form = ".4g"
        if self.is_accuracy:
            form = ".2f"
        elif abs(value) < 1e7 or not math.isfinite(value):
            digits = 4 if value == 0 or not math.isfinite(value) else max(0, 3 - math.floor(math.log10(abs(value))))
            form = f".{min(digits, 8)}f"
        return with_sign(value, form) if sign else f"{value:{form}}"


def with_sign(value: float, form: str) -> str:
    """A number in this format with its sign, "+" (zero, too) or U+2212."""
    return f"{value:+{form}}".replace("-", "−", 1)


ACCURACY = Metric()
SEED_SD = Metric("seed SD")
"""The unit of a gain over tasks whose metrics differ: the standard deviation from seed to seed. No task has it."""


def common_metric(metrics: Iterable[Metric]) -> Metric:
    """The metric that all of them are; `SEED_SD` where they differ, accuracy where there is none."""
    found = set(metrics)
    return SEED_SD if len(found) > 1 else found.pop() if found else ACCURACY


@dataclass(frozen=True)
class Task:
    """An architecture, a data set and a recipe. A user's task has its network, and its data or its trainer, as well."""

    arch: str
    dataset: str
    recipe: Recipe
    title: str | None = None
    """The name that a task file gives; None: made of architecture and data set."""
    network: Network | None = None
    """None for one of our own networks in a built-in profile."""
    data: Prepared | None = None
    """None for one of our own data sets."""
    trainer: Trainer | None = None
    """None for our own training."""
    metric: Metric = field(default=ACCURACY)

    @property
    def name(self) -> str:
        """The task's name, such as `resnet56-cifar100`."""
        return self.title or f"{self.arch}-{self.dataset}"

    @property
    def strict(self) -> bool:
        """Whether a region must set every parameter: in our own networks, but not in a user's."""
        return self.network is None or self.network.spec in OURS

    def network_for(self, region: str) -> Network | None:
        """The network that isolation builds with its constructors' values in it; None where a region sets them all.

        Our own networks are built so only for the baseline that leaves them as they are.
        """
        from benchmark.recipes.as_built import REGION

        return self.network if not self.strict or region == REGION else None

    @property
    def num_classes(self) -> int:
        """The number of classes; 0 for a task with a trainer of its own."""
        if self.trainer is not None:
            return 0
        return NUM_CLASSES[self.dataset] if self.data is None else self.data.classes

    @property
    def sizes(self) -> tuple[int, int]:
        """Number of training and of test pictures; (0, 0) for a task with a trainer of its own."""
        if self.trainer is not None:
            return 0, 0
        return SIZES[self.dataset] if self.data is None else (self.data.train, self.data.test)

    @property
    def picture(self) -> tuple[int, int, int]:
        """Channels, height and width of a picture."""
        return (3, 32, 32) if self.data is None else (self.data.channels, *self.data.size)

    def identity(self) -> dict[str, Any]:
        """All of the task that determines a score, made of contents: the same for the same files in another folder."""
        found: dict[str, Any] = {"arch": self.arch, "dataset": self.dataset, "recipe": self.recipe.identity()}
        if self.network is not None and not self.strict:
            found["network"] = self.network.identity()
        if self.data is not None:
            found |= {"dataset": self.data.sha256}
        if self.trainer is not None:
            found |= {"trainer": {"spec": self.trainer.spec, "sources": dict(self.trainer.sources)}}
            found |= {"metric": dataclasses.asdict(self.metric), "recipe": {}}
        return found

    def as_json(self) -> dict[str, Any]:
        """The task as it stands in run.json and in a log, from which `agent.profiles.recorded_profile` reads it."""
        found: dict[str, Any] = {"arch": self.arch, "dataset": self.dataset, "recipe": self.recipe.identity()}
        extra = {"title": self.title, "network": self.network, "data": self.data, "trainer": self.trainer}
        for name, value in extra.items():
            if value is not None:
                fields: Any = dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value
                found[name] = json.loads(json.dumps(fields, default=str))
                if isinstance(fields, dict) and "folder" in fields:
                    found[name]["folder"] = ""  # where it lies is not part of the task
                if isinstance(value, Network) and value.found is None:
                    del found[name]["found"]  # a run that began before roles were looked for
        if not self.metric.is_accuracy:
            found["metric"] = dataclasses.asdict(self.metric)
        return found


@dataclass(frozen=True)
class Profile:
    """The visible and hidden tasks, with a caveat on what their numbers mean."""

    name: str
    visible: tuple[Task, ...]
    hidden: tuple[Task, ...]
    caveat: str
    fidelities: tuple[float, ...]
    """Lengths of looks as fractions of a test, shortest first. Shorter looks would rank at random."""
    baseline: str | None = None
    """The text of the region that the search starts as; None: the scaffold's own."""
    baseline_name: str = "kaiming_normal"
    noise: tuple[tuple[str, float], ...] = ()
    """Task name → prior SD of one seed, in units of the metric, as the task file states it."""
    file: Path | None = None
    """The task file that it was read from; None for a built-in profile."""

    @property
    def is_own(self) -> bool:
        """Whether a user made it: in a task file or from Python."""
        return any(task.network or task.data or task.trainer for task in self.tasks) or self.file is not None

    @property
    def tasks(self) -> tuple[Task, ...]:
        """All tasks, the visible ones first."""
        return (*self.visible, *self.hidden)

    @property
    def metrics(self) -> dict[str, Metric]:
        """Task → what its score is."""
        return {task.name: task.metric for task in self.tasks}

    def task(self, name: str) -> Task:
        """Return the task called `name`. Raises KeyError if the profile has none."""
        for task in self.tasks:
            if task.name == name:
                return task
        raise KeyError(name)
