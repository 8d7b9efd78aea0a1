"""The A/A mode: real trainings among copies of the baseline, and everybody is told that they are copies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from agent import load_run
from agent.analysis.null_claims import NOTICE, claims, in_words
from agent.engine.search import SearchOutcome
from agent.proposers.null import relabelled
from benchmark.models import build_model
from benchmark.statistics import NoisePrior, compare
from sandbox.region import scaffold
from sandbox.rules import check_region
from tests.agent.conftest import Agent, Command, json_lines


@pytest.fixture(scope="module")
def null_run(tmp_path_factory: pytest.TempPathFactory, agent_in: Command) -> tuple[dict[str, Any], dict[str, Any]]:
    """The first and the last line of `agent search --null --json`, with one copy of the baseline tested."""
    words = ("search", "--null", "--profile", "smoke", "--budget", "1", "--json")
    result = agent_in(tmp_path_factory.mktemp("null"), *words, page=True)
    assert result.returncode == 0, result.stderr
    launch, done = json_lines(result.stdout)
    return launch, done


def _initialised(region: str, seed: int) -> torch.Tensor:
    scope: dict[str, object] = {"torch": torch, "nn": torch.nn}
    exec(compile(region, "region", "exec"), scope)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model("resnet20", 10)
        scope["initialize_weights"](model, {})  # type: ignore[operator]
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters() if parameter.ndim == 4])


def test_copies_have_other_numbers_of_the_same_distribution() -> None:
    """Each copy and each seed has tensors of its own, unrelated to the baseline's, of equal scale; a rerun has the
    same ones."""
    base = scaffold().region
    regions = [base, *(relabelled(base, number) for number in (1, 2, 3))]
    assert all(check_region(region) is None for region in regions)
    drawn = [_initialised(region, seed) for region in regions for seed in (0, 1, 2, 3)]
    together = torch.stack([weights / weights.std() for weights in drawn])
    between = together @ together.T / together.shape[1] - torch.eye(len(drawn))
    assert between.abs().max() < 5 / together.shape[1] ** 0.5  # 5 standard errors of a correlation that is zero
    assert torch.stack([weights.std() for weights in drawn]).std() < 0.01 * drawn[0].std()
    assert torch.equal(_initialised(regions[1], 3), drawn[7])


def test_a_copy_of_an_undocumented_function_is_code_too() -> None:
    """A region without a docstring is shifted before its first statement."""
    region = "def initialize_weights(model, config):\n  torch.nn.init.zeros_(model.fc.weight)\n"
    assert relabelled(region, 4).splitlines()[1:] == [
        "  # A/A copy 4: the same distribution, from other random numbers.",
        "  torch.manual_seed(int(torch.randint(2**62, ())) ^ 4)",
        "  torch.nn.init.zeros_(model.fc.weight)",
    ]


def test_null_search_is_a_whole_search_and_says_so_everywhere(
    null_run: tuple[dict[str, Any], dict[str, Any]], agent: Agent
) -> None:
    """A real test and a real hidden result; JSON, run.json, words, page, show and review say what it was."""
    launch, done = null_run
    run = Path(done["run"])
    assert launch["proposer"] == "null"
    assert (done["status"], done["tests_used"], done["null"]) == ("submitted", 1, True)
    assert done["would_have_claimed"] == []  # seed 0: gains of some points, with a noise of six
    results = [json.loads(path.read_text())["result"] for path in (run / "results").glob("*.json")]
    losses = {result["region_sha256"]: result["test_loss"] for result in results}
    assert len(losses) == len(set(losses.values())) == 2  # of the baseline and of its copy
    summary = load_run(run)
    assert summary["null"] is True
    assert NOTICE in summary["words"]
    assert any(line.startswith("would have claimed: nothing") for line in summary["words"])
    assert "A/A SEARCH" in (run / "report.html").read_text()
    for command in ("show", "review"):
        result = agent(command, str(run))
        assert "A/A SEARCH" in result.stdout, result.stderr


def test_ordinary_runs_are_not_called_null(finished: SearchOutcome) -> None:
    """The mark is for A/A searches only."""
    assert load_run(finished.run)["null"] is False
    assert "null" not in finished.done
    assert not any("A/A" in line for line in finished.words)


def test_claims_are_the_resolved_differences() -> None:
    """A false discovery is listed by kind and task, and the sentence names it."""
    prior = NoisePrior(0.5, 14)
    none, much = compare({1: 70.0}, {1: 70.1}, prior), compare({1: 70.0}, {1: 80.0}, prior)
    claimed = claims({"a": none, "b": much}, {"c": None})
    assert claimed == [
        {"kind": "visible", "task": "b", "resolved": "improvement"},
        {"kind": "visible", "task": None, "resolved": "improvement"},
    ]
    assert in_words(claimed).startswith("would have claimed: visible, b: improvement; visible, all tasks: improvement.")
    assert claims({"a": none}, {}) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--null", "--proposer", "random"), "--proposer random contradicts"),
        (("--null", "--start", "fixup"), "--start fixup contradicts"),
        (("--resume", "latest", "--budget", "5", "--no-cache"), "contradicts --budget, --no-cache"),
    ],
)
def test_contradictory_flags_are_refused_before_anything_is_made(
    agent: Agent, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    """Exit code 2, both flags named, and no run directory."""
    result = agent("search", "--profile", "smoke", *words) if "--resume" not in words else agent("search", *words)
    assert result.returncode == 2
    assert said in result.stderr
    assert not (tmp_path / "runs").exists()
