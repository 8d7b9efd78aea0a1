"""`agent baselines`: the library as code, as a table, and explained."""

from __future__ import annotations

import functools
import itertools
import json
import re
from pathlib import Path

import pytest

from agent.cli.baselines import print_config, print_list, table
from agent.errors import UsageError
from agent.protocol import CandidateFailure
from agent.studies.recipes import Results, make_rows
from benchmark.hardware import environment
from benchmark.recipes import get_recipe, recipe_names
from benchmark.store import ResultStore
from benchmark.tasks import PROFILES
from tests.agent.conftest import Agent, json_lines
from tests.benchmark.test_noise_measured import result
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


def test_list_names_every_recipe(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    """A line on each, and the source with --json."""
    lines = agent("baselines", "--list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(recipe_names())
    assert f"fixup                    {get_recipe('fixup').description}" in lines
    print_list(as_json=True)
    (found,) = json_lines(capsys.readouterr().out)
    assert found["fixup"]["source"] == get_recipe("fixup").source


def test_a_list_of_no_recipes_is_refused(agent: Agent) -> None:
    """The baseline was trained, and then the command broke off with an IndexError."""
    result = agent("baselines", "--profile", "smoke", "--recipes", " , ")
    assert result.returncode == 2
    assert "error: --recipes: no name given; known: kaiming_normal, " in result.stderr


def test_explain_says_which_rule_set_what_and_how_the_signal_travels(agent: Agent) -> None:
    """Fixup's zeros show: branches are silent against their skips at step 0."""
    (found,) = json_lines(agent("baselines", "--explain", "fixup", "--arch", "resnet20", "--json").stdout)
    assert {parameter["name"] for parameter in found["init_log"]["parameters"]} >= {"conv1.weight", "fc.bias"}
    assert [branch["branch_to_skip"] for branch in found["signal"]["branches"]] == [0.0] * 9
    text = agent("baselines", "--explain", "kaiming_normal", "--arch", "resnet20").stdout
    assert re.search(r"^layer1\.0\.bn2\.weight +\(16,\) +1 +0$", text, re.MULTILINE)
    assert "dead ReLU channels" in text


def test_measured_table_compares_with_the_baseline(agent: Agent, tmp_path: Path) -> None:
    """Real trainings on the smoke profile; a second call takes everything from the store and prints the same.

    It printed other intervals where the store held enough results: its noise had the first call's trainings, too.
    """
    store = ResultStore(tmp_path / "cache" / "results")
    here = environment()
    for code, seed in itertools.product("abcdefgh", range(3)):
        kept = result(code, seed, 1.0 + 9 * seed, TASK, device=here["device"], precision=here["precision"])
        store.put(kept.model_copy(update={"task": TASK.name}))
    agent = functools.partial(agent, env={"INITSEARCH_CACHE_DIR": str(tmp_path / "cache")})
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
    base, half, none = make_rows("smoke", TASK, results, n_candidates=2)
    assert half.as_json()["mean"] == 60.0
    assert half.failed == {1: "timeout: too slow"}
    assert half.comparison is not None
    assert half.comparison.gain == 15.0
    assert half.epochs_to_target == [1]
    assert none.comparison is None
    assert none.as_json()["n"] == 0
    assert (base.target, base.epochs_to_target) == (45.0, [1])
    lines = table([base, half, none]).splitlines()
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1
    assert "≥ 45.00 %" in lines[2]
    assert lines[4] == "| kaiming_normal | 45.00 | 7.07 | 2 |  |  |  | 1 of 2 | 1.0 |"
    assert lines[6].startswith("| none | failed | | 0 | | | timeout: too slow")


def test_epochs_are_counted_to_the_accuracy_that_was_asked_for() -> None:
    """The first epoch at or above the target; a run that never gets there does not count."""
    slow = make_result("a", 50.0)
    first = slow.curve[0]
    curve = tuple(
        first.model_copy(update={"epoch": epoch, "test_acc": accuracy, "seconds": 10.0 * epoch})
        for epoch, accuracy in ((1, 20.0), (2, 40.0), (3, 35.0), (4, 50.0))
    )
    results: Results = {"kaiming_normal": {0: slow.model_copy(update={"curve": curve}), 1: make_result("b", 30.0)}}
    (row,) = make_rows("smoke", TASK, results, n_candidates=1, target=40.0)
    assert (row.target, row.epochs_to_target, row.seconds_to_target) == (40.0, [2], [20.0])


CONFIG = """
init_cfg=[dict(type='Kaiming', layer='Conv2d'), dict(type='Constant', val=1, layer=['_BatchNorm']),
          dict(type='Normal', layer='Linear', std=.01, override=dict(name='fc', type='Xavier'))],
"""


def test_a_config_found_elsewhere_becomes_a_region(
    agent: Agent, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """MMEngine's Python and JSON give the same text, which the check accepts."""
    (tmp_path / "cfg.py").write_text(CONFIG)
    result = agent("baselines", "--from-config", "cfg.py")
    assert result.returncode == 0, result.stderr
    (tmp_path / "mine.py").write_text(result.stdout)
    checked = agent("check", "mine.py", "--arch", "resnet20")
    assert checked.returncode == 0, checked.stdout
    print_config(tmp_path / "cfg.py", as_json=True)
    (found,) = json_lines(capsys.readouterr().out)
    assert found["region"] == result.stdout
    (tmp_path / "cfg.json").write_text(json.dumps(found["init_cfg"]))
    print_config(tmp_path / "cfg.json", as_json=False)
    assert capsys.readouterr().out == result.stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[{'type': 'Kaimng'}]", r"init_cfg\[0\]: unknown initialiser 'Kaimng'; did you mean 'Kaiming'"),
        (b"dict(type=open('x'))", r"line 1: \"open\('x'\)\" would have to be run"),
        (b"x = (", "neither JSON nor Python"),
        (b"\xff\xfe\xfa", "not UTF-8 text"),
        (None, "no such file"),
    ],
)
def test_a_file_that_is_no_config_is_a_usage_error(tmp_path: Path, text: bytes | None, message: str) -> None:
    """Exit 2, with the file and what is wrong in it."""
    path = tmp_path / "cfg.py"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(UsageError, match=rf"--from-config .*cfg\.py: {message}") as error:
        print_config(path, as_json=False)
    assert error.value.exit_code == 2
