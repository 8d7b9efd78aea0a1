"""`--profile auto` on a machine without a GPU: which of the two embedded profiles, and why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent import profiles
from agent.config import SearchConfig
from agent.engine import auto_profile
from agent.engine.auto_profile import choose_profile, judge
from agent.errors import UsageError
from agent.profiles import with_default_seeds
from benchmark.tasks import PROFILES


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without GPUs and with an empty cache."""
    monkeypatch.setattr(profiles, "gpu_count", lambda: 0)
    monkeypatch.setenv("INITSEARCH_CACHE_DIR", str(tmp_path))


@pytest.mark.parametrize(("seconds", "name"), [(100.0, "pocket"), (480.0, "pocket"), (481.0, "pocket_small")])
def test_pocket_where_it_ends_in_eight_minutes(seconds: float, name: str) -> None:
    """`make search` took half an hour on a laptop whose README said under five minutes."""
    profile, reason = judge(seconds, "auto: no GPU here")
    assert profile.name == name
    assert "and pocket takes about" in reason


@pytest.mark.usefixtures("no_gpu")
def test_the_measurement_is_made_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The second search reads it; a file that makes no sense is measured again."""
    said: list[str] = []
    config = SearchConfig()
    path = auto_profile._path(config)
    path.parent.mkdir()
    path.write_text(json.dumps({"seconds": 900}), encoding="utf-8")
    profile, reason = choose_profile(config, said.append)
    assert (profile.name, said) == ("pocket_small", [])
    assert "15 min" in reason
    path.write_text('{"seconds": "fast"}', encoding="utf-8")
    monkeypatch.setattr(auto_profile, "_measure", lambda *_: 60.0)
    assert choose_profile(config, said.append)[0].name == "pocket"


@pytest.mark.usefixtures("no_gpu")
def test_what_was_asked_for_is_not_measured() -> None:
    """A named profile is taken as it is."""
    assert choose_profile(SearchConfig(profile="pocket"), pytest.fail) == (PROFILES["pocket"], "as asked")
    assert choose_profile(SearchConfig(profile="pocket_small"), pytest.fail)[0].name == "pocket_small"


def test_both_pocket_profiles_have_one_shape() -> None:
    """A residual network and one of VGG's kind on the same pictures, and the same hidden network."""
    large, small = PROFILES["pocket"], PROFILES["pocket_small"]
    assert [task.dataset for task in large.visible] == [task.dataset for task in small.visible]
    assert [task.name for task in large.hidden] == [task.name for task in small.hidden]
    assert [task.arch for task in small.visible] == ["resnet20", "vgg8bn"]


def test_paper_has_three_seeds_unless_somebody_chose() -> None:
    """One seed cannot resolve published effects; other profiles keep one."""
    paper, pocket = PROFILES["paper"], PROFILES["pocket"]
    assert with_default_seeds(SearchConfig(), paper).seeds == 3
    assert with_default_seeds(SearchConfig(seeds=1), paper).seeds == 1
    assert with_default_seeds(SearchConfig(), pocket).seeds == 1
    assert with_default_seeds(SearchConfig(baseline_seeds=5), paper).evaluation_seeds == (0, 1, 2)
    with pytest.raises(UsageError, match="give --seeds too"):
        with_default_seeds(SearchConfig(baseline_seeds=2), paper)
