"""What a person takes away: a patch for `git am`, a module that needs torch alone, and how to cite."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.engine.search import SearchOutcome
from agent.runs.artifacts import LOG, mail, write_artifacts
from agent.runs.directory import RunDirectory
from agent.runs.patch_effect import effect_fault
from agent.runs.stand_alone import stand_alone
from benchmark.recipes import get_recipe, recipe_names
from sandbox.diff import unified_diff
from sandbox.region import region_of, scaffold
from sandbox.workspace import Workspace
from tests.agent.report_samples import copy_run

ROOT = Path(__file__).resolve().parents[3]

CONFTEST = """
diff --git a/conftest.py b/conftest.py
new file mode 100644
--- /dev/null
+++ b/conftest.py
@@ -0,0 +1 @@
+print("anything")"""

DEMO = """
import importlib.util, sys
sys.path[:0] = [{tests!r}]
import torch
from torch import nn
from torchvision_models import torchvision_models
for name in {names!r}:
    spec = importlib.util.spec_from_file_location(name, {folder!r} + "/" + name + ".py")
    taken = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(taken)
    for arch in ("resnet18", "vgg11_bn", "mobilenet_v2"):
        with torch.device("meta"):  # the constructors would draw values for seconds, only to be replaced
            model = getattr(torchvision_models(), arch)(weights=None)
            if arch == "vgg11_bn":  # to make the 100 million weights of its hidden layer orthogonal takes half a minute
                model.classifier[0], model.classifier[3] = nn.Linear(25088, 64), nn.Linear(64, 4096)
        for value in model.to_empty(device="cpu").state_dict().values():
            value.fill_(0.5)
        before = [parameter.detach().clone() for parameter in model.parameters()]
        taken.initialize_weights(model, taken.config_of(model))
        assert all(bool(parameter.isfinite().all()) for parameter in model.parameters()), (name, arch)
        assert any(not bool((a == b).all()) for a, b in zip(before, model.parameters())), (name, arch)
    print(name, taken.config_of(model))
torch_only = [name for name in sys.modules if name.split(".")[0] in ("agent", "sandbox", "benchmark")]
assert not torch_only, torch_only
"""


LACKING = """
import importlib, sys, warnings
sys.path[:0] = [{folder!r}]
from torch import nn
class Plain(nn.Sequential):
    pass
for name, head in {cases!r}:
    taken = importlib.import_module(name)
    model = Plain(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=False), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), *([nn.Linear(8, 5, bias=False)] if head else []),
    )
    names = list(model.state_dict())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        taken.initialize_weights(model, taken.config_of(model) if hasattr(taken, "config_of") else dict(depth=3))
    assert list(model.state_dict()) == names, name
    print(name + ": " + "; ".join(str(one.message) for one in caught))
"""

NAMES = ["kaiming_normal", "rbb", "delta_orthogonal"]
LACKING_SAYS = {
    ("head_small", False): "there is no Linear layer",
    ("torchvision_mobilenet", True): "",
    ("fixup", True): "BasicBlock and InvertedResidual of initsearch is left out",
    ("rbb", False): "there is no Linear layer",
}
"""Module, whether the network has a head: what it warns of."""


@pytest.fixture(scope="module")
def said_alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], list[str]]:
    """What DEMO and LACKING print in an interpreter that has torch and nothing of this project.

    One for all modules: torch takes long.
    """
    folder = tmp_path_factory.mktemp("modules")
    for name in {*NAMES, *(name for name, _ in LACKING_SAYS)}:
        text = stand_alone(get_recipe(name).region, "a-run", 3, ["visible a: +1.0 points"])
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    code = DEMO.format(folder=str(folder), tests=str(ROOT / "tests"), names=NAMES)
    code += "print('====')\n" + LACKING.format(folder=str(folder), cases=list(LACKING_SAYS))
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    demo, _, lacking = done.stdout.partition("====\n")
    return demo.splitlines(), lacking.splitlines()


def test_an_exported_module_means_its_region() -> None:
    """`agent export --format module -o f.py; agent check f.py` said "__future__ cannot be imported"."""
    regions = {name: get_recipe(name).region for name in recipe_names()}
    regions["own helper"] = "import math\n\n\ndef config_of(model):\n    return {}\n\n\n" + regions["kaiming_normal"]
    regions["no names"] = "def initialize_weights(model, config):\n    pass\n"
    regions["the adapter's names"] = "def listed():\n    pass\n\n\n" + regions["kaiming_normal"]
    for name, region in regions.items():
        for adapted in (True, False):
            text = stand_alone(region, "a-run", 3, ['visible "a": +1.0 points'], adapted=adapted)
            assert region_of(text) == region_of(text.replace("\n", "\r\n")) == region, name
    assert region_of("x = 1\n" + text) == "x = 1\n" + text, "only a whole module is taken apart"


def test_stand_alone_initialises_any_network(said_alone: tuple[list[str], list[str]]) -> None:
    """The modules of recipes, blocks of ours included, work on torchvision's networks without this project."""
    for name, line in zip(NAMES, said_alone[0], strict=True):
        assert line.startswith(name)
        assert "'arch': 'mobilenetv2', 'num_classes': 1000, 'depth': 53" in line


def test_a_module_on_a_network_that_lacks_what_ours_have(said_alone: tuple[list[str], list[str]]) -> None:
    """BatchNorm2d(affine=False), no Linear or one without bias crashed the modules of 21 recipes; fixup was silent."""
    for (name, _), warned, line in zip(LACKING_SAYS, LACKING_SAYS.values(), said_alone[1], strict=True):
        assert line.startswith(name)
        assert warned in line


@pytest.mark.parametrize("name", recipe_names())
def test_stand_alone_says_what_was_measured(name: str) -> None:
    """The docstring has run, test and numbers; the region stands at the end, unchanged."""
    region = get_recipe(name).region
    text = stand_alone(region, "a-run", 3, ['visible a: +1.0 points """ \\', "not resolved"])
    docstring = ast.get_docstring(ast.parse(text)) or ""
    assert "run a-run, test 3" in docstring
    assert "+1.0 points" in docstring
    assert "not resolved" in docstring
    assert region in text
    assert region_of(text) == region


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
        write_artifacts(run, workspace.region_at(f"test/{number}"), number, measured)
    assert [(run.path / name).read_bytes() for name in ("submission.patch", "initialize_weights.py")] == before


def test_git_am_takes_the_patch(tmp_path: Path) -> None:
    """`git am` takes a patch as it is, with its author date."""
    target = tmp_path / "target"
    ours = scaffold()
    diff = unified_diff(ours.text, ours.with_region(ours.region.replace("fan_out", "fan_in")).text)
    (tmp_path / "one.patch").write_text(mail(diff, "a-run", 1, when=1e9, trailers={LOG: "0" * 64}), encoding="utf-8")
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
    git("am", "--3way", str(tmp_path / "one.patch"))
    assert 'mode="fan_in", nonlinearity="relu")\n            if' in file.read_text()
    assert "as submitted by a-run, test 1" in git("log", "-1", "--format=%B")
    assert git("log", "-1", "--format=%at").strip() == "1000000000"
    assert git("log", "-1", f"--format=%(trailers:key={LOG},valueonly)").strip() == "0" * 64


def test_git_makes_the_same_diff(tmp_path: Path) -> None:
    """The diff is made without git; git's own, of a workspace, changes the same lines of the same blobs."""
    ours = scaffold()
    region = get_recipe("delta_orthogonal").region
    with Workspace.create(tmp_path / "workspace") as workspace:
        workspace.tag("baseline")
        workspace.rewrite(region)
        command = ["git", "diff", "baseline", "HEAD"]
        theirs = subprocess.run(command, cwd=workspace.path, check=True, capture_output=True, text=True).stdout
    made = unified_diff(ours.text, ours.with_region(region).text)
    assert effect_fault(mail(theirs, "a-run", 1, when=0).encode(), ours.text, ours.with_region(region).text) is None
    names = re.findall(r"^index ([0-9a-f]+)\.\.([0-9a-f]+) 100644$", theirs, re.M)[0]
    for short, whole in zip(names, re.findall(r"^index (\w+)\.\.(\w+) 100644$", made, re.M)[0], strict=True):
        assert whole.startswith(short)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda text: text, None),
        (lambda text: text.replace("\n-- \n", CONFTEST + "\n-- \n"), "also makes conftest.py"),
        (lambda text: text + text, "not one mail"),
        (lambda text: text.replace("fan_in", "fan_inn", 1), "another file"),
        (lambda text: text.replace("fan_out", "fan_ut", 1), "does not apply"),
        (lambda text: text.replace("index ", "old mode 100644\nnew mode 100755\nindex ", 1), "kind of file"),
    ],
)
def test_what_git_am_would_do(change: Callable[[str], str], fault: str | None) -> None:
    """A patch of any version is judged by what applying it does: one file, the submitted one, and nothing else."""
    ours = scaffold()
    after = ours.with_region(ours.region.replace("fan_out", "fan_in")).text
    patch = change(mail(unified_diff(ours.text, after), "a-run", 1, when=0)).encode()
    found = effect_fault(patch, ours.text, after)
    assert found is None if fault is None else fault in str(found)


def test_artifacts_without_a_log(tmp_path: Path) -> None:
    """A run without events.jsonl still gives its files."""
    run = RunDirectory.create(tmp_path, "x")
    write_artifacts(run, scaffold().region.replace("fan_out", "fan_in"), 1)
    assert "the run had not ended" in (run.path / "initialize_weights.py").read_text()


def test_citation_matches_the_package() -> None:
    """CITATION.cff names the version and licence that pyproject.toml has."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"version: {project['version']}\n" in citation
    assert f"license: {project['license']}\n" in citation
    assert citation.startswith("cff-version: 1.2.0\n")
