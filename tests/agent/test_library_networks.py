"""Networks of timm and torchvision through a whole search: the hidden result, the record, and the exported module."""

from __future__ import annotations

import importlib.util

import pytest

from agent.config import load_config
from agent.engine.search import Search, SearchOutcome
from agent.profiles import recorded_profile
from agent.progress import Progress
from agent.runs.directory import RunDirectory
from agent.runs.events import Evaluated, Launch
from agent.runs.log import read_events
from agent.studies.verify import verify
from benchmark.store import ResultStore
from tests.agent.exported import load_module, weights_of

TASK = """\
name = "libraries"

[[visible]]
network = "timm:test_resnet"
data = "tiny"
epochs = 1
batch_size = 50

[[hidden]]
network = "torchvision:squeezenet1_1"
data = "tiny"
epochs = 1
batch_size = 50
image_size = 32
"""


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> SearchOutcome:
    """A smoke search with one test on a network of timm, whose hidden network is torchvision's."""
    for library in ("timm", "torchvision"):
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed: pip install 'initsearch[timm,vision]'")
    folder = tmp_path_factory.mktemp("libraries")
    (folder / "task.toml").write_text(TASK)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INITSEARCH_CACHE_DIR", str(folder / "cache"))
        config = load_config({"profile": str(folder / "task.toml"), "runs": folder / "runs", "budget": 1, "workers": 1})
        return Search.create(config).execute(Progress())  # without a page, which takes as long as the rest


def test_the_search_reaches_the_hidden_result(searched: SearchOutcome) -> None:
    """Baseline and submission were trained on the hidden network of another library, and the record agrees."""
    assert searched.done["status"] in ("submitted", "tests_exhausted")
    assert searched.done["submitted_test"] == 1
    assert list(searched.done["visible"]) == ["test_resnet-tiny"]
    hidden = searched.done["hidden"]["squeezenet1_1-tiny"]
    assert hidden["baseline"] is not None
    assert hidden["submitted"] is not None
    assert [check.fault for check in verify(RunDirectory(searched.run)) if check.fault] == []


def test_the_log_says_what_was_searched(searched: SearchOutcome) -> None:
    """timm's network has no depthwise convolution and one Linear layer, so two numbers were not searched."""
    launch = read_events(RunDirectory(searched.run).events)[0].event
    assert isinstance(launch, Launch)
    (task,) = recorded_profile(launch.profile, launch.tasks).visible
    assert task.network is not None
    assert task.network.found is not None
    assert {"branch", "gain", "skip_conv", "head"} <= set(task.network.found.roles)
    assert not {"depthwise", "hidden"} & set(task.network.found.roles)


def test_the_exported_module_gives_the_weights_of_the_search(searched: SearchOutcome) -> None:
    """Applied to networks that timm and torchvision built here, visible and hidden ones."""
    run = RunDirectory(searched.run)
    events = [record.event for record in read_events(run.events)]
    assert isinstance(events[0], Launch)
    profile = recorded_profile(events[0].profile, events[0].tasks)
    exported = load_module(run.path / "initialize_weights.py")
    for task, role, results in (
        (profile.visible[0], "test/1", run.results),
        (profile.hidden[0], "hidden/submission", run.hidden),
    ):
        (event,) = (event for event in events if isinstance(event, Evaluated) and event.role == role)
        result = ResultStore(results).get(event.key)
        assert result is not None
        assert result.weights_sha256 == weights_of(exported, task), role
