"""`agent export-env --format harbor`: what is in each image, and its scripts, run by hand in a scratch root."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from agent.errors import UsageError
from agent.sessions.harbor import FILE, SUBMISSION, export_harbor
from agent.sessions.scoring import score
from benchmark.tasks import PROFILES
from sandbox.region import scaffold

HARBOR = os.environ.get("INITSEARCH_HARBOR_PYTHON", "")
"""A Python 3.12 with harbor >= 0.25, which does not resolve together with us."""
HIDDEN_DATA = "fmnist_pocket"


@pytest.fixture(scope="module")
def pocket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task on the embedded data, whose hidden data is another set than its visible data."""
    return export_harbor(tmp_path_factory.mktemp("harbor") / "task", PROFILES["pocket"], budget=4, seeds=2)


def test_the_images_hold_what_they_may(pocket: Path) -> None:
    """Nothing under environment/ holds the hidden data, a solution or the verifier's script."""
    names = {place: {p.name for p in (pocket / place).rglob("*")} for place in ("environment", "tests")}
    assert not any(name.startswith(HIDDEN_DATA) for name in names["environment"])
    assert {f"{HIDDEN_DATA}.bz2", f"{HIDDEN_DATA}.json"} <= names["tests"]
    assert "openclipart100.bz2" in names["environment"]
    assert not names["environment"] & {"test.sh", "solve.sh"}
    packed = (Path(__file__).parents[3] / f"benchmark/data/embedded/{HIDDEN_DATA}.bz2").read_bytes()
    assert all(p.read_bytes() != packed for p in (pocket / "environment").rglob("*") if p.is_file())


def test_the_verifier_has_an_environment_of_its_own(pocket: Path) -> None:
    """In a shared one the agent could write reward.json itself."""
    task = tomllib.loads((pocket / "task.toml").read_text(encoding="utf-8"))
    assert task["schema_version"] == "1.4"
    assert task["verifier"]["environment_mode"] == "separate"
    assert task["verifier"]["environment"]["network_mode"] == "no-network"
    assert task["artifacts"] == [SUBMISSION]
    assert os.access(pocket / "tests/test.sh", os.X_OK)
    assert os.access(pocket / "solution/solve.sh", os.X_OK)
    pins = (pocket / "tests/initsearch/requirements.txt").read_text(encoding="utf-8").splitlines()
    assert pins
    assert all("==" in pin and "+" not in pin for pin in pins)


def test_the_instruction_is_the_task_of_every_session(pocket: Path) -> None:
    """It says how to begin and what is judged, and names neither the hidden task nor its data."""
    text = (pocket / "instruction.md").read_text(encoding="utf-8")
    assert "agent session start session --profile pocket --budget 4 --seeds 2" in text
    assert "# Task: design a weight initialisation" in text
    assert not [word for word in ("mobilenetv2-", "fmnist", "fashion") if word in text.lower()]


def test_what_cannot_be_exported_is_refused(pocket: Path, tmp_path: Path) -> None:
    """An image cannot carry the full data sets, and a folder that holds something is not overwritten."""
    with pytest.raises(UsageError, match="cifar100 and fmnist"):
        export_harbor(tmp_path / "x", PROFILES["paper"], budget=1, seeds=1)
    with pytest.raises(UsageError, match="something already"):
        export_harbor(pocket, PROFILES["smoke"], budget=1, seeds=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not HARBOR, reason="INITSEARCH_HARBOR_PYTHON names no Python 3.12 with harbor >= 0.25")
def test_harbors_own_loader_and_linter_accept_it(pocket: Path) -> None:
    """The loader reads the task with its verifier, and the linter has nothing to say."""
    code = (
        "import sys; from harbor.models.task.task import Task; t = Task(sys.argv[1]); c = t.config;"
        "print(t.name, c.schema_version, c.verifier.environment_mode.value, Task.is_valid_dir(sys.argv[1]))"
    )
    loaded = subprocess.run([HARBOR, "-c", code, str(pocket)], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == ["initsearch/weight-initialisation-pocket", "1.4", "separate", "True"]
    linter = [str(Path(HARBOR).with_name("harbor")), "lint", "--json", str(pocket)]
    linted = subprocess.run(linter, capture_output=True, text=True, check=True)
    assert json.loads(linted.stdout) == []


@pytest.mark.skipif(
    os.environ.get("INITSEARCH_ENVIRONMENTS") != "all",
    reason="the verifier trains for a while; INITSEARCH_ENVIRONMENTS=all",
)
def test_solution_and_verifier_run_by_hand(tmp_path: Path) -> None:
    """solve.sh puts a recipe where the agent's file would be; test.sh trains it and writes finite numbers."""
    task = export_harbor(tmp_path / "task", PROFILES["smoke"], budget=1, seeds=1)
    root = tmp_path / "root"
    environ = {
        **{name: os.environ[name] for name in ("HOME", "OMP_NUM_THREADS") if name in os.environ},
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(task / "tests" / "initsearch"),
        "SCRATCH_ROOT": str(root),
    }
    for script in ("solution/solve.sh", "tests/test.sh"):
        done = subprocess.run([str(task / script)], env=environ, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    rewards = json.loads((root / "logs/verifier/reward.json").read_text(encoding="utf-8"))
    full = json.loads((root / "logs/verifier/score.json").read_text(encoding="utf-8"))
    ((_, hidden),) = full["done"]["hidden"].items()
    assert rewards == full["rewards"]
    assert rewards["accepted"] == 1
    assert rewards["reward"] == pytest.approx(hidden["submitted"] / 100)
    assert rewards["hidden_gain"] == pytest.approx(hidden["gain"])
    assert [rewards["hidden_gain_low"], rewards["hidden_gain_high"]] == pytest.approx(hidden["ci"])
    assert all(isinstance(value, int | float) for value in rewards.values())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "is not there"),
        (scaffold().text.replace("import math", "import os"), "line 15"),
        (scaffold().with_region("def initialize_weights(model, config:\n").text, "syntax"),
        ('[{"tool": "submit", "arguments": {"n": 1}}]', "outside the editable region"),
    ],
)
def test_a_submission_that_is_refused_gets_nothing(text: str | None, says: str, tmp_path: Path) -> None:
    """No file, a change outside the region, no Python, a list of tool calls: 0, with the reason, and no training."""
    if text is not None:
        (tmp_path / FILE).write_text(text, encoding="utf-8")
    rewards = score(tmp_path / FILE, tmp_path, profile="smoke", seeds=1)
    assert rewards == json.loads((tmp_path / "reward.json").read_text(encoding="utf-8"))
    assert rewards == {"reward": 0.0, "accepted": 0.0}
    assert says in json.loads((tmp_path / "score.json").read_text(encoding="utf-8"))["refused"]
    assert not (tmp_path / "runs").exists()
