"""Every recipe, and every exported config, is a region that `agent check` accepts, in the isolation a search uses."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from agent.evaluation.check import check
from benchmark.initializers import INITIALIZERS, region_from_init_cfg
from benchmark.models import ARCHITECTURES
from benchmark.recipes import get_recipe, recipe_names
from sandbox.isolate import Isolation, Job, Limits

DETERMINISTIC = {"zero_init", "sinusoidal"}


@pytest.fixture(scope="module")
def isolation(request: pytest.FixtureRequest) -> Iterator[Isolation]:
    """One for all recipes: starting it takes longer than checking one."""
    if sys.platform == "linux":
        request.getfixturevalue("processes_shared")
    with Isolation(level="auto" if sys.platform == "linux" else "none", limits=Limits(wall_seconds=60)) as isolation:
        yield isolation


@pytest.mark.parametrize("name", recipe_names())
def test_check_accepts_the_recipe_on_every_network(isolation: Isolation, name: str) -> None:
    """A search can start from any of them on any profile; only two give the same tensors for every seed.

    Whether it repeats itself lies in the recipe and not in the network: thrice on the smallest, once on the others.
    """
    region = get_recipe(name).region
    report = check(region, {"resnet20": 100}, isolation)
    assert report.accepted, report.message
    assert report.archs["resnet20"]["seeded"] == (name not in DETERMINISTIC)
    assert_once(region, ARCHITECTURES.keys() - report.archs, 100, isolation)


def assert_once(region: str, archs: Iterable[str], classes: int, isolation: Isolation) -> None:
    for arch in archs:
        assert (once := isolation.initialise(Job(region, arch, classes, 0))).ok, f"{arch}: {once.message}"


@pytest.mark.parametrize("kind", [kind for kind in INITIALIZERS if kind != "Pretrained"])
def test_check_accepts_an_exported_config(isolation: Isolation, kind: str) -> None:
    """The functions that go with the text keep the rules for candidates, too.

    They are the same text on every network, so whether it repeats itself shows on the smallest.
    """
    layer = ["BasicBlock", "InvertedResidual"] if kind == "Fixup" else ["Conv2d", "Linear"]
    cfg: dict[str, Any] = {"type": kind, "layer": layer} | ({"val": 0.1} if kind == "Constant" else {})
    region = region_from_init_cfg(cfg)
    report = check(region, {"resnet20": 10}, isolation)
    assert report.accepted, report.message
    assert_once(region, ["mobilenetv2"], 10, isolation)
