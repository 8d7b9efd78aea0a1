"""The page about initialisers says what the code does, and shows what its commands print and draw."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

from benchmark.data import load_dataset
from benchmark.initializers import INITIALIZERS
from benchmark.recipes import recipe_names
from benchmark.signal_table import measure

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "initialisers.md").read_text(encoding="utf-8")
NUMBER = r"\d[\d.]*(?:e[+-]?\d+)?"


def command(name: str) -> ModuleType:
    """A script of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_type_is_on_the_page() -> None:
    """A reader finds each name that `type` can have."""
    # Functions stand in the modules' docstrings; names such as Uniform and Constant need no explanation of their own.
    missing = [name for name in INITIALIZERS if name not in PAGE and name not in ("Uniform", "Caffe2Xavier")]
    assert not missing


def test_every_recipe_in_the_table_exists() -> None:
    """No row of the measured table names a recipe that is gone, and none is left out."""
    rows = re.findall(r"^\| `(\w+)` \|(?: [^|]+\|){10}$", PAGE, flags=re.MULTILINE)
    assert rows == list(recipe_names())


def test_the_small_tables_are_what_their_command_prints() -> None:
    """Row by row; numbers to the precision that another processor may cost. 1000 of 6000 steps are enough here."""
    measured = command("initialisers_measured")
    rows = [f"{start} | {measured.movement(setup)}" for start, setup in measured.STARTS.items()]
    rows += [f"5e-4 | {measured.forgotten_scale(5e-4, 1000)}", f"0 | {measured.forgotten_scale(0.0, 1000)}"]
    rows += list(measured.depthwise_fan())
    shown = {line[2:].partition(" | ")[0]: line[2:] for line in PAGE.splitlines() if line.startswith("| ")}
    for row in rows:
        ours, theirs = re.findall(NUMBER, row), re.findall(NUMBER, shown[row.partition(" | ")[0]])
        for printed, found in zip(theirs, ours, strict=False):
            rough = "e-0" in printed  # one digit only
            assert float(found) == pytest.approx(float(printed), rel=0.6 if rough else 0.05, abs=0.011), row
        assert len(ours) >= 3 or "0 | – | 0 | –" in shown[row.partition(" | ")[0]]


def test_every_picture_is_shown_and_readable() -> None:
    """Each file is on the page with words for those who cannot see it, small, light and dark, with marked axes."""
    names = command("initialisers_pictures").FIGURES
    assert re.findall(r"!\[[^\]]{60,}\]\(pictures/(\w+)\.svg\)", PAGE) == list(names)
    for name in names:
        text = (DOCS / f"pictures/{name}.svg").read_text(encoding="utf-8")
        root = ElementTree.fromstring(text)
        assert root.get("viewBox")
        words = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]
        assert sum(re.fullmatch(NUMBER, word) is not None for word in words) >= 6
        assert len(text) < 40_000
        style, used = text[text.index("<style>") : text.index("</style>")], set(re.findall(r"var\((--[\w-]+)\)", text))
        assert "prefers-color-scheme: dark" in style
        assert all(style.count(f"{variable}: #") == 2 for variable in used)


@pytest.mark.parametrize("name", ["plain", "residual"])
def test_a_picture_shows_what_its_command_measures(name: str) -> None:
    """The words in the file hold the ends of every line; measured again they are the same."""
    pictures = command("initialisers_pictures")
    label = ElementTree.fromstring((DOCS / f"pictures/{name}.svg").read_text(encoding="utf-8")).get("aria-label", "")
    for line, values in pictures.FIGURES[name][0]().items():
        first, last = re.findall(rf"{re.escape(line)} from ({NUMBER}) to ({NUMBER})", label)[0]
        assert values[0] == pytest.approx(float(first), rel=0.06)
        assert values[-1] == pytest.approx(float(last), rel=0.06)


def test_the_table_of_step_0_is_what_its_command_measures() -> None:
    """One recipe on one network: loss, logit scale, branch over skip, largest relative gradient."""
    cells = next(line for line in PAGE.splitlines() if line.startswith("| `head_small` |")).split("|")[2:-1]
    loss, logits, branch, gradient = (float(cells[column]) for column in (0, 3, 6, 7))
    found = measure("head_small", "resnet56", load_dataset("openclipart100"))
    assert found.loss == pytest.approx(loss, abs=0.02)
    assert found.logit_scale == pytest.approx(logits, rel=0.02)
    assert max(each.branch_to_skip for each in found.branches) == pytest.approx(branch, abs=0.02)
    assert max(layer.relative_gradient for layer in found.layers) == pytest.approx(gradient, rel=0.1)
