"""A run in a notebook: what a cell shows, and that a search says what it does."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent import load_run
from agent.engine.search import SearchOutcome
from agent.report.notebook import LoadedRun, in_notebook, notebook_progress
from tests.agent.conftest import ROOT
from tests.agent.report_samples import HOSTILE, change_summary, copy_run
from tests.sample import SAMPLE, restore

pytestmark = pytest.mark.usefixtures("drawn_once")


def test_a_loaded_run_is_its_summary_and_shows_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is the dictionary that it was, with verdict, table and curve for a notebook, and sentences elsewhere."""
    run = restore(SAMPLE, tmp_path / "run")
    loaded = load_run(run.path)
    assert isinstance(loaded, dict)
    assert json.loads(json.dumps(loaded))["status"] == "submitted"
    html = loaded._repr_html_()
    for part in ("no difference to the baseline (+2.1 points", "−1.0 … +5.2", "<b>+1.46</b>", "−16.93 … −3.37", "<svg"):
        assert part in html
    loaded.show()
    assert "resolved, and worse than the baseline" in capsys.readouterr().out
    assert not in_notebook()
    assert notebook_progress() is None


def test_an_outcome_shows_itself(finished: SearchOutcome) -> None:
    """The last line of a cell with a search."""
    assert finished.run.name in finished._repr_html_()


def test_texts_of_a_run_stay_texts(tmp_path: Path) -> None:
    """A notebook runs the scripts of what it shows."""
    run = copy_run(restore(SAMPLE, tmp_path / "run").path, tmp_path / "copies")
    change_summary(run, caveat=HOSTILE)
    html = LoadedRun(load_run(run.path))._repr_html_()
    assert "<script" not in html
    assert "<img" not in html


_CELLS = """
import sys
sys.path.insert(0, {root!r})
from agent import load_run
from agent.report.notebook import in_notebook, notebook_progress
assert in_notebook()
progress = notebook_progress()
progress.message("measuring <the> baseline")
progress.close()
load_run({run!r}).show()
load_run({run!r})
"""


Cells = Callable[[str], list[tuple[str, str]]]


@pytest.fixture(scope="module")
def cells(cache: Path) -> Iterator[Cells]:
    """Runs a cell in a real kernel. Returns its outputs as they came: the kind, and the HTML or the content."""
    manager: Any = pytest.importorskip("jupyter_client.manager", reason="jupyter_client is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    environment = {**os.environ, "INITSEARCH_CACHE_DIR": str(cache)}
    kernel, client = manager.start_new_kernel(kernel_name="python3", extra_arguments=["--no-secure"], env=environment)

    def run(code: str) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []

        def keep(message: dict[str, Any]) -> None:
            content = message["content"]
            found.append((message["msg_type"], content.get("data", {}).get("text/html", "") or str(content)))

        client.execute_interactive(code, output_hook=keep, timeout=240, store_history=False)
        return found

    yield run
    client.stop_channels()
    kernel.shutdown_kernel(now=True)


def test_in_a_kernel(cells: Cells, tmp_path: Path) -> None:
    """In a real kernel: the progress in one output that is replaced, and the run as HTML."""
    run = restore(SAMPLE, tmp_path / "run")
    found = cells(_CELLS.format(root=str(ROOT), run=str(run.path)))
    shown = [html for kind, html in found if kind in ("display_data", "execute_result")]
    assert len(shown) == 3, found
    assert "measuring &lt;the&gt; baseline" in next(html for kind, html in found if kind == "update_display_data")
    assert all("no difference to the baseline (+2.1 points" in html for html in shown[1:])
    assert sys.executable


_SEARCH = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
import numpy as np
from torch import nn
from agent import search
from tests.agent.kept import Kept, used

# One isolation and one process that forks, for the check of the task and for the search.
processes = used(Kept(Path({cache!r})))
processes.__enter__()

def build(num_classes):
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, num_classes))

rng = np.random.default_rng(0)
def some(count):
    return rng.integers(0, 256, (count, 8, 8), dtype=np.uint8), np.arange(count) % 4
search(network=build, data=(*some(64), *some(32)), epochs=2, batch_size=16, budget=1, workers=1, runs={runs!r})
"""


def test_a_search_in_a_kernel_shows_what_it_does(cells: Cells, tmp_path: Path, cache: Path) -> None:
    """A function and arrays of the notebook: lines come while the cell runs, and at its end verdict and table."""
    seen = cells(_SEARCH.format(root=str(ROOT), cache=str(cache), runs=str(tmp_path / "runs")))
    kinds = [kind for kind, _ in seen]
    assert "error" not in kinds, seen
    assert kinds.count("display_data") == 1
    updates = [html for kind, html in seen if kind == "update_display_data"]
    assert len(updates) >= 3
    assert any("epoch" in html and "test accuracy" in html for html in updates), updates
    assert any("of 3" in html or "/2]" in html for html in updates), updates
    assert kinds.index("update_display_data") < kinds.index("execute_result")
    (result,) = [html for kind, html in seen if kind == "execute_result"]
    assert "network-arrays" in result  # a function called build is named after its file
    assert "<table" in result
