"""The examples of docs/examples in a small form: searched, verified, and their exported module applied again."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from agent import load_run, search
from agent.engine.own_task import take_task
from agent.profiles import recorded_profile
from agent.runs.directory import RunDirectory
from agent.runs.events import Evaluated, Launch
from agent.runs.log import read_events
from agent.studies.verify import verify
from benchmark.store import ResultStore
from tests.agent.conftest import Command, Searched, copy_example, search_in
from tests.agent.exported import load_module, weights_of

pytestmark = pytest.mark.usefixtures("processes_shared")

SMALL = {
    "pictures": [
        ("task.toml", "epochs = 8", "epochs = 1\ntrain_limit = 64\ntest_limit = 64"),
        ("task.toml", "train_limit = 1000\ntest_limit = 1000", "train_limit = 64\ntest_limit = 64"),
    ],
    "transformer": [("task.toml", "epochs = 5", "epochs = 2\ntrain_limit = 128\ntest_limit = 128")],
    "letters": [],
}


@pytest.fixture(scope="module", params=SMALL)
def searched(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, agent_in: Command) -> Searched:
    """An example, copied and made small, after a search with one test that waits for its submission."""
    name: str = request.param
    if name == "letters":
        found: Searched = request.getfixturevalue("val_loss")
        return found
    folder = tmp_path_factory.mktemp(name)
    copy_example(name, folder, SMALL[name])
    if name == "pictures":
        load_module(folder / "make_pictures.py").main(folder / "clipart")
    waits = ["--no-submit"] if name == "pictures" else []
    return Searched(name, folder, search_in(agent_in, folder, *waits))


def test_the_search_ends_and_its_files_agree(searched: Searched, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INITSEARCH_CACHE_DIR", str(cache))
    assert searched.outcome.done["submitted_test"] == 1
    assert [check.fault for check in verify(RunDirectory(searched.outcome.run)) if check.fault] == []
    metric = next(iter(searched.outcome.done["visible"].values()))
    assert (metric.get("metric"), metric.get("direction")) == (
        ("val_loss", "minimize") if searched.name == "letters" else (None, None)
    )
    sign = -1 if searched.name == "letters" else 1
    assert metric["gain"] == pytest.approx(sign * (metric["submitted"] - metric["baseline"]))


def test_the_exported_module_gives_the_weights_of_the_search(searched: Searched) -> None:
    run = RunDirectory(searched.outcome.run)
    launch = read_events(run.events)[0].event
    assert isinstance(launch, Launch)
    task = recorded_profile(launch.profile, launch.tasks).visible[0]
    digests = {
        event.role: ResultStore(run.results).get(event.key)
        for event in (record.event for record in read_events(run.events))
        if isinstance(event, Evaluated)
    }
    result = digests["test/1"]
    assert result is not None
    assert result.weights_sha256 == weights_of(load_module(run.path / "initialize_weights.py"), task)
    assert "own constructors make it" in (run.path / "initialize_weights.py").read_text()


ARRAYS: dict[str, dict[str, Any]] = {
    "pictures": {"data": "clipart", "image_size": 32, "batch_size": 32, "lr": 0.05, "train_limit": 64, "test_limit": 64}
    | {"epochs": 1},
    "transformer": {"data": "openclipart100", "epochs": 2, "optimizer": "adamw", "lr": 0.001, "weight_decay": 0.05}
    | {"warmup_epochs": 1, "label_smoothing": 0.1, "augment": "flip", "train_limit": 128, "test_limit": 128},
    "letters": {"train": "train.py:train", "metric": "val_loss", "direction": "minimize"},
}
"""The examples' keys, as arguments of `search`."""


def test_a_function_in_place_of_a_file_is_the_same_task(
    searched: Searched, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The function's source, with the classes and numbers it uses, is built in isolation and by us alike."""
    monkeypatch.setenv("INITSEARCH_CACHE_DIR", str(cache))
    monkeypatch.chdir(searched.folder)
    module = load_module(searched.folder / "net.py")
    monkeypatch.setitem(sys.modules, "net", module)  # as after `import net`: where inspect looks for a class's source
    build = module.build
    profile = take_task({"network": build, "packages": [], **ARRAYS[searched.name]})
    launch = read_events(RunDirectory(searched.outcome.run).events)[0].event
    assert isinstance(launch, Launch)
    (ours,), theirs = profile.visible, recorded_profile(launch.profile, launch.tasks).visible[0]
    assert ours.network is not None
    assert theirs.network is not None
    assert ours.network.constructed == theirs.network.constructed
    known, same = ours.identity(), theirs.identity()
    for fields in (known, same):
        del fields["network"], fields["arch"]
    assert known["dataset"] == same["dataset"] or searched.name != "pictures"
    assert known["recipe"] == same["recipe"]
    assert known.get("trainer") == same.get("trainer")


def test_a_search_from_python(searched: Searched, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the network as text it is the task of the file: what the file's search trained is not trained again."""
    monkeypatch.setenv("INITSEARCH_CACHE_DIR", str(cache))
    monkeypatch.chdir(searched.folder)
    name = searched.outcome.done["visible"].keys()
    settings = {"network": "net.py:build", "name": next(iter(name)), **ARRAYS[searched.name]}
    submits = searched.name != "pictures"
    outcome = search(budget=1, workers=2, runs=searched.folder / "python", submit=submits, **settings)
    assert outcome.done["visible"].keys() == name
    for key in ("baseline", "submitted"):
        (ours,), (theirs,) = (run.done["visible"].values() for run in (outcome, searched.outcome))
        assert ours[key] == theirs[key]
    events = [record.event for record in read_events(RunDirectory(outcome.run).events)]
    assert all(event.cached for event in events if isinstance(event, Evaluated))
    assert "<table" in outcome._repr_html_()


def test_the_run_keeps_the_tasks_and_no_stranger_runs_their_code(
    searched: Searched, main: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever gets a run directory and submits, replays or ablates it is asked for the task file."""
    monkeypatch.setenv("INITSEARCH_CACHE_DIR", str(cache))
    run = str(searched.outcome.run)
    assert load_run(run)["tasks"]["visible"][0]["network"]["spec"] == "net.py:build"
    words = ("submit", run) if searched.name == "pictures" else ("replay", run, "--execute")
    for command in (words, ("ablate", run)):
        code, _, said = main(*command)
        assert (code, "task file" in said, "--profile" in said) == (2, True, True), said


@pytest.mark.parametrize("searched", ["pictures"], indirect=True)
def test_a_waiting_run_is_submitted_with_its_task_file(
    searched: Searched, main: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INITSEARCH_CACHE_DIR", str(cache))
    changed = searched.folder / "changed.toml"
    changed.write_text(searched.task_file.read_text().replace("lr = 0.05", "lr = 0.04"))
    code, _, said = main("submit", str(searched.outcome.run), "--profile", str(changed))
    assert (code, "is not the one of this run" in said) == (2, True), said
    code, out, said = main("submit", str(searched.outcome.run), "--profile", str(searched.task_file), "--json")
    assert code == 0, said
    assert list(json.loads(out.splitlines()[-1])["hidden"]) == ["net-fmnist_pocket"]
