"""What a person takes away: a patch for `git am`, a module that needs torch alone, and how to cite."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from agent.engine.search import SearchOutcome
from agent.runs.artifacts import is_module_of, mail, stand_alone, write_artifacts
from agent.runs.directory import RunDirectory
from benchmark.recipes import get_recipe, recipe_names
from sandbox.region import scaffold
from sandbox.workspace import Workspace
from tests import foreign_networks
from tests.agent.report_samples import copy_run

ROOT = Path(__file__).resolve().parents[3]

DEMO = """
import sys
sys.path[:0] = [{folder!r}, {tests!r}]
from torch import nn
from torchvision_models import torchvision_models
import initialize_weights as taken
torch_only = [name for name in sys.modules if name.split(".")[0] in ("agent", "sandbox", "benchmark")]
assert not torch_only, torch_only
for name in ("resnet18", "vgg11_bn", "mobilenet_v2"):
    model = getattr(torchvision_models(), name)(weights=None)
    if name == "vgg11_bn":  # to make the 100 million weights of its hidden layer orthogonal takes half a minute
        model.classifier[0], model.classifier[3] = nn.Linear(25088, 64), nn.Linear(64, 4096)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    taken.initialize_weights(model, taken.config_of(model))
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters()), name
    assert any(not bool((a == b).all()) for a, b in zip(before, model.parameters())), name
print(taken.config_of(model))
"""


@pytest.mark.parametrize("name", ["kaiming_normal", "rbb", "delta_orthogonal"])
def test_stand_alone_initialises_any_network(name: str, tmp_path: Path) -> None:
    """The module of a recipe, blocks of ours included, works on torchvision's networks without this project."""
    text = stand_alone(get_recipe(name).region, "a-run", 3, ["visible a: +1.0 points"])
    (tmp_path / "initialize_weights.py").write_text(text, encoding="utf-8")
    code = DEMO.format(folder=str(tmp_path), tests=str(ROOT / "tests"))
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "'arch': 'mobilenetv2', 'num_classes': 1000, 'depth': 53" in done.stdout


@pytest.mark.parametrize("name", recipe_names())
def test_stand_alone_says_what_was_measured(name: str) -> None:
    """The docstring has run, test and numbers; the region stands unchanged before the last line, which wraps it."""
    region = get_recipe(name).region
    text = stand_alone(region, "a-run", 3, ['visible a: +1.0 points """ \\', "not resolved"])
    docstring = ast.get_docstring(ast.parse(text)) or ""
    assert "run a-run, test 3" in docstring
    assert "+1.0 points" in docstring
    assert "not resolved" in docstring
    assert is_module_of(text, region)
    body, _, last = text.rstrip("\n").rpartition("\n\n\n")
    assert f"{body}\n".endswith(region)
    assert last.startswith("initialize_weights = on_any_network(initialize_weights, ")


NETWORKS = [
    foreign_networks.resnet18,
    foreign_networks.without_affine,
    foreign_networks.without_linear,
    foreign_networks.without_bias,
]


@pytest.mark.filterwarnings("ignore:initialize_weights on")
@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_taken_away_runs_on_other_networks(name: str) -> None:
    """19 recipes crashed on norms without parameters, head_small without a Linear layer, one on Linear without bias."""
    scope: dict[str, Any] = {"__name__": "taken"}
    exec(compile(stand_alone(get_recipe(name).region, "a-run", 3), "taken", "exec"), scope)
    for network in NETWORKS:
        model = network()
        before = list(model.state_dict())
        scope["initialize_weights"](model, scope["config_of"](model))
        assert all(bool(parameter.isfinite().all()) for parameter in model.parameters()), network.__name__
        assert list(model.state_dict()) == before
        if name in ("fixup", "zero_last_gamma", "fixup_plus_plus", "rbb") and network is foreign_networks.resnet18:
            assert not any(value.any() for key, value in model.named_parameters() if key.endswith("bn2.weight"))


def test_a_module_of_another_region_is_told_apart() -> None:
    """`agent verify` takes a module with or without the last line, and none with another function."""
    region, other = get_recipe("fixup").region, get_recipe("orthogonal").region
    text = stand_alone(region, "a-run", 3)
    assert is_module_of(text, region)
    assert is_module_of("# an earlier version\n" + region, region)
    assert not is_module_of(text, other)
    assert not is_module_of(text + "initialize_weights = print\n", region)


def test_artifacts_of_a_run_say_what_it_found(finished: SearchOutcome) -> None:
    """After a search the module names the visible and the hidden result, with intervals."""
    text = " ".join((finished.run / "initialize_weights.py").read_text(encoding="utf-8").split())
    for expected in ("visible resnet20-tiny", "hidden mobilenetv2-tiny", "interval"):
        assert expected in text


def test_writing_again_gives_the_same_bytes(finished: SearchOutcome, tmp_path: Path) -> None:
    """A resumed or repeated run leaves the reviewed patch as it was, so a verdict stays in force."""
    run = copy_run(finished.run, tmp_path)
    before = [(run.path / name).read_bytes() for name in ("submission.patch", "initialize_weights.py")]
    number = finished.done["submitted_test"]
    measured = finished.words[1:]
    with Workspace.open(run.workspace) as workspace:
        write_artifacts(run, workspace, workspace.region_at(f"test/{number}"), number, measured)
    assert [(run.path / name).read_bytes() for name in ("submission.patch", "initialize_weights.py")] == before


def test_git_am_takes_the_patch(tmp_path: Path) -> None:
    """`git am` takes a patch as it is, with its author date."""
    source, target = tmp_path / "source", tmp_path / "target"
    with Workspace.create(source) as workspace:
        workspace.tag("baseline")
        workspace.rewrite(scaffold().region.replace("fan_out", "fan_in"))
        workspace.tag("test/1")
        diff = workspace.diff("baseline", "test/1")
    (tmp_path / "one.patch").write_text(mail(diff, "a-run", 1, when=1e9), encoding="utf-8")
    file = target / "sandbox" / "custom_init.py"
    file.parent.mkdir(parents=True)
    file.write_text(scaffold().text)

    def git(*words: str) -> str:
        identity = ["-c", "user.name=Reviewer", "-c", "user.email=reviewer@example.org"]
        done = subprocess.run(["git", *identity, *words], cwd=target, check=True, capture_output=True, text=True)
        return done.stdout

    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "scaffold")
    git("am", str(tmp_path / "one.patch"))
    assert 'mode="fan_in", nonlinearity="relu")\n            if' in file.read_text()
    assert "as submitted by a-run, test 1" in git("log", "-1", "--format=%B")
    assert git("log", "-1", "--format=%at").strip() == "1000000000"


def test_artifacts_without_a_log(tmp_path: Path) -> None:
    """A run without events.jsonl still gives its files."""
    run = RunDirectory.create(tmp_path, "x")
    with Workspace.create(run.workspace) as workspace:
        workspace.tag("baseline")
        workspace.rewrite(scaffold().region.replace("fan_out", "fan_in"))
        workspace.tag("test/1")
        write_artifacts(run, workspace, workspace.region, 1)
    assert "the run had not ended" in (run.path / "initialize_weights.py").read_text()


def test_citation_matches_the_package() -> None:
    """CITATION.cff names the version and licence that pyproject.toml has."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"version: {project['version']}\n" in citation
    assert f"license: {project['license']}\n" in citation
    assert citation.startswith("cff-version: 1.2.0\n")
