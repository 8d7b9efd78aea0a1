"""What a workbench starts, and when."""

from __future__ import annotations

from pathlib import Path

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
    begun = []
    monkeypatch.setattr(Isolation, "start_second", lambda isolation: begun.append(isolation))
    search = Search.create(SearchConfig(profile="smoke", runs=tmp_path))
    with search.opened(Progress(), lazily=True) as opened:
        assert opened.isolation.level != "none"
        assert begun == []
    with search.opened(Progress()) as opened:
        assert begun == [opened.isolation]
