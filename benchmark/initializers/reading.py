"""An `init_cfg` from a file: JSON, or Python as it stands in the configs of OpenMMLab, which is read and never run."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from typing import Any

from benchmark.initializers.errors import InitConfigError
from benchmark.initializers.folding import fold
from benchmark.initializers.registry import INITIALIZERS

_KEY = "init_cfg"

MAX_PYTHON = 16 * 1024
"""Characters. Python's parser needs memory that grows with the square of some texts."""


def parse_init_cfg(text: str) -> Any:
    """The config in a text: JSON, or a Python expression of dicts (also `dict(type=…)`), lists, numbers and strings.

    Also taken: `init_cfg = …` with or without a comma behind it, among imports and other assignments; an object with
    the key `init_cfg`; a whole config file in which one `init_cfg` occurs somewhere. Numbers may be arithmetic
    (`5 ** 0.5`, `math.sqrt(5)`) and names that the file assigns before; `type` may be the class instead of its name.
    What the config means is not checked here: `initialize` and `region_from_init_cfg` do that.
    Raises InitConfigError for any other text, with the line, and where several configs differ.
    """
    text = text.removeprefix("\ufeff").strip()
    try:
        return _only(list(_inside(json.loads(text))) or [json.loads(text)])
    except (ValueError, RecursionError) as error:
        if isinstance(error, InitConfigError):
            raise
    if len(text) > MAX_PYTHON:
        raise InitConfigError(f"not JSON, and too long for Python: {len(text):,} characters, at most {MAX_PYTHON:,}")
    try:
        tree = ast.parse(text)
        return _only(list(_candidates(tree)))
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise InitConfigError(f"neither JSON nor Python: {error}") from None
    except ValueError as error:
        if isinstance(error, InitConfigError):
            raise
        raise InitConfigError(f"neither JSON nor Python: {error}") from None


def _inside(value: Any) -> Iterator[Any]:
    """The values under the key `init_cfg`, at any depth of what a JSON text holds; not inside one another."""
    if isinstance(value, dict):
        if _KEY in value:
            yield value[_KEY]
        else:
            for child in value.values():
                yield from _inside(child)
    elif isinstance(value, list):
        for child in value:
            yield from _inside(child)


def _candidates(tree: ast.Module) -> Iterator[Any]:
    """The configs of a Python text: the one expression, the assignment to `init_cfg`, or every `init_cfg` inside."""
    if len(tree.body) == 1 and isinstance(tree.body[0], ast.Expr):
        value = fold(tree.body[0].value, _CLASSES)
        yield from list(_inside(value)) or [value]
        return
    names: dict[str, Any] = dict(_CLASSES)
    assigned: list[tuple[str, ast.expr]] = []
    for statement in tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                assigned.append((name, value))
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                assigned.append((name, value))
    for name, value in assigned:
        if name == _KEY:
            if isinstance(value, ast.Tuple) and len(value.elts) == 1:  # init_cfg=[…], as in a list of arguments
                value = value.elts[0]
            yield fold(value, names)
            return
        try:
            names[name] = fold(value, names)
        except InitConfigError:
            names.pop(name, None)  # what follows may not need it
    found = False
    for _, value in assigned:
        for inner in _keyed(value):
            found = True
            yield fold(inner, names)
    if not found and len(assigned) == 1 == len(tree.body):
        yield fold(assigned[0][1], names)


def _keyed(node: ast.AST) -> Iterator[ast.expr]:
    """The expressions that stand under `init_cfg`, as a keyword or as a key, in the order of the text."""
    for child in ast.walk(node):
        if isinstance(child, ast.keyword) and child.arg == _KEY:
            yield child.value
        elif isinstance(child, ast.Dict):
            for key, value in zip(child.keys, child.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == _KEY:
                    yield value


def _only(found: list[Any]) -> Any:
    distinct: list[Any] = []
    for one in found:
        if one is not None and one not in distinct:
            distinct.append(one)
    if not distinct:
        raise InitConfigError(
            "no init_cfg in it; one expression is expected, such as [dict(type='Kaiming', layer='Conv2d')], or an "
            "assignment to init_cfg"
        )
    if len(distinct) > 1:
        shown = "; ".join(f"{one!r:.60}" for one in distinct[:4])
        raise InitConfigError(
            f"{len(distinct)} different init_cfg in it ({shown}): write the one that is meant into a file of its own"
        )
    return distinct[0]


_CLASSES = {rule.__name__: name for name, rule in INITIALIZERS.items()}
"""`type=TruncNormalInit`, the class, stands for "TruncNormal"."""
