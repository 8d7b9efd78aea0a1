"""Whole-network initialisation strategies, each a region text that an agent can start from and a person can read.

A recipe is the file `<name>.py.txt` in this folder: helper functions and `initialize_weights(model, config)`, using
only the names in `REGION_NAMES`. The first line of the function's docstring is the recipe's description; the paragraph
that begins with `Source:` says where the idea comes from. Nothing here imports torch before `load_region` is called.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.suggestions import did_you_mean

if TYPE_CHECKING:
    from torch import nn

Initializer = Callable[["nn.Module", Mapping[str, Any]], None]
"""What a region defines: `initialize_weights(model, config)`, which sets every parameter of `model` in place."""

REGION_NAMES = ("torch", "nn", "F", "math", "BasicBlock", "InvertedResidual")
"""The names that a region may use without importing them."""

_FOLDER = Path(__file__).resolve().parent
_SUFFIX = ".py.txt"
# In the order of a table: the baseline, what was built on it, other ideas, other libraries, the recorded run.
_NAMES = (
    "kaiming_normal",
    "orthogonal",
    "fixup",
    "zero_last_gamma",
    "head_small",
    "gradinit_like",
    "dirac_mix",
    "delta_orthogonal",
    "zero_init",
    "lecun",
    "kaiming_groups_correct",
    "idinit",
    "sinusoidal",
    "orthogonal_standardised",
    "rising_gamma",
    "gain_decay",
    "lsuv_noise",
    "pytorch_default",
    "torchvision_resnet",
    "torchvision_squeezenet",
    "torchvision_googlenet",
    "torchvision_mobilenet",
    "ravs",
    "dars",
    "fixup_plus_plus",
    "davs",
    "rbb",
)


class UnknownRecipeError(KeyError):
    """No recipe has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"unknown recipe {name!r}; {did_you_mean(name, _NAMES)}Known recipes: {', '.join(_NAMES)}")

    def __str__(self) -> str:
        # KeyError shows the repr of its argument, which would put the whole sentence in quotes.
        return str(self.args[0])


@dataclass(frozen=True)
class RecipeText:
    """A recipe: its name, its region text (ends with a newline), a one-line description, and its source."""

    name: str
    region: str
    description: str
    source: str


def recipe_names() -> tuple[str, ...]:
    """The names of all recipes, the baseline first."""
    return _NAMES


@functools.cache
def get_recipe(name: str) -> RecipeText:
    """The recipe called `name`; raises UnknownRecipeError (a KeyError), which suggests the closest name."""
    if name not in _NAMES:
        raise UnknownRecipeError(name)
    region = (_FOLDER / f"{name}{_SUFFIX}").read_text(encoding="utf-8")
    docstring = _strategy_docstring(region)
    description = docstring.splitlines()[0]
    source = " ".join(docstring.partition("Source:")[2].split()).rstrip(".")
    return RecipeText(name=name, region=region, description=description, source=source)


class _Recipes(Mapping[str, RecipeText]):
    """All recipes by name; a text is read from disk when it is asked for."""

    def __getitem__(self, name: str) -> RecipeText:
        return get_recipe(name)

    def __iter__(self) -> Iterator[str]:
        return iter(_NAMES)

    def __len__(self) -> int:
        return len(_NAMES)


RECIPES: Mapping[str, RecipeText] = _Recipes()


def load_region(region: str) -> Initializer:
    """The `initialize_weights` that a region text defines, with `REGION_NAMES` in scope.

    It executes the text in this process: for recipes and the user's own text only. Text written by a model belongs in
    the sandbox. Raises SyntaxError, whatever the text itself raises, and KeyError when it defines no such function.
    """
    import math

    import torch
    import torch.nn.functional as F
    from torch import nn

    from benchmark.models import BasicBlock, InvertedResidual

    scope: dict[str, Any] = {
        "torch": torch,
        "nn": nn,
        "F": F,
        "math": math,
        "BasicBlock": BasicBlock,
        "InvertedResidual": InvertedResidual,
    }
    exec(compile(region, "<region>", "exec"), scope)
    function: Initializer = scope["initialize_weights"]
    return function


def load_for_any_network(region: str) -> Initializer:
    """As `load_region`, for networks that are not of this project: torchvision's, timm's or your own.

    What the text takes for granted and the network lacks is supplied for the duration of the call, and a UserWarning
    says what was left out (`benchmark.recipes.any_network`). `config` is what the text reads of it, often nothing.
    """
    from benchmark.recipes import any_network

    function = load_region(region)
    scope: dict[str, Any] = getattr(function, "__globals__")  # noqa: B009
    scope.update(BasicBlock=any_network.LikeBasicBlock, InvertedResidual=any_network.LikeInvertedResidual)
    blocks = any_network.recognised_blocks if asks_for_blocks(region) else None
    return any_network.on_any_network(function, blocks=blocks)


def asks_for_blocks(region: str) -> bool:
    """Whether a region text uses the names of this project's residual blocks, and does not define them itself."""
    tree = ast.parse(region)
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    defined = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    return not (used - defined).isdisjoint(("BasicBlock", "InvertedResidual"))


def _strategy_docstring(region: str) -> str:
    for node in ast.parse(region).body:
        if isinstance(node, ast.FunctionDef) and node.name == "initialize_weights":
            return ast.get_docstring(node) or ""
    raise ValueError("the region text defines no initialize_weights")
