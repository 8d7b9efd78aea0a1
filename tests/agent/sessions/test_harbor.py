"""`agent export-env --format harbor`: what is in each image, and its scripts, run by hand in a scratch root."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from agent.errors import UsageError
from agent.runs.directory import RunDirectory
from agent.runs.record import read_run
from agent.sessions.harbor import FILE, SUBMISSION, export_harbor
from agent.sessions.harbor_task import write_task
from agent.sessions.scoring import rewards_of, score
from benchmark.networks import Network
from benchmark.own_data import prepared_data
from benchmark.sources import Source
from benchmark.task import Profile, Task
from benchmark.task_schema import read_task_file
from benchmark.tasks import PROFILES
from sandbox.region import scaffold
from tests.agent.conftest import Searched
from tests.benchmark.task_files import NETWORK, TASK, arrays
from tests.benchmark.task_files import write_task as write_toys

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


def test_the_smallest_profile_has_its_pictures(tmp_path: Path) -> None:
    """Its set has files of its own, and the export carried those of the set that it was once a part of."""
    made = export_harbor(tmp_path / "task", PROFILES["smoke"], budget=1, seeds=1)
    for place in ("environment", "tests"):
        assert [path.name for path in sorted((made / place).rglob("*.bz2"))] == ["tiny.bz2"]
        assert (made / place / "initsearch/benchmark/building.py").is_file()  # no builder of data, as its name suggests


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
    rewards, full = verified(export_harbor(tmp_path / "task", PROFILES["smoke"], budget=1, seeds=1), tmp_path)
    ((_, hidden),) = full["done"]["hidden"].items()
    assert rewards["reward"] == pytest.approx(hidden["submitted"] / 100)
    assert rewards["hidden_gain"] == pytest.approx(hidden["gain"])
    assert [rewards["hidden_gain_low"], rewards["hidden_gain_high"]] == pytest.approx(hidden["ci"])
    assert "metric" not in full


@pytest.mark.skipif(
    os.environ.get("INITSEARCH_ENVIRONMENTS") != "all",
    reason="the verifier trains for a while; INITSEARCH_ENVIRONMENTS=all",
)
def test_a_task_file_of_another_metric_is_verified_by_hand(letters: Profile, tmp_path: Path) -> None:
    """The images have all that the task is made of, and the reward is the gain in the task's metric."""
    rewards, full = verified(export_harbor(tmp_path / "task", letters, budget=1, seeds=1), tmp_path)
    ((_, visible),) = full["done"]["visible"].items()
    assert rewards["reward"] == rewards["visible_gain_val_loss"] == visible["gain"]
    assert visible["gain"] == visible["baseline"] - visible["submitted"]
    assert [rewards["visible_gain_low_val_loss"], rewards["visible_gain_high_val_loss"]] == visible["ci"]
    assert (full["metric"], full["direction"]) == ("val_loss", "minimize")


def verified(task: Path, tmp_path: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """reward.json and score.json after solve.sh and test.sh of the folder `task`."""
    root = tmp_path / "root"
    if (task / "tests/task").is_dir():
        shutil.copytree(task / "tests/task", root / "opt/task")
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
    assert rewards == full["rewards"]
    assert rewards["accepted"] == 1
    assert all(isinstance(value, int | float) for value in rewards.values())
    return rewards, full


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


@pytest.fixture
def letters(val_loss: Searched, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Profile:
    """A task file with a trainer of its own and val_loss, without building its network again."""
    monkeypatch.setenv("INITSEARCH_CACHE_DIR", str(cache))
    profile = read_run(RunDirectory(val_loss.outcome.run)).own_profile()
    return dataclasses.replace(profile, file=val_loss.task_file)


def test_a_task_file_in_another_metric_is_exported(letters: Profile, val_loss: Searched, tmp_path: Path) -> None:
    """The export asked for a data set called train, and the reward was called an accuracy."""
    readme = val_loss.folder / "README.md"
    task = export_harbor(tmp_path / "task", letters, budget=2, seeds=1, include=[readme])
    for place in ("environment", "tests"):
        made = task / place / "task"
        assert {path.name for path in made.iterdir()} == {"letters.toml", "net.py", "train.py", "README.md"}
        (table,) = read_task_file(made / "letters.toml").visible
        assert (table.metric, table.direction, table.train) == ("val_loss", "minimize", "train.py:train")
        assert "COPY task /opt/task" in (task / place / "Dockerfile").read_text()
    facts = tomllib.loads((task / "task.toml").read_text())["metadata"]
    assert (facts["metric"], facts["direction"]) == ("val_loss", "minimize")
    assert facts["reward"] == "gain over the baseline in val_loss, positive when better"
    told, _, text = (task / "instruction.md").read_text().partition("# Task")
    assert "session start session --profile /opt/task/letters.toml" in told
    assert "the gain over the baseline on the visible task, in val_loss, of which\nlower is better" in told
    assert "accuracy" not in told
    assert "each of them needs `--profile /opt/task/letters.toml`" in text
    script = (task / "tests/test.sh").read_text()
    assert '--profile "$root/opt/task/letters.toml"' in script
    assert "no val_loss that the agent measured counts" in script
    assert "accuracy" not in script


def test_the_reward_in_another_metric(val_loss: Searched) -> None:
    """It was the loss as a fraction of 100, the higher the better. A failed submission counts as the baseline."""
    summary = RunDirectory(val_loss.outcome.run).read_summary()
    (one,) = summary["visible"].values()
    assert rewards_of(summary) == {
        "reward": one["gain"],
        "accepted": 1.0,
        "visible_gain_val_loss": one["gain"],
        "visible_gain_low_val_loss": one["ci"][0],
        "visible_gain_high_val_loss": one["ci"][1],
    }
    failed = {"gru-letters": {"baseline": None, "submitted": None, "gain": None, "ci": None, "failed": True}}
    assert rewards_of({**summary, "visible": failed}) == {"reward": 0.0, "accepted": 1.0}


def test_what_is_hidden_stays_out_of_the_agents_image(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures of hidden tasks are with the verifier only, and loaded there they are the same."""
    monkeypatch.setenv("INITSEARCH_CACHE_DIR", str(cache))
    file = write_toys(
        tmp_path / "home", f'{TASK}\n[[hidden]]\nname = "secret"\nnetwork = "net.py:build"\ndata = "other.npz"\n'
    )
    import numpy as np

    np.savez(file.with_name("other.npz"), **arrays(classes=2))  # type: ignore[arg-type]
    written, network = read_task_file(file), Network("net.py:build", 4, sources=(Source("net", "net.py", NETWORK),))
    tasks = [
        Task(
            "net",
            table.dataset,
            table.recipe(),
            table.title,
            network,
            prepared_data(str(table.data), None, file.parent),
        )
        for table in (*written.visible, *written.hidden)
    ]
    profile = Profile("toys", (tasks[0],), (tasks[1],), "A toy.", (0.5,), None, "as_built", (("secret", 0.5),), file)
    for place, hidden in (("agent", False), ("verifier", True)):
        write_task(tmp_path / place, profile, hidden=hidden)
        again = read_task_file(tmp_path / place / "toys.toml")
        tables = (*again.visible, *again.hidden)
        assert [table.title for table in tables] == ["net-toys", "secret"][: 1 + hidden]
        assert again.noise == ({"secret": 0.5} if hidden else {})
        for table, task in zip(tables, tasks, strict=False):
            assert task.data is not None
            found = prepared_data(str(table.data), table.image_size, tmp_path / place)
            assert (found.sha256, table.dataset) == (task.data.sha256, task.dataset)
    assert not [path for path in (tmp_path / "agent").rglob("*") if "other" in path.name]
    with pytest.raises(UsageError, match="the task file's folder, so an image cannot carry it"):
        write_task(tmp_path / "third", profile, hidden=True, include=[tmp_path / "agent" / "toys.toml"])
