"""The estimate of what a training costs."""

from __future__ import annotations

import pytest

from benchmark.cost import SIZES
from benchmark.data import NUM_CLASSES, load_dataset


@pytest.mark.parametrize("name", ["openclipart100", "fmnist_pocket", "tiny"])
def test_sizes_are_those_of_the_data(name: str) -> None:
    """`agent plan` counts the pictures that a search will train on."""
    dataset = load_dataset(name)
    assert SIZES[name] == (len(dataset.train_labels), len(dataset.test_labels))


def test_every_data_set_has_a_size() -> None:
    """A profile on any data set can be planned."""
    assert set(SIZES) == set(NUM_CLASSES)
