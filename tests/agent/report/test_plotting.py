"""Figures as drawn by matplotlib, apart from the pages that show them."""

from __future__ import annotations

import re

import pytest

from agent.report.plotting import Line, curves


@pytest.mark.parametrize("decades", [1, 4, 8, 30])
def test_a_logarithmic_axis_has_numbers(decades: int) -> None:
    """Gradients that differed by eight decades between recipes were drawn over an axis without a single number."""
    line = Line("one", range(decades + 1), [10.0**-power for power in range(decades + 1)])
    svg = curves("title", [line], x="layer", y="gradient", alt="gradient by layer", log=True).svg
    middle = re.findall(r">([\d.e+-]+)</text>", svg)
    fractions = {float(number) for number in middle if 0 < float(number) < 1}
    assert len(fractions) >= 2
