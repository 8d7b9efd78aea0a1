"""The checks of `tests.gpu` under pytest. Without a GPU the cheap ones run on the CPU, so that they keep working."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.gpu.__main__ import SMALL, why_not
from tests.gpu.checks import CHECKS, Setting, check_failures, check_lanes, check_streams
from tests.gpu.paper import check_paper
from tests.gpu.triton_kernels import TRITON_CHECKS, why_no_triton

Check = Callable[[Setting], str]


@pytest.mark.parametrize("check", [*CHECKS, *TRITON_CHECKS, check_paper])
def test_on_a_gpu(check: Check) -> None:
    """What the check's docstring says."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    if check in TRITON_CHECKS and (reason := why_no_triton(Setting())) is not None:
        pytest.skip(reason)
    check(Setting())


@pytest.mark.parametrize("check", [check_streams, check_lanes, check_failures])
def test_the_checks_themselves(check: Check) -> None:
    """On the CPU, with two lanes and small networks."""
    assert check(Setting(**{**vars(SMALL), "networks": ("resnet20",)}))
