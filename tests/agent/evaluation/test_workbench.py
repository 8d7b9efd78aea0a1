"""What a workbench starts, and when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.config import SearchConfig
from agent.engine.search import Search
from agent.progress import Progress
from sandbox.isolate import Isolation


@pytest.mark.usefixtures("processes_shared")
def test_a_session_starts_no_second_interpreter_before_it_runs_something_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`agent session start` measures the baseline alone, and started an interpreter that it never used."""
    both, start = [], Isolation.__init__

    def noted(isolation: Isolation, **settings: Any) -> None:
        both.append(settings["at_once"])
        start(isolation, **settings)

    monkeypatch.setattr(Isolation, "__init__", noted)
    search = Search.create(SearchConfig(profile="smoke", runs=tmp_path))
    for lazily in (True, False):
        with search.opened(Progress(), lazily=lazily) as opened:
            assert opened.isolation.level != "none"
    assert both == [False, True]
