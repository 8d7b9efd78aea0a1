"""One template holds the task for every reader; old runs resume with it, and nothing hidden stands in it."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any, get_args

import pytest

from agent.llm.prompting import Means, task_prompt
from agent.protocol import Situation
from benchmark.tasks import PROFILES
from sandbox.region import SCAFFOLD_NAME, scaffold

AS_IN_OLD_RUNS = {
    (False, False, 0): "7b80d42d9ff21c1e",
    (False, True, 3): "12081a66fb4d0bb2",
    (True, False, 0): "0fb1d83bdb370b2d",
    (True, True, 3): "7c953d3c7a952a73",
}
"""(scaled, screening, confirm) → hash of the prompt without the file and the networks, which change by themselves."""


def text(profile: str, means: Means = "calls", **how: Any) -> str:
    """The task of a search with three tests and a measured baseline."""
    baseline = {task.name: {0: 61.5, 1: 62.25} for task in PROFILES[profile].visible}
    name = f"init/{SCAFFOLD_NAME}"
    situation = Situation(name, scaffold().region, (30, 60), tests_left=3, tests=(), baseline=baseline, best=None)
    return task_prompt(PROFILES[profile], situation, budget=3, seeds=(0, 1), means=means, **how)


@pytest.mark.parametrize("how", AS_IN_OLD_RUNS)
def test_a_model_reads_the_same_bytes_as_before(how: tuple[bool, bool, int]) -> None:
    """A resumed search compares the hash of each request with its log: one changed comma and it cannot be resumed."""
    scaled, screening, confirm = how
    whole = text("smoke", scaled=scaled, screening=screening, confirm=confirm)
    before, _, rest = whole.partition("# The file\n")
    after = rest.rpartition("# The networks")[2].partition("```python")[0]
    assert hashlib.sha256((before + after).encode()).hexdigest()[:16] == AS_IN_OLD_RUNS[how]


def test_nothing_hidden_is_named() -> None:
    """The task says that there is a hidden one, and neither its name nor its data."""
    for name, means in itertools.product(PROFILES, get_args(Means)):
        profile = PROFILES[name]
        written = text(name, means, screening=True)
        visible = {task.dataset for task in profile.visible}
        for task in profile.hidden:
            assert task.name not in written
            assert task.dataset in visible or task.dataset not in written
        assert "fashion" not in written.lower()


def test_every_reader_is_told_the_same_task() -> None:
    """Only what the reader can do, and where the file is, differs."""
    calls, mcp, folder = (text("smoke", means) for means in get_args(Means))
    assert len({whole.partition("# What you can do")[0] for whole in (calls, mcp, folder)}) == 1
    assert "agent session test" in folder
    assert "`edit` replaces" in mcp
    assert "call `wait`" in mcp
    assert "agent session" not in calls + mcp
    assert "`edit` replaces" not in folder
