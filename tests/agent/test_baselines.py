"""`agent baselines`: the library as code, as a table, and explained."""

from __future__ import annotations

import pytest

from agent.baselines import Results, make_rows
from agent.evaluation import CandidateFailure
from benchmark.recipes import get_recipe
from benchmark.tasks import PROFILES
from tests.agent.conftest import Agent, json_lines
from tests.benchmark.test_store import make_result

TASK = PROFILES["smoke"].visible[0]


def test_show_prints_a_region_that_a_search_can_start_from(agent: Agent) -> None:
    """stdout of `agent baselines --show fixup` is the recipe's text and nothing else."""
    result = agent("baselines", "--show", "fixup")
    assert result.returncode == 0
    assert result.stdout == get_recipe("fixup").region


@pytest.mark.parametrize("words", [("--show", "fxiup"), ("--explain", "fxiup"), ("--recipes", "kaiming_normal,fxiup")])
def test_unknown_recipe_gets_a_suggestion(agent: Agent, words: tuple[str, str]) -> None:
    """A misspelt recipe is exit 2 and costs nothing."""
    result = agent("baselines", "--profile", "smoke", *words)
    assert result.returncode == 2
    assert "did you mean 'fixup'" in result.stderr
    assert "epoch" not in result.stderr


def test_explain_says_which_rule_set_what_and_how_the_signal_travels(agent: Agent) -> None:
    """Fixup's zeros show: branches are silent against their skips at step 0."""
    (found,) = json_lines(agent("baselines", "--explain", "fixup", "--arch", "resnet20", "--json").stdout)
    assert {parameter["name"] for parameter in found["init_log"]["parameters"]} >= {"conv1.weight", "fc.bias"}
    assert [branch["branch_to_skip"] for branch in found["signal"]["branches"]] == [0.0] * 9
    text = agent("baselines", "--explain", "kaiming_normal", "--arch", "resnet20").stdout
    assert "layer1.0.bn2.weight - torch.Size([16])" in text
    assert "dead ReLU channels" in text


def test_measured_table_compares_with_the_baseline(agent: Agent) -> None:
    """Real trainings on the smoke profile; a second call takes everything from the store and prints the same."""
    words = ("baselines", "--profile", "smoke", "--recipes", "head_small", "--seeds", "2", "--json")
    first = agent(*words)
    (found,) = json_lines(first.stdout)
    rows = {row["recipe"]: row for row in found["rows"]}
    assert list(rows) == ["kaiming_normal", "head_small"]
    assert rows["head_small"]["n"] == 2
    assert rows["kaiming_normal"]["gain"] is None
    low, high = rows["head_small"]["ci"]
    assert low < rows["head_small"]["gain"] < high
    second = agent(*words)
    assert second.stderr.count("from the store") == 4
    assert second.stdout == first.stdout


def test_failed_seeds_are_shown_and_leave_the_mean_alone() -> None:
    """A recipe that fails with one seed is compared by the others, and the failure is named."""
    results: Results = {
        "kaiming_normal": {0: make_result("a", 40.0), 1: make_result("b", 50.0)},
        "half": {0: make_result("c", 60.0), 1: CandidateFailure("timeout", "too slow")},
        "none": {0: CandidateFailure("timeout", "too slow"), 1: CandidateFailure("timeout", "too slow")},
    }
    _, half, none = make_rows("smoke", TASK, results, n_candidates=2)
    assert half.as_json()["mean"] == 60.0
    assert half.failed == {1: "timeout: too slow"}
    assert half.comparison is not None
    assert half.comparison.gain == 15.0
    assert half.epochs_to_target == [1]
    assert none.comparison is None
    assert none.as_json()["n"] == 0
