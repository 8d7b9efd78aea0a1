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

_MOST_VALUES = 10_000


def parse_init_cfg(text: str) -> Any:
    """The config in a text: JSON, or a Python expression of dicts (also `dict(type=…)`), lists, numbers and strings.

    Also taken: `init_cfg = …` with or without a comma behind it, among imports and other assignments; an object with
    the key `init_cfg`; a whole file in which one `init_cfg` occurs somewhere, as a key, an argument or a default value.
    Numbers may be arithmetic (`5 ** 0.5`, `math.sqrt(5)`) and names that the file assigns before, dicts and lists may
    be joined (`dict(**base)`, `a + b`); `type` may be the class instead of its name. A file that changes its
    `init_cfg` afterwards, as `init_cfg.append(…)` does, is refused.
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
    """The configs of a Python text: the one expression, the last assignment to `init_cfg`, or all inside."""
    _resolve_imports(tree)
    if len(tree.body) == 1 and isinstance(tree.body[0], ast.Expr):
        inside = list(_keyed(tree)) if isinstance(tree.body[0].value, ast.Call) else []
        for expression in inside or [tree.body[0].value]:
            value = fold(expression, _CLASSES)
            yield from list(_inside(value)) or [value]
        return
    names: dict[str, Any] = dict(_CLASSES)
    others = 0
    for statement in tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                pass
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                pass
            case _:
                _check_unchanged(statement)
                others += not isinstance(statement, ast.Import | ast.ImportFrom | ast.Expr)
                continue
        if name == _KEY and isinstance(value, ast.Tuple) and len(value.elts) == 1:
            value = value.elts[0]  # init_cfg=[…], as in a list of arguments
        try:
            names[name] = fold(value, names)
            _check_size(names[name], statement.lineno)
        except InitConfigError:
            if name == _KEY:
                raise
            names.pop(name, None)  # what follows may not need it
    if _KEY in names:
        yield names[_KEY]
        return
    expressions = [one for one in _keyed(tree) if not isinstance(one, ast.Name) or one.id in names]
    yield from (fold(one, names) for one in expressions)
    if not expressions:
        assigned = [value for name, value in names.items() if name not in _CLASSES]
        yield from assigned if len(assigned) == 1 and not others else filter(_is_config, assigned)


def _resolve_imports(tree: ast.Module) -> None:
    """Replace names that an import has changed, as in `from math import sqrt as root`, by the names before."""
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    changed = {alias.asname: alias.name for node in imports for alias in node.names if alias.asname}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            node.id = changed.get(node.id, node.id)


def _check_unchanged(statement: ast.stmt) -> None:
    """Raise InitConfigError where a statement would change `init_cfg`, as `init_cfg.append(…)` does."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return
    for node in ast.walk(statement):
        match node:
            case ast.Expr(value=ast.Call(func=ast.Attribute(value=changed))):
                pass
            case ast.Name(id=name, ctx=ast.Store()) if name == _KEY:
                changed = node
            case ast.Subscript(value=changed, ctx=ast.Store()):
                pass
            case _:
                continue
        while isinstance(changed, ast.Attribute | ast.Subscript):
            changed = changed.value
        if isinstance(changed, ast.Name) and changed.id == _KEY:
            raise InitConfigError(
                f"line {statement.lineno}: what changes init_cfg there would have to be run; write it in one expression"
            )


def _check_size(value: Any, line: int) -> None:
    """Raise InitConfigError for a value that grows with each line, as `a = [a, a]` makes it."""
    waiting, seen = [value], 0
    while waiting:
        one = waiting.pop()
        seen += 1
        if seen > _MOST_VALUES:
            raise InitConfigError(f"line {line}: more than {_MOST_VALUES:,} values")
        waiting += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()


def _keyed(tree: ast.AST) -> Iterator[ast.expr]:
    """The expressions that stand under `init_cfg`: as a keyword, key, default value or assigned item."""
    for node in ast.walk(tree):
        match node:
            case ast.keyword(arg=name, value=value) if name == _KEY:
                yield value
            case ast.Dict(keys=keys, values=values):
                pairs = zip(keys, values, strict=True)
                yield from (value for key, value in pairs if isinstance(key, ast.Constant) and key.value == _KEY)
            case ast.Assign(targets=[ast.Subscript(slice=ast.Constant(value=name))], value=value) if name == _KEY:
                yield value
            case ast.Assign(targets=[ast.Attribute(attr=name)], value=value) if name == _KEY:
                yield value
            case ast.arguments(args=arguments, defaults=defaults) if defaults:
                given = zip(arguments[-len(defaults) :], defaults, strict=False)
                yield from (value for argument, value in given if argument.arg == _KEY)


def _is_config(value: object) -> bool:
    """Whether a value has the look of a config: entries with the name of an initialiser."""
    entries = value if isinstance(value, list) else [value]
    kinds = [str(entry.get("type")).rpartition(".")[2] if isinstance(entry, dict) else "" for entry in entries]
    return bool(kinds) and all(kind in INITIALIZERS for kind in kinds)


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
