"""The estimate of what a training costs."""

from __future__ import annotations

import time

import pytest

from benchmark.cost import SIZES, MeasureCost, pictures
from benchmark.data import NUM_CLASSES, load_dataset
from benchmark.tasks import Recipe, Task


@pytest.mark.parametrize("name", ["openclipart100", "fmnist_pocket", "tiny"])
def test_sizes_are_those_of_the_data(name: str) -> None:
    """`agent plan` counts the pictures that a search will train on."""
    dataset = load_dataset(name)
    assert SIZES[name] == (len(dataset.train_labels), len(dataset.test_labels))


def test_every_data_set_has_a_size() -> None:
    """A profile on any data set can be planned."""
    assert set(SIZES) == set(NUM_CLASSES)


class _Alone:
    def report(self, content: object, /) -> None: ...
    def ask(self, question: object, /) -> None: ...


@pytest.mark.parametrize("how", [{}, {"idle": True}, {"lanes": 2}])
def test_a_training_is_estimated_from_steps_without_its_set_up(how: dict[str, int]) -> None:
    """The first step of a process once counted too: a search of eight minutes was said to take hours."""
    task = Task("resnet20", "tiny", Recipe(epochs=2, lr=0.05, batch_size=8))
    started = time.perf_counter()
    estimate = MeasureCost(task, steps=1, **how)(_Alone())  # type: ignore[arg-type]
    took = time.perf_counter() - started
    assert estimate > 0
    assert pictures(task) == (400, 200)
    # What it counts is 8 pictures, or 160 in each of two lanes; the estimate is for 467.
    assert estimate < took * 467 / (160 if "lanes" in how else 8)
