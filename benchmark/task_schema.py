"""The form of a task file: keys, types, defaults and bounds. Reading one imports no code and no data."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from benchmark.files import read_toml
from benchmark.suggestions import suggestion
from benchmark.task import AS_BUILT, NUM_CLASSES, OURS, Metric, Recipe, Task
from benchmark.validation_words import in_plain_words

_MAX_BYTES = 2**20
_COMPONENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
PADDING = 8
"""A crop moves a picture by an eighth of its size, as 4 pixels of 32."""


class TaskFileError(ValueError):
    """A task file cannot be used. The message is one sentence with the key or the file it speaks of."""


Name = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class TaskTable(_Strict):
    """One [[visible]] or [[hidden]] table."""

    name: str | None = None
    network: Name
    data: Name | None = None
    train: Name | None = None
    metric: str = "score"
    direction: Literal["maximize", "minimize"] = "maximize"
    image_size: int | None = Field(default=None, ge=1, le=1024)
    epochs: int = Field(default=10, ge=1, le=100_000)
    batch_size: int = Field(default=64, ge=2, le=65_536)
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(default=0.05, gt=0, allow_inf_nan=False)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0, allow_inf_nan=False)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_epochs: float = Field(default=0.0, ge=0)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    augment: Literal["crop-flip", "flip", "none"] = "crop-flip"
    train_limit: int | None = Field(default=None, ge=2)
    test_limit: int | None = Field(default=None, ge=1)
    packages: tuple[str, ...] = ()

    @field_validator("lr", "momentum", "weight_decay", "warmup_epochs", "label_smoothing", mode="before")
    @classmethod
    def _whole_numbers_are_numbers(cls, value: object) -> object:
        return _as_float(value)

    @field_validator("packages", mode="before")
    @classmethod
    def _lists_are_tuples(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("packages")
    @classmethod
    def _import_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not name.isidentifier():
                raise ValueError(f"{name!r} is no name that Python imports")
        return value

    @field_validator("network", "data", "train")
    @classmethod
    def _from_home(cls, value: str | None) -> str | None:
        return str(Path(value).expanduser()) if value is not None and value.startswith("~/") else value

    @field_validator("name", "metric")
    @classmethod
    def _one_component(cls, value: str | None) -> str | None:
        return None if value is None else component(value)

    @model_validator(mode="after")
    def _data_or_train(self) -> TaskTable:
        if self.data is None and self.train is None:
            raise ValueError('a task needs data, or train = "FILE:FUNCTION" for a trainer of your own')
        if self.train is not None:
            ignored = sorted(self.model_fields_set & _RECIPE_KEYS)
            if ignored:
                raise ValueError(f"train takes the place of the recipe, so it contradicts {', '.join(ignored)}")
        elif "metric" in self.model_fields_set or "direction" in self.model_fields_set:
            raise ValueError("metric and direction belong to train; with data the metric is the test accuracy")
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs must be below epochs, {self.epochs}")
        return self

    @property
    def arch(self) -> str:
        """The network's name: of torchvision's, timm's and ours, or the function's; the file's if that is `build`."""
        first, _, second = self.network.rpartition(":")
        if first in ("torchvision", "timm", ""):
            return second
        return Path(first).stem if second == "build" else second

    @property
    def dataset(self) -> str:
        """The data's name: ours, torchvision's class, or the name of the folder or file without its ending."""
        if self.data is None:
            return Path((self.train or "").partition(":")[0]).stem
        if self.data.startswith("torchvision:"):
            return self.data.partition(":")[2].lower()
        return Path(self.data.partition(":")[0]).stem

    @property
    def functions(self) -> str:
        """The functions that the table names, for a message about code that may be any of them."""
        return " or ".join(name for name in (self.network, self.data, self.train) if name and ".py:" in name)

    @property
    def title(self) -> str:
        """The task's name. Raises ValueError if one is given that is no path component."""
        return component(self.name) if self.name is not None else default_name(f"{self.arch}-{self.dataset}")

    @property
    def score(self) -> Metric:
        """What the task's score is."""
        return Metric(self.metric, self.direction) if self.train is not None else Metric()

    def recipe(self, size: int = 32) -> Recipe:
        """The training recipe, for pictures of `size` pixels."""
        crop = max(1, round(size / PADDING)) if self.augment == "crop-flip" else 0
        return Recipe(
            epochs=self.epochs,
            lr=self.lr,
            batch_size=self.batch_size,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            crop_padding=crop,
            flip=self.augment != "none",
            train_limit=self.train_limit,
            test_limit=self.test_limit,
            optimizer=self.optimizer,
            schedule=self.schedule,
            warmup_epochs=self.warmup_epochs,
            label_smoothing=self.label_smoothing,
        )

    @property
    def is_ours(self) -> bool:
        """Whether network, data and name are all ours."""
        names = self.name in (None, f"{self.arch}-{self.dataset}")
        return self.network in OURS and self.data in NUM_CLASSES and self.image_size in (None, 32) and names

    def ours(self) -> Task:
        """The task of a table whose network and data are ours."""
        return Task(self.network, str(self.data), self.recipe())


_RECIPE_KEYS = frozenset(
    {"data", "image_size", "epochs", "batch_size", "optimizer", "lr", "momentum", "weight_decay", "schedule"}
    | {"warmup_epochs", "label_smoothing", "augment", "train_limit", "test_limit"}
)


class TaskFile(_Strict):
    """A whole task file."""

    name: str | None = None
    caveat: str = ""
    baseline: Name = AS_BUILT
    visible: tuple[TaskTable, ...] = Field(min_length=1)
    hidden: tuple[TaskTable, ...] = ()
    noise: dict[str, float] = Field(default_factory=dict)
    fidelities: tuple[float, ...] = (1 / 4, 1 / 2)

    @field_validator("visible", "hidden", "fidelities", mode="before")
    @classmethod
    def _lists_are_tuples(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("fidelities")
    @classmethod
    def _fractions(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value or list(value) != sorted(set(value)) or not all(0 < one < 1 for one in value):
            raise ValueError("must be fractions between 0 and 1, the smallest first")
        return value

    @field_validator("noise", mode="before")
    @classmethod
    def _numbers(cls, value: object) -> object:
        if not isinstance(value, dict):
            raise ValueError("it is a table with the SD of one seed by task: [noise], then NAME = 1.2")
        for key, one in value.items():
            if isinstance(one, dict):  # TOML takes a dot in a bare key for a table inside
                name = ".".join((str(key), *map(str, list(one)[:1])))
                raise ValueError(f'a name with a dot needs quotes there: "{name}" = …')
        return {key: _as_float(one) for key, one in value.items()}

    @field_validator("name")
    @classmethod
    def _one_component(cls, value: str | None) -> str | None:
        return None if value is None else component(value)

    @model_validator(mode="after")
    def _tasks_differ(self) -> TaskFile:
        seen: set[str] = set()
        for table in (*self.visible, *self.hidden):
            if table.title in seen:
                raise ValueError(f"two tasks are called {table.title!r}: give one of them another name")
            seen.add(table.title)
        for task, sd in self.noise.items():
            if task not in seen:
                raise ValueError(f"noise.{task}: no task has that name{suggested_key(task, seen)}")
            if not (math.isfinite(sd) and sd > 0):
                raise ValueError(f"noise.{task}: must be a positive number, not {sd}")
        return self


def _as_float(value: object) -> object:
    """A whole number as the float it stands for; anything else as it is. Raises ValueError for one too large."""
    try:
        return float(value) if type(value) is int else value
    except OverflowError:
        raise ValueError("the number is too large") from None


def component(value: str) -> str:
    """`value` if it can be the name of a file or folder in every folder. Raises ValueError."""
    if not _COMPONENT.fullmatch(value):
        raise ValueError(
            f"{value!r:.120} cannot be a name: use letters, digits, and . _ + - after the first, at most 100 of them"
        )
    return value


def default_name(words: str) -> str:
    """A name made of a file's or a folder's, which may have spaces and any letters."""
    plain = unicodedata.normalize("NFKD", words).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", plain).lstrip("._+-")[:100] or "task"


def read_task_file(path: Path) -> TaskFile:
    """Read a task file. Raises TaskFileError."""
    try:
        fields = read_toml(path, limit=_MAX_BYTES)
    except FileNotFoundError:
        raise TaskFileError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise TaskFileError(f"{path}: {' '.join(str(error).split())}") from None
    return parsed(fields, str(path))


def parsed(fields: dict[str, Any], where: str) -> TaskFile:
    """The task file with these fields; `where` names it in messages. Raises TaskFileError."""
    try:
        return TaskFile.model_validate(fields)
    except ValidationError as error:
        raise TaskFileError(f"{where}: {_first(error)}") from None


def _first(error: ValidationError) -> str:
    """The first fault, with its key and, for an unknown key, the nearest known one."""
    faults = error.errors(include_url=False)
    fault = next(
        (one for one in faults if one["type"] == "extra_forbidden"), faults[0]
    )  # a misspelt key is missing, too
    parts = [part for part in fault["loc"] if part != "function-before"]
    key = ".".join(str(part + 1 if isinstance(part, int) else part) for part in parts)
    message = in_plain_words(fault["msg"])
    if fault["type"] == "extra_forbidden":
        known, others = TaskTable.model_fields, TaskFile.model_fields
        known, others = (known, others) if len(parts) > 1 else (others, known)
        if parts[-1] == "noise" and len(parts) > 1:
            return f"{key} stands at the wrong place; it is a table of its own, [noise], with one SD for each task"
        if parts[-1] in others:
            place = "above the first [[visible]]" if len(parts) > 1 else "below [[visible]]"
            return f"{key} stands at the wrong place; it belongs {place}"
        return f"unknown key {key!r}{suggested_key(str(parts[-1]), set(known))}"
    if fault["type"] == "missing":
        return f"{key} is missing"
    given = fault["input"]
    if key in ("visible", "hidden") and isinstance(given, dict):
        return f"{key} is one table; write [[{key}]], with two brackets, before each task"
    if fault["type"] == "too_short":
        return f"{key} is empty"
    got = (
        ""
        if isinstance(given, dict | list | tuple | BaseModel) or repr(given)[:60] in message
        else f", not {given!r:.80}"
    )
    return f"{key}: {message}{got}" if key else f"{message}{got}"


_MEANINGS = {
    "lr": ("learning_rate", "base_lr", "eta"),
    "weight_decay": ("wd", "decay", "l2"),
    "batch_size": ("batch", "bs"),
    "epochs": ("n_epochs", "num_epochs", "max_epochs"),
    "warmup_epochs": ("warmup", "warm_up"),
    "optimizer": ("optim", "optimiser", "solver"),
    "schedule": ("scheduler", "lr_schedule", "lr_scheduler"),
    "augment": ("augmentation", "augmentations", "transform", "transforms"),
    "image_size": ("size", "resolution", "img_size", "input_size"),
    "label_smoothing": ("smoothing",),
    "network": ("model", "net", "arch", "architecture"),
    "data": ("dataset", "data_set", "images"),
    "train": ("trainer", "train_function"),
    "direction": ("mode", "goal"),
    "packages": ("imports", "requirements", "dependencies"),
    "visible": ("task", "tasks"),
}
"""Key → what else people call it."""


def suggested_key(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'lr'?` for the key of that meaning or of nearly that name, or the list of all."""
    known = set(known)
    other = name.lower().replace("-", "_")
    for key, names in _MEANINGS.items():
        if key in known and other in names:
            return f"; did you mean {key!r}?"
    return suggestion(name, known)
