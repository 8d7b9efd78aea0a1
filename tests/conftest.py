"""What all tests share."""

from __future__ import annotations

import functools
import gc
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import typer

# Before torch is imported. Several files run at a time, and others may use the machine: with more threads than free
# cores torch's workers wait for each other at every small operation, which makes tests several times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# What trains in the test's own process asks this one, and would otherwise leave torch with all cores for the tests that
# follow: tables that take 4 s took 83.
os.environ.setdefault("INITSEARCH_THREADS", "1")
# Imports make no garbage, and what they make stays: looking for garbage among it takes a twentieth of all the time.
gc.disable()


def pytest_collection_finish() -> None:
    gc.enable()
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def drawn_once() -> Iterator[None]:
    """Draw each figure once for each content: pages that differ elsewhere are made of the same, 0.2 s of drawing each.

    What draws is a function of its arguments alone; tests/agent/report/test_plotting.py tests it as it is.
    """
    from agent.report import network_view, plotting, run_figures

    def kept(draw: Callable[..., Any]) -> Callable[..., Any]:
        drawn: dict[str, Any] = {}

        def once(*arguments: Any, **named: Any) -> Any:
            content = repr((arguments, named))
            if content not in drawn:
                drawn[content] = draw(*arguments, **named)
            return drawn[content]

        return once

    with pytest.MonkeyPatch.context() as patch:
        curves = kept(plotting.curves)
        for module in (run_figures, network_view):
            patch.setattr(module, "curves", curves)
        patch.setattr(run_figures, "best_so_far", kept(plotting.best_so_far))
        yield


@pytest.fixture(scope="session")
def commands_built_once() -> Iterator[None]:
    """Build the command line from its functions once, and not in each of a thousand calls of `agent.cli.main`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.main, "get_command", functools.cache(typer.main.get_command))
        yield
