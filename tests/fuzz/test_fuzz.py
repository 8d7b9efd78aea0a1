"""Whatever stands in a file or an answer, a reader gives a result or an error of its own."""

from __future__ import annotations

import os
import random
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, Target

SECONDS = float(os.environ.get("FUZZ_SECONDS", "0"))
"""For each reader. Without it a fixed set of inputs is tried, the same each time."""
EXAMPLES = 250


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_damaged_input_gives_a_result_or_an_error_of_ours(target: Target) -> None:
    """A person opens a file that was cut, edited or written by somebody hostile, and reads what is wrong with it."""

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=not SECONDS,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 2**64))
    def try_many(seed: int) -> None:
        target.once(random.Random(seed))

    end = time.monotonic() + SECONDS
    try_many()
    while time.monotonic() < end:
        try_many()
