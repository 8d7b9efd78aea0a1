"""Every recipe on networks of torchvision and timm: it works and keeps them alive, or says what it left out.

The networks are those of tests/agent/spaces/test_foreign_networks.py: the libraries' own classes, narrow. All pairs
take some minutes: INITSEARCH_ALL_RECIPES=1 tries them, and prints the table of docs/initialisers.md with `-s`.
"""

from __future__ import annotations

import os
import warnings
from typing import Any

import pytest
import torch
from torch import nn

from benchmark.recipes import get_recipe, load_for_any_network, load_region, recipe_names
from tests.agent.spaces.test_foreign_networks import NETWORKS, _reached, built

CONFIG = {"arch": "somebody's", "num_classes": 10, "depth": 20}
SOME = [
    ("fixup", "resnet18"),
    ("zero_init", "mobilenet_v3"),
    ("idinit", "convnext"),
    ("lsuv_noise", "vit_tiny"),
    ("rbb", "preact resnet"),
    ("rising_gamma", "group norm"),
    ("delta_orthogonal", "squeezenet"),
    ("torchvision_googlenet", "mlp-mixer"),
]
"""What the suite tries each time."""
every = os.environ.get("INITSEARCH_ALL_RECIPES") == "1"
pairs = [(recipe, name) for name in NETWORKS for recipe in recipe_names()] if every else SOME


def tried(recipe: str, name: str) -> tuple[list[str], list[str]]:
    """Initialise a network by a recipe, as a library and as a region in a search.

    Returns what the library's way warned of, and the parameters that no gradient reaches afterwards.
    """
    model = built(name).train()
    kept = {key: value.clone() for key, value in model.state_dict().items()}
    try:
        alive = _reached(model)
        model.load_state_dict(kept)
        torch.manual_seed(1)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            load_for_any_network(get_recipe(recipe).region)(model, CONFIG)
        assert all(torch.isfinite(value).all() for value in model.parameters())
        return [str(warning.message).partition(": ")[2] for warning in caught], sorted(alive - _reached(model))
    finally:
        model.load_state_dict(kept)
        model.eval()


@pytest.mark.parametrize(("recipe", "name"), pairs)
def test_a_recipe_keeps_a_foreign_network_alive(recipe: str, name: str) -> None:
    """Gradients are finite and reach, within four steps, every parameter that they reach in the network as built."""
    notes, dead = tried(recipe, name)
    assert not dead, notes


@pytest.mark.skipif(not every, reason="tries 400 pairs, some minutes: INITSEARCH_ALL_RECIPES=1")
def test_the_table_of_the_docs(capsys: pytest.CaptureFixture[str]) -> None:
    """Prints it: a row per network, with the recipes that left something out, and what."""
    with capsys.disabled():
        for name in NETWORKS:
            said: dict[str, list[str]] = {}
            for recipe in recipe_names():
                try:
                    notes, dead = tried(recipe, name)
                except Exception as error:  # noqa: BLE001 - it belongs into the table
                    notes, dead = [f"fails: {type(error).__name__}: {error}"], []
                note = "; ".join([*notes, *([f"no gradient: {', '.join(dead)}"] if dead else [])]) or "all set"
                said.setdefault(note, []).append(recipe)
            for note, recipes in said.items():
                print(f"| {name} | {', '.join(recipes)} | {note} |")
            failing = {recipe: fault for recipe in recipe_names() if (fault := as_region(recipe, name))}
            print(f"| {name}, in a search | {', '.join(failing) or 'none fails'} | {'; '.join({*failing.values()})} |")


@pytest.mark.parametrize(("recipe", "name"), SOME)
def test_a_recipe_is_a_region_for_it(recipe: str, name: str) -> None:
    """In a search isolation runs the text as it is, without the library's help."""
    assert as_region(recipe, name) is None


def test_a_recipe_that_cannot_do_its_one_thing_says_so() -> None:
    """`head_small` ended with "list index out of range" on SqueezeNet."""
    assert (
        as_region("head_small", "squeezenet") == "ValueError: the network has no Linear layer that could be made small"
    )


def as_region(recipe: str, name: str) -> str | None:
    """Run a recipe's text as isolation does: its error, or None."""
    model: nn.Module = built(name)
    kept: dict[str, Any] = {key: value.clone() for key, value in model.state_dict().items()}
    try:
        torch.manual_seed(1)
        load_region(get_recipe(recipe).region)(model, CONFIG)
        assert all(torch.isfinite(value).all() for value in model.parameters())
    except Exception as error:  # noqa: BLE001 - a search shows it as the candidate's failure
        return f"{type(error).__name__}: {error}"
    finally:
        model.load_state_dict(kept)
    return None
