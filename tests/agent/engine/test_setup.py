"""What is looked for before a search begins."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from agent.config import SearchConfig
from agent.engine.setup import check_prerequisites
from agent.errors import AgentError, UsageError
from benchmark.data import DataError, available, cifar, loading
from benchmark.tasks import get_profile
from tests.benchmark.data_files import write_cifar


def test_download_fetches_what_is_missing_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`agent search --profile paper --download` trained nothing: the first evaluation said "not on this machine"."""
    small = write_cifar(tmp_path / "source", "cifar100")
    monkeypatch.setitem(cifar.CIFAR, "cifar100", small)
    paper = get_profile("paper")
    visible = dataclasses.replace(paper, hidden=())
    asked = []

    def fetch(name: str, root: Path) -> Path:
        asked.append(name)
        if len(asked) == 1:
            raise DataError("could not download cifar100: no route to host; try again")
        write_cifar(root, name)
        return root / small.folder

    monkeypatch.setattr(loading, "_download", fetch)
    root = tmp_path / "root"
    root.mkdir()
    with pytest.raises(UsageError, match="cifar100 is not on this machine"):
        check_prerequisites(SearchConfig(profile="paper", data_root=root), visible)
    config = SearchConfig(profile="paper", data_root=root, download=True)
    with pytest.raises(AgentError, match=r"profile paper needs cifar100: could not download .* try again"):
        check_prerequisites(config, visible)
    for _ in range(2):
        check_prerequisites(config, visible)
    assert asked == ["cifar100", "cifar100"]
    assert available("cifar100", root).ok
