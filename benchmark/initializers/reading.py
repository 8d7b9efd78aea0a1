"""An `init_cfg` from a file: JSON, or Python as it stands in the configs of OpenMMLab, which is read and never run."""

from __future__ import annotations

import ast
import json
from typing import Any

from benchmark.initializers.errors import InitConfigError

MAX_PYTHON = 16 * 1024
"""Characters. Python's parser needs memory that grows with the square of some texts."""


def parse_init_cfg(text: str) -> Any:
    """The config in a text: JSON, or a Python expression of dicts (also `dict(type=…)`), lists and constants.

    `init_cfg = …` is taken as well, with or without a comma behind it. What it means is not checked here: `initialize`
    and `region_from_init_cfg` do that. Raises InitConfigError for any other text, with the line.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    if len(text) > MAX_PYTHON:
        raise InitConfigError(f"not JSON, and too long for Python: {len(text):,} characters, at most {MAX_PYTHON:,}")
    try:
        body = ast.parse(text.strip()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InitConfigError(f"neither JSON nor Python: {error}") from None
    if len(body) != 1 or not isinstance(body[0], ast.Expr | ast.Assign):
        raise InitConfigError("one expression is expected, such as [dict(type='Kaiming', layer='Conv2d')]")
    value = body[0].value
    if isinstance(value, ast.Tuple) and len(value.elts) == 1:  # init_cfg=[…], as it stands in a list of arguments
        value = value.elts[0]
    return _value(value)


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=keywords) if all(word.arg for word in keywords):
            return {word.arg: _value(word.value) for word in keywords}
        case ast.Dict(keys=keys, values=values) if all(isinstance(key, ast.Constant) for key in keys):
            return {ast.literal_eval(key): _value(value) for key, value in zip(keys, values, strict=True) if key}
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            return [_value(element) for element in elements]
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError):
        try:
            shown = ast.unparse(node)[:60]
        except (RecursionError, ValueError):
            shown = "a huge expression"
        raise InitConfigError(
            f"line {node.lineno}: {shown!r} would have to be run; only dicts, lists, numbers and strings are read"
        ) from None
