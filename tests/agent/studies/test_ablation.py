"""`agent ablate`: what the parts of a change are, what each carries, and that the hidden task stays untouched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.errors import UsageError
from agent.progress import Progress
from agent.report.ablation import PartResult, Seeds, read_ablation
from agent.runs.directory import RunDirectory
from agent.runs.record import read_run
from agent.studies.ablation import _conclusion, _contributions, ablate
from agent.studies.parts import find_parts
from benchmark.recipes import get_recipe
from tests.agent.conftest import Agent, Command, done_line, json_lines
from tests.agent.report_samples import change_summary, copy_run, read_log, write_log

pytestmark = pytest.mark.usefixtures("processes_shared")

START = '''def initialize_weights(model, config):
    """Kaiming."""
    gain = 1.0
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
'''


def test_hunks_and_numbers() -> None:
    """Each change alone, the largest first; a number goes to its value in the start, or to where it does nothing."""
    changed = START.replace("gain = 1.0", "gain = 0.5\n    bias = 0.1  # scale: -0.2..0.3 linear")
    changed += "            module.weight.data.mul_(gain)\n"
    parts = {part.label: part for part in find_parts(START, changed)}
    assert list(parts) == ["lines 3–4", "line 8", "gain 0.5 → 1.0", "bias 0.1 → 0.0"]
    assert "gain = 1.0\n    for" in parts["lines 3–4"].region
    assert "mul_(gain)" in parts["lines 3–4"].region
    assert parts["line 8"].region == changed.removesuffix("            module.weight.data.mul_(gain)\n")
    assert "gain = 1.0\n    bias = 0.1" in parts["gain 0.5 → 1.0"].region


def test_removed_lines_are_a_part() -> None:
    """What the submission only took out can be put back."""
    shorter = START.replace("    gain = 1.0\n", "").replace("kaiming_normal_", "orthogonal_")
    labels = [part.label for part in find_parts(START, shorter)]
    assert labels == ["1 line removed after line 2", "line 5"]


@pytest.mark.parametrize("submission", [START, START.replace("Kaiming", "He"), START.replace("1.0", "2.0")])
def test_one_piece_has_no_parts(submission: str) -> None:
    """No change, a change of words only, and a single change, whose part would be the start itself."""
    assert find_parts(START, submission) == []


@pytest.mark.parametrize("name", ["zero_last_gamma", "fixup", "head_small"])
def test_each_part_changes_something_else(name: str) -> None:
    """Against the baseline, no two variants of a recipe are equal, and none is the recipe or the baseline."""
    baseline, recipe = get_recipe("kaiming_normal").region, get_recipe(name).region
    regions = [part.region for part in find_parts(baseline, recipe)]
    assert len({baseline, recipe, *regions}) == len(regions) + 2


def test_contributions_are_corrected_and_point_the_right_way() -> None:
    """What accuracy falls without carries, what fails is needed, and more parts make every interval wider."""
    submission: dict[str, Seeds] = {"resnet20-tiny": {2: 40.0, 3: 42.0, 4: 41.0}}
    variants: dict[str, dict[str, Seeds]] = {
        "a": {"resnet20-tiny": {2: 10.0, 3: 11.0, 4: 10.0}},
        "b": {"resnet20-tiny": {2: 41.0, 3: 42.0, 4: 40.0}},
        "c": {"resnet20-tiny": {2: None, 3: 42.0, 4: 40.0}},
        "d": {"resnet20-tiny": {2: 80.0, 3: 81.0, 4: 79.0}},
    }
    found = _contributions("smoke", submission, variants)
    assert {name: one.resolved for name, one in found.items()} == {
        "a": "carries",
        "b": "not resolved",
        "c": "needed",
        "d": "in the way",
    }
    assert found["a"].gain == pytest.approx(41 - 31 / 3)
    alone = _contributions("smoke", submission, {"a": variants["a"]})["a"]
    assert alone.ci is not None
    assert found["a"].ci is not None
    assert found["a"].ci[1] - found["a"].ci[0] > alone.ci[1] - alone.ci[0]
    words = _conclusion(
        [PartResult(kind="hunk", label=name, region_sha256="", contribution=one) for name, one in found.items()]
    )
    assert words.startswith("Cannot be trained without: hunk c. Carries the gain, resolved: hunk a. Better without")
    assert "No difference shown for the other parts" in words


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory, agent_in: Command) -> RunDirectory:
    """A run of one test, without the hidden task: the recipe is the baseline with a helper and one more loop."""
    folder = tmp_path_factory.mktemp("ablation")
    (folder / "mine.py").write_text(get_recipe("zero_last_gamma").region)
    words = ("search", "--profile", "smoke", "--proposer", "scripted:mine.py", "--budget", "1", "--no-submit", "--json")
    return RunDirectory(Path(done_line(agent_in(folder, *words))["run"]))


def test_ablate_as_people_use_it(waiting: RunDirectory, agent: Agent, tmp_path: Path) -> None:
    """The loop is measured with a fresh seed, the helper alone is refused, the page shows both; nothing hidden ran."""
    run = copy_run(waiting.path, tmp_path)
    result = agent("ablate", str(run.path), "--json")
    assert result.returncode == 0, result.stderr
    (found,) = json_lines(result.stdout)
    by_refusal = {part["refused"] is None: part for part in found["parts"]}
    assert len(found["parts"]) == 2
    assert "agent check says" in by_refusal[False]["refused"]
    assert by_refusal[True]["contribution"]["ci"]
    assert (found["seeds"], found["share"], found["trainings"], found["trainings_of_search"]) == ([1], 1.0, 2, 2)
    assert list(by_refusal[True]["accuracies"]["resnet20-tiny"]) == ["1"]
    assert not run.hidden.exists()
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "Which part carries the gain" in page
    assert found["conclusion"] in page

    region = read_run(run).regions[1]
    assert read_ablation(run, region) is not None
    assert read_ablation(run, region + "# changed\n") is None
    again = agent("ablate", str(run.path))
    assert again.stdout.count("\n") == 5
    assert "allowed: 1 × the search's 2. Fresh seeds: 1" in again.stdout
    assert "[2/2]" in again.stderr
    assert "from the store" in again.stderr


def test_fresh_seeds_are_behind_all_of_the_search(waiting: RunDirectory, tmp_path: Path) -> None:
    """Seeds that a confirmation had used were called fresh."""
    run = copy_run(waiting.path, tmp_path)
    *_, test = (event for event in read_log(run) if event.get("role") == "test/1")
    write_log(run, [*read_log(run), {**test, "seed": 57}])
    assert ablate(run, Progress(), share=2.0).seeds == (58,)


def test_a_log_without_trainings_pays_for_nothing(waiting: RunDirectory, tmp_path: Path) -> None:
    """A run whose log lost its evaluations ended in a traceback about an empty sequence."""
    run = copy_run(waiting.path, tmp_path)
    write_log(run, [event for event in read_log(run) if event["kind"] != "evaluated"])
    change_summary(run, submitted_test=1)
    with pytest.raises(UsageError, match="pays for no part"):
        ablate(run, Progress())


def test_share_that_pays_for_nothing(waiting: RunDirectory, agent: Agent) -> None:
    """Exit code 2, and which share would do."""
    result = agent("ablate", str(waiting.path), "--share", "0.5")
    assert (result.returncode, result.stdout) == (2, "")
    assert "--share 1" in result.stderr
    assert not (waiting.path / "ablation.json").exists()


def test_nothing_tested(waiting: RunDirectory, tmp_path: Path) -> None:
    """Without tested code there is nothing to take back; a damaged ablation.json is no ablation."""
    run = copy_run(waiting.path, tmp_path)
    (run.path / "ablation.json").write_text(json.dumps({"schema_version": 2}))
    assert read_ablation(run, read_run(run).regions[1]) is None
    run.events.write_bytes(b"")
    with pytest.raises(UsageError, match="no tested code"):
        ablate(run, Progress())
