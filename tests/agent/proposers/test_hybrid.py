"""The hybrid proposer: the model writes the structure, Optuna scales its numbers, one budget pays for both."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from agent.engine.loop import End
from agent.llm.answers import Answer, Usage, WireCall
from agent.llm.capabilities import Message
from agent.proposers.hybrid import HybridProposer
from agent.proposers.llm import LLMProposer
from tests.agent.llm_servers import GOOD, Bench, bench, brief, proposals, run


class Writer:
    """Writes a structure and tests it, again and again while tests are left; then submits the best it knows of."""

    def __init__(self, *regions: str, impatient: bool = False) -> None:
        self.regions, self.impatient = regions, impatient
        self.seen: list[str] = []

    def complete(self, messages: list[Message], tools: list[dict[str, Any]] | None) -> Answer:
        """One structure an answer."""
        turn = sum(message["role"] == "assistant" for message in messages)
        told = [message["content"] for message in messages if message["role"] == "tool"]
        self.seen = told
        left = min(
            (int(n) for text in told for n in re.findall(r"(\d+) test\(?s?\)? (?:remaining|left)", text)), default=1
        )
        if left == 0 or turn >= len(self.regions):
            best = re.findall(r"code of test #(\d+)", "\n".join(told))
            calls: list[tuple[str, Any]] = [("submit", {"n": int(best[-1]) if best else 1})]
        else:
            calls = [("rewrite", {"content": self.regions[turn]}), ("test", {})]
            if self.impatient:
                calls.append(("submit", {"n": 1}))
        wire = tuple(WireCall(f"c{turn}{n}", name, json.dumps(given)) for n, (name, given) in enumerate(calls))
        return Answer(text="", calls=wire, usage=Usage(10, 10))


def near_one(number: int, region: str) -> float:
    """An accuracy that is best where the region's gain is 1.6."""
    gain = float(re.findall(r"gain = ([\d.e-]+)", region)[0])
    return 50.0 - 10.0 * abs(math.log(gain / 1.6))


def search(folder: Path, model: Writer, budget: int) -> tuple[End, Bench]:
    with bench(folder, budget, near_one) as on:
        inner = LLMProposer(brief(budget, scaled=True), model, on.log)
        proposer = HybridProposer(inner, seed=3, log=on.log, journal=folder / "study.journal")
        return run(proposer, on), on


def test_numbers_are_scaled_within_the_budget(tmp_path: Path) -> None:
    """Of 10 tests the model's first structure gets one and its numbers four; then the model sees the table."""
    model = Writer(GOOD.format(gain=1.0), GOOD.format(gain=2.0).replace("0.1", "0.2"))
    end, on = search(tmp_path, model, budget=10)
    assert end.status == "submitted"
    assert len(on.tests) == 1 + 4 + 1 + 2
    table = model.seen[1]
    assert table.startswith("[Test #1]")
    assert "| test | gain | resnet20-tiny | mean |" in table
    assert sum(line.startswith("| ") for line in table.splitlines()) == 1 + 5
    assert "5 test(s) left" in table


def test_region_holds_the_best_trial_afterwards(tmp_path: Path) -> None:
    """When the model goes on, it starts from the best numbers found, and the table says so."""
    model = Writer(GOOD.format(gain=0.6))
    end, on = search(tmp_path, model, budget=7)
    assert end.status == "submitted"
    best = on.tests[(on.best() or 0) - 1]
    assert best.number != 1
    assert best.region_sha256 == on.workspace.region_sha256
    assert f"code of test #{best.number}" in model.seen[1]


def test_submit_before_the_table_is_held_back(tmp_path: Path) -> None:
    """A submit in the same answer as the test waits until the model has seen the table."""
    model = Writer(GOOD.format(gain=0.6), impatient=True)
    end, on = search(tmp_path, model, budget=5)
    assert end.status == "submitted"
    assert "look at the table" in model.seen[2]
    assert on.submitted == on.best()


@pytest.mark.parametrize(
    ("region", "why"),
    [
        (GOOD.format(gain=1).replace("0.1 * gain", "0.1"), "there are none"),
        (GOOD.format(gain="1.0  # scale: 3..1"), "the range '3..1' is empty"),
    ],
)
def test_numbers_that_cannot_be_scaled(tmp_path: Path, region: str, why: str) -> None:
    """The model is told why, no test is spent on it, and the search goes on."""
    model = Writer(region)
    end, on = search(tmp_path, model, budget=6)
    assert (end.status, len(on.tests)) == ("submitted", 1)
    assert why in model.seen[1]


def test_small_budgets_belong_to_the_model(tmp_path: Path) -> None:
    """With one or two tests nothing is left for numbers."""
    for budget in (1, 2):
        model = Writer(*[GOOD.format(gain=float(n)) for n in range(1, 4)])
        _, on = search(tmp_path / str(budget), model, budget=budget)
        assert len(on.tests) == budget
        assert not any("scaled" in text for text in model.seen)


def test_failing_trials_cost_no_more_than_their_tests(tmp_path: Path) -> None:
    """Trials that fail are shown as failed; the model's own test stays the best."""
    region = GOOD.format(gain=1.0)

    with bench(tmp_path, 5) as on:
        on._score = lambda number, tested: None if tested != region else 20.0  # type: ignore[assignment, return-value]
        model = Writer(region)
        inner = LLMProposer(brief(5, scaled=True), model, on.log)
        end = run(HybridProposer(inner, seed=0, log=on.log, journal=tmp_path / "s.journal"), on)
        assert (end.status, on.submitted, len(on.tests)) == ("submitted", 1, 3)
        assert on.workspace.region == region
    assert "failed" in model.seen[1]


def test_resume_finds_the_same_numbers(tmp_path: Path) -> None:
    """Cut anywhere, the trials come out again as recorded, to the last digit."""
    regions = [GOOD.format(gain=1.0), GOOD.format(gain=3.0)]
    end, on = search(tmp_path / "whole", Writer(*regions), budget=6)
    lines = (tmp_path / "whole" / "events.jsonl").read_text().splitlines(keepends=True)
    numbers = [content["parameters"] for content in proposals(tmp_path / "whole") if "parameters" in content]
    assert len(numbers) == 3
    for kept in range(0, len(lines), 4):
        folder = tmp_path / f"cut{kept}"
        folder.mkdir()
        (folder / "events.jsonl").write_text("".join(lines[:kept]))
        again, other = search(folder, Writer(*regions), budget=6)
        assert (again, other.submitted) == (end, on.submitted)
        assert [content["parameters"] for content in proposals(folder) if "parameters" in content] == numbers
